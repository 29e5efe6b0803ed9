# vLLM's own engine in virtual time, on what the servers of servers.smk serve. A job is one system and seed at all loads;
# nothing in it looks at a clock, so jobs run side by side and beside anything else. Left out as the servers are, with
# `servers=none` and where vLLM is not installed (the report says which).


rule engine_sweep:
    input:
        KERNEL,
        SERVERS_CONFIG,
        SERVERS_CARD,
        trace=SERVER_TRACE,
    output:
        f"{RESULTS}/engine/{{server_system}}-{{seed}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/engine_sweep/{{server_system}}-{{seed}}.tsv"
    params:
        code=lambda w: code_digest("engine-sweep", SERVERS.latency),
    shell:
        "python -m artifact engine-sweep --config {SERVERS_CONFIG:q} --system {wildcards.server_system:q}"
        " --seed {wildcards.seed:q} --described {input.trace:q} --out {output:q}{LATENCY_OPTION}"


rule engine_table:
    input:
        lambda w: expand(
            f"{RESULTS}/engine/{{system}}-{{seed}}.parquet",
            system=SERVERS.systems,
            seed=range(SERVERS.virtual().seeds),
        ),
    output:
        f"{RESULTS}/tables/engine.parquet",
    shell:
        "python -m artifact server-table {input:q} --out {output:q}"
