# Traces, and the compiled kernel. Workloads (trace x arrivals x classes x seed) are built in memory by each run, from
# its seed: a file per run would only copy what 20 ms rebuild.


from artifact.results.code_hash import code_digest

# Not `ancient`: where an input is to be made again, Snakemake looks at no params of the jobs that take it.
KERNEL = f"{RESULTS}/kernel.txt"


rule kernel:
    # once, so that jobs side by side do not all compile
    output:
        f"{RESULTS}/kernel.txt",
    benchmark:
        f"{RESULTS}/benchmarks/kernel/kernel.tsv"
    params:
        code=code_digest("simulate"),
    shell:
        "python -m artifact compile --out {output:q}"


rule trace:
    output:
        f"{RESULTS}/traces/{{trace}}.json",
    benchmark:
        f"{RESULTS}/benchmarks/trace/{{trace}}.tsv"
    params:
        # the trace, or the synthetic one that stands for it; what takes the description is made again after it
        code=lambda w: code_digest("trace", w.trace, f"{w.trace}-synth"),
    shell:
        "python -m artifact trace {wildcards.trace:q} --out {output:q}"
