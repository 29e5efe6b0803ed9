# The experiments under `panels`: one job per table and latency model. Fig 4 shows all of the paper's configurations.
from artifact.experiments.chunk_curve import LATENCIES
from artifact.experiments.panel_config import Panels

PANELS = CONFIG.panels.tables


def panel_latencies(table):
    """The latency models that a panel is made with."""
    own = {"chunk_curve": LATENCIES}
    if CONFIG.panels.operators is not None:
        own["operators"] = CONFIG.panels.operators.latencies
    return own.get(table, CONFIG.latencies)


wildcard_constraints:
    panel="|".join(Panels.model_fields),


rule panel:
    input:
        KERNEL,
        traces=lambda w: expand(
            f"{RESULTS}/traces/{{trace}}.json",
            trace=CONFIG.panels.traces_of(w.panel),
        ),
    output:
        f"{RESULTS}/panels/{{panel}}/{{latency}}.parquet",
    benchmark:
        f"{RESULTS}/benchmarks/panel/{{panel}}-{{latency}}.tsv"
    params:
        settings=lambda w: str(getattr(CONFIG.panels, w.panel)),
        code=lambda w: code_digest(
            w.panel, w.latency, settings=getattr(CONFIG.panels, w.panel)
        ),
    shell:
        "python -m artifact panel {wildcards.panel:q} --config {EXPERIMENTS:q} --latency {wildcards.latency:q} --out {output:q}"


rule panel_table:
    input:
        lambda w: expand(
            f"{RESULTS}/panels/{w.panel}/{{latency}}.parquet",
            latency=panel_latencies(w.panel),
        ),
    output:
        f"{RESULTS}/tables/{{panel}}.parquet",
    shell:
        "python -m artifact merge {input:q} --out {output:q}"
