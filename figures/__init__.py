"""Figures and tables of the paper: each module says what it reads and draws it.

Every figure module has TITLE (as in the report), INPUTS (names of the tables it reads), `variants(tables)`,
`caption(tables, variant)` and `draw(tables, variant) -> Figure`; some also have `table(tables)` and
`text_table(tables)`, or `note(tables)`, words that stand before it all. `tables` maps a table's name to a pandas
DataFrame. Reading order: frames (what a table must hold), style and marks (looks), paper (printed numbers), then the
figures. What several of them draw alike has a module of its own (load_lines, violation_lines, capacity_bars,
capacity_dots); no figure imports another. Nothing here knows how the tables were made.
"""

#: Of `snakemake paper`, in the order of the report.
PAPER_FIGURES = (
    "fig1_table4",
    "fig2",
    "fig4",
    "fig5",
    "fig6",
    "fig7",
    "fig7_ratios",
    "fig7_models",
    "fig8",
    "fig9",
    "fig10",
    "fig11",
    "fig12",
    "fig13",
    "table5",
    "fig14",
    "fig15a",
    "fig15b",
    "table6",
    "fig_slo_set",
    "predictor_accuracy",
    "fig_tbt",
    "fig_run_length",
    "fig_arrivals",
    "fig_classes",
    "fig_decode_length",
    "fig_predictor",
    "fig_long_context",
    "fig_steady",
    "fig_steady_loads",
    "fig_steady_elsewhere",
    "fig_steady_parts",
    "fig_operators",
)
#: Of the default target, in the order of its report.
FIGURES = ("fig7", "fig7_ratios", "fig10", "fig11", "fig_tbt", "fig1_table4")
#: Of vLLM's engine, in virtual time and behind real servers: drawn where vLLM is installed.
SERVER_FIGURES = ("fig_engine", "fig_servers")
