# One job per experiment, trace and latency model; each writes one table. What a job depends on is its own part of the
# configuration (`settings`), not the whole file, and the modules and cards that make its rows (`code`). The trace's
# description says which trace it is after all: the synthetic one, when it could not be had.
TRACE = f"{RESULTS}/traces/{{trace}}.json"


rule cluster:
    input:
        KERNEL,
        trace=TRACE,
    output:
        f"{RESULTS}/cluster/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/cluster/{{trace}}-{{latency}}.tsv"
    priority: 3
    params:
        settings=lambda w: CONFIG.cluster.model_dump_json(),
        code=lambda w: code_digest("cluster", w.latency, settings=CONFIG.cluster),
    shell:
        "python -m artifact cluster --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q} --latency {wildcards.latency:q}"
        " --out {output:q}"


rule cluster_table:
    input:
        expand(
            f"{RESULTS}/cluster/{{trace}}/{{latency}}.parquet",
            trace=CONFIG.cluster.traces,
            latency=CONFIG.latencies,
        ),
    output:
        f"{RESULTS}/tables/cluster.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"


MAIN_TABLES = expand(
    f"{RESULTS}/tables/{{table}}.parquet", table=("capacity", "summary", "cluster")
)
