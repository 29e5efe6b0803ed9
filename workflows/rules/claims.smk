# The claims table. A manifest lists the tables that belong together, so that `verify` notices one that is gone or edited:
# one for what the default target makes, one for what `paper` adds.
ADDED_BY_PAPER = sorted(TABLES - {"capacity", "summary", "cluster"})


rule manifest:
    input:
        MAIN_TABLES,
        rules.shown_servers.output if SHOWS_SERVERS else [],
        rules.engine_table.output if SHOWS_SERVERS else [],
    output:
        f"{RESULTS}/tables/manifest.json",
    shell:
        "python -m artifact manifest {input:q} --results {RESULTS:q} --out {output:q}"


rule paper_manifest:
    input:
        expand(f"{RESULTS}/tables/{{table}}.parquet", table=ADDED_BY_PAPER),
    output:
        f"{RESULTS}/tables/manifest-paper.json",
    shell:
        "python -m artifact manifest {input:q} --results {RESULTS:q} --out {output:q}"


rule claims:
    # a claim that fails does not stop the pipeline: the table says so, and `python -m artifact verify` by its status
    input:
        rules.manifest.output,
        rules.paper_manifest.output,
        CLAIMS,
        "figures/paper_values.yaml",
    output:
        markdown=report(
            f"{RESULTS}/claims.md",
            caption="../report/claims.rst",
            category="1 Claims",
            labels={"figure": "Every claim, checked"},
        ),
        json=f"{RESULTS}/claims.json",
    shell:
        "python -m artifact verify --results {RESULTS:q} --report-only --markdown {output.markdown:q} --json {output.json:q}"
