"""Figures and tables of the paper: each module says what it reads and draws it.

Every figure module has INPUTS (names of the tables it reads), `variants(tables)`, `caption(tables, variant)` and
`draw(tables, variant) -> Figure`; some also have `table(tables)` and `text_table(tables)`. `tables` maps a table's
name to a pandas DataFrame. Reading order: frames (what a table must hold), style (looks), paper (printed numbers),
then the figures. Nothing here knows how the tables were made.
"""

#: In the order of the report.
FIGURES = ("fig7", "fig7_ratios", "fig10", "fig11", "fig_tbt", "fig1_table4")
#: Of real servers: drawn where vLLM is installed.
SERVER_FIGURES = ("fig_servers",)
