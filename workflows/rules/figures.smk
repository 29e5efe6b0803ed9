# A figure is a module of figures/; the modules it is drawn with are inputs, so editing one redraws it.
from figures import FIGURES

SHOWS_SERVERS = SERVERS_FORM != "none"


wildcard_constraints:
    figure="|".join(FIGURES),


rule figure:
    input:
        tables=rules.tables.output,
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
