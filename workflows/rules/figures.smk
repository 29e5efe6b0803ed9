# A figure is a module of figures/; the modules it is drawn with are inputs, so editing one redraws it.
from artifact.render import figure_module
from figures import FIGURES, PAPER_FIGURES

SHOWS_SERVERS = SERVERS_FORM != "none"
# Tables of this configuration; a figure that needs another is left out of `paper` (the default target needs all of its).
TABLES = set(CONFIG.tables)
PAPER = [
    name for name in PAPER_FIGURES if TABLES.issuperset(figure_module(name).INPUTS)
]


wildcard_constraints:
    figure="|".join(PAPER_FIGURES),


def tables_of(figures):
    """The tables that figures read."""
    names = dict.fromkeys(
        name for figure in figures for name in figure_module(figure).INPUTS
    )
    return [f"{RESULTS}/tables/{name}.parquet" for name in names]


rule figure:
    input:
        tables=lambda w: tables_of([w.figure]),
        module="figures/{figure}.py",
        drawn_with=expand(
            "figures/{part}.py", part=["style", "frames", "load_lines", "paper"]
        ),
        paper="figures/paper_values.yaml",
    output:
        f"{RESULTS}/figures/{{figure}}.txt",
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{figure}}.tsv"
    shell:
        "python -m artifact figure {wildcards.figure} --results {RESULTS} --stamp {output}"


rule report:
    input:
        rules.shown_server_figure.output if SHOWS_SERVERS else [],
        expand(f"{RESULTS}/figures/{{figure}}.txt", figure=FIGURES),
        tables=rules.tables.output,
        text=expand("figures/{part}.py", part=["headline", "differences"]),
    output:
        f"{RESULTS}/report.html",
    benchmark:
        f"{RESULTS}/benchmarks/report/report.tsv"
    shell:
        "python -m artifact report --results {RESULTS}" + " --servers" * SHOWS_SERVERS


rule paper_report:
    input:
        rules.shown_server_figure.output if SHOWS_SERVERS else [],
        expand(f"{RESULTS}/figures/{{figure}}.txt", figure=PAPER),
        # also those that no figure reads
        tables=expand(f"{RESULTS}/tables/{{table}}.parquet", table=CONFIG.tables),
        text=rules.report.input.text,
    output:
        f"{RESULTS}/paper.html",
    benchmark:
        f"{RESULTS}/benchmarks/report/paper.tsv"
    params:
        figures=PAPER,
    shell:
        "python -m artifact report --results {RESULTS} --name paper --figures {params.figures}"
        + " --servers" * SHOWS_SERVERS
