# Experiments with a shape of their own: a disaggregated deployment (Fig 8), and load that comes in waves (Fig 12, 13).
# One job per trace and latency model; a configuration need not have them.


def parts(experiment, folder, name, latencies):
    """Files that the jobs of an experiment write."""
    return expand(
        f"{RESULTS}/{folder}/{{trace}}/{{latency}}{name}.parquet",
        trace=experiment.traces if experiment else [],
        latency=latencies if experiment else [],
    )


rule disaggregated:
    input:
        KERNEL,
        trace=TRACE,
    output:
        f"{RESULTS}/disaggregated/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/disaggregated/{{trace}}-{{latency}}.tsv"
    params:
        settings=lambda w: CONFIG.disaggregated.model_dump_json(),
        code=lambda w: code_digest(
            "disaggregated", w.latency, settings=CONFIG.disaggregated
        ),
    shell:
        "python -m artifact disaggregated --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q}"
        " --latency {wildcards.latency:q} --out {output:q}"


rule disaggregated_table:
    input:
        parts(
            CONFIG.disaggregated,
            "disaggregated",
            "",
            CONFIG.disaggregated and CONFIG.disaggregated.kv_bytes_per_token,
        ),
    output:
        f"{RESULTS}/tables/disaggregated.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"


rule overload:
    input:
        KERNEL,
        trace=TRACE,
    output:
        summary=f"{RESULTS}/overload/{{trace}}/{{latency}}.parquet",
        windows=f"{RESULTS}/overload/{{trace}}/{{latency}}-windows.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/overload/{{trace}}-{{latency}}.tsv"
    params:
        settings=lambda w: CONFIG.overload.model_dump_json(),
        code=lambda w: code_digest("overload", w.latency, settings=CONFIG.overload),
    shell:
        "python -m artifact overload --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q}"
        " --latency {wildcards.latency:q} --out {output.summary:q} --windows {output.windows:q}"


rule overload_tables:
    input:
        summary=parts(CONFIG.overload, "overload", "", CONFIG.latencies),
        windows=parts(CONFIG.overload, "overload", "-windows", CONFIG.latencies),
    output:
        summary=f"{RESULTS}/tables/overload.parquet",
        windows=f"{RESULTS}/tables/overload_windows.parquet",
    shell:
        "python -m artifact merge {input.summary:q} --out {output.summary:q}"
        " && python -m artifact merge {input.windows:q} --out {output.windows:q}"
