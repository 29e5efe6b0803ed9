# One job per experiment, trace and latency model; each writes one table. What a job depends on is its own part of the
# configuration (`settings`), not the whole file, and the modules and cards that make its rows (`code`). The trace's
# description says which trace it is after all: its synthetic twin, when it could not be had.
TRACE = f"{RESULTS}/traces/{{trace}}.json"


rule capacity:
    input:
        KERNEL,
        trace=TRACE,
    output:
        f"{RESULTS}/capacity/paper/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/capacity/{{trace}}-{{latency}}.tsv"
    priority: 2
    params:
        settings=lambda w: CONFIG.capacity.model_dump_json(),
        code=lambda w: code_digest("capacities", w.latency, settings=CONFIG.capacity),
    shell:
        "python -m artifact capacities --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q} --latency {wildcards.latency:q}"
        " --run-length paper --out {output:q}"


rule long_capacity:
    # starts from the shorter runs' answers
    input:
        KERNEL,
        trace=TRACE,
        guesses=rules.capacity.output,
    output:
        f"{RESULTS}/capacity/long/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/long_capacity/{{trace}}-{{latency}}.tsv"
    priority: 1
    params:
        settings=lambda w: CONFIG.long_capacity.model_dump_json(),
        code=lambda w: code_digest(
            "capacities", w.latency, settings=CONFIG.long_capacity
        ),
    shell:
        "python -m artifact capacities --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q} --latency {wildcards.latency:q}"
        " --run-length long --guesses {input.guesses:q} --out {output:q}"


rule sweep:
    input:
        KERNEL,
        trace=TRACE,
    output:
        f"{RESULTS}/sweep/{{trace}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/sweep/{{trace}}-{{latency}}.tsv"
    params:
        settings=lambda w: CONFIG.sweep.model_dump_json(),
        code=lambda w: code_digest("sweep", w.latency, settings=CONFIG.sweep),
    shell:
        "python -m artifact sweep --config {EXPERIMENTS:q} --trace {wildcards.trace:q} --described {input.trace:q} --latency {wildcards.latency:q}"
        " --out {output:q}"


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


# Each a rule of its own: a part that fails costs its own table and no other.
rule capacity_table:
    input:
        [
            f"{RESULTS}/capacity/{length}/{trace}/{latency}.parquet"
            for length, experiment in (
                ("paper", CONFIG.capacity),
                ("long", CONFIG.long_capacity),
            )
            for trace in experiment.requests
            for latency in CONFIG.latencies
        ],
    output:
        f"{RESULTS}/tables/capacity.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"


rule summary_table:
    input:
        expand(
            f"{RESULTS}/sweep/{{trace}}/{{latency}}.parquet",
            trace=CONFIG.sweep.traces,
            latency=CONFIG.latencies,
        ),
    output:
        f"{RESULTS}/tables/summary.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"


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
