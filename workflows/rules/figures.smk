# A figure is a module of figures/; the modules it is drawn with are inputs, so editing one redraws it.
from artifact.report.figure_sources import figure_code
from artifact.report.draw import figure_module
from figures import FIGURES, PAPER_FIGURES
from figures.gallery import PARTS, place

SHOWS_SERVERS = SERVERS_FORM != "none"
CLAIMS = sorted(map(str, Path("artifact/claims").glob("*.yaml")))
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


def page(figure):
    """A figure's page; `snakemake --report` shows it under its part of the paper. Its captions are inside."""
    return report(
        f"{RESULTS}/figures/{figure}.html",
        caption="../report/figure.rst",
        category=lambda w: PARTS[place(w.get("figure", figure)).part],
        labels=lambda w: {"figure": figure_module(w.get("figure", figure)).TITLE},
    )


rule figure:
    input:
        tables=lambda w: tables_of([w.figure]),
        drawn_with=lambda w: figure_code(w.figure),
        paper="figures/paper_values.yaml",
    output:
        stamp=f"{RESULTS}/figures/{{figure}}.txt",
        page=page("{figure}"),
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{figure}}.tsv"
    shell:
        "python -m artifact figure {wildcards.figure:q} --results {RESULTS:q} --stamp {output.stamp:q}"


rule shown_server_figure:
    input:
        rules.shown_servers.output,
        figure_code("fig_servers"),
    output:
        stamp=f"{RESULTS}/figures/fig_servers.txt",
        page=page("fig_servers"),
    shell:
        "python -m artifact figure fig_servers --results {RESULTS:q} --stamp {output.stamp:q}"


rule engine_figure:
    input:
        rules.engine_table.output,
        figure_code("fig_engine"),
    output:
        stamp=f"{RESULTS}/figures/fig_engine.txt",
        page=page("fig_engine"),
    shell:
        "python -m artifact figure fig_engine --results {RESULTS:q} --stamp {output.stamp:q}"


rule report:
    input:
        rules.shown_server_figure.output if SHOWS_SERVERS else [],
        rules.engine_figure.output if SHOWS_SERVERS else [],
        expand(f"{RESULTS}/figures/{{figure}}.txt", figure=FIGURES),
        f"{RESULTS}/tables/manifest.json",
        CLAIMS,
        tables=MAIN_TABLES,
        text=figure_code("headline", "differences", "gallery"),
    output:
        f"{RESULTS}/report.html",
        # a report that a failed run left has none: the next run makes it again
        stamp=f"{RESULTS}/report.txt",
    benchmark:
        f"{RESULTS}/benchmarks/report/report.tsv"
    shell:
        "python -m artifact report --results {RESULTS:q} --stamp {output.stamp:q}"
        + " --servers" * SHOWS_SERVERS


rule paper_report:
    input:
        rules.shown_server_figure.output if SHOWS_SERVERS else [],
        rules.engine_figure.output if SHOWS_SERVERS else [],
        expand(f"{RESULTS}/figures/{{figure}}.txt", figure=PAPER),
        MAIN_TABLES,
        f"{RESULTS}/tables/manifest.json",
        f"{RESULTS}/tables/manifest-paper.json",
        CLAIMS,
        # also those that no figure reads
        tables=expand(f"{RESULTS}/tables/{{table}}.parquet", table=CONFIG.tables),
        text=rules.report.input.text,
    output:
        f"{RESULTS}/paper.html",
        stamp=f"{RESULTS}/paper.txt",
    benchmark:
        f"{RESULTS}/benchmarks/report/paper.tsv"
    params:
        figures=PAPER,
    shell:
        "python -m artifact report --results {RESULTS:q} --stamp {output.stamp:q} --name paper --figures {params.figures:q}"
        + " --servers" * SHOWS_SERVERS
