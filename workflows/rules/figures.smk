# A figure is a module of figures/; its module and the style are inputs, so editing one redraws it.
FIGURES = ["fig1_table4", "fig7", "fig10", "fig11", "fig_tbt"]


rule figure:
    input:
        tables=rules.tables.output,
        module="figures/{figure}.py",
        style=["figures/style.py", "figures/paper_values.yaml"],
    output:
        f"{RESULTS}/figures/{{figure}}.txt",
    benchmark:
        f"{RESULTS}/benchmarks/figure/{{figure}}.tsv"
    shell:
        "python -m artifact figure {wildcards.figure} --results {RESULTS} --stamp {output}"


rule report:
    input:
        expand(f"{RESULTS}/figures/{{figure}}.txt", figure=FIGURES),
        tables=rules.tables.output,
    output:
        f"{RESULTS}/report.html",
    shell:
        "python -m artifact report --results {RESULTS}"
