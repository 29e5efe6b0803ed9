# vLLM's own engine in virtual time, on what the servers of servers.smk serve. A job is one system and seed at all loads;
# nothing in it looks at a clock, so jobs run side by side and beside anything else. Left out with `servers=none`, where
# vLLM is not installed, and for a configuration without `virtual_time` (the report says so).
SHOWS_ENGINE = SERVERS_FORM != "none" and SERVERS.virtual_time is not None


rule engine_sweep:
    input:
        f"{RESULTS}/kernel.txt",
        SERVERS_CONFIG,
        SERVERS_CARD,
        trace=SERVER_TRACE,
    output:
        f"{RESULTS}/engine/{{server_system}}-{{seed}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/engine_sweep/{{server_system}}-{{seed}}.tsv"
    shell:
        "python -m artifact engine-sweep --config {SERVERS_CONFIG} --system {wildcards.server_system}"
        " --seed {wildcards.seed} --described {input.trace} --out {output}{LATENCY_OPTION}"


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
        "python -m artifact server-table {input} --out {output}"
