"""How capacity depends on the run's length. Not in the paper, which prints a length only for Table 4."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import capacity_dots, load_lines, marks, style
from figures.frames import CAPACITY_COLUMNS, SEARCH_COLUMNS, Tables, Variant, latencies, require

TITLE = "Run length (not in the paper)"
INPUTS = ("capacity", "short_runs")
KEYS = ["trace", "latency", "system"]


def _frame(tables: Tables) -> pd.DataFrame:
    """Searches of all lengths, called by their number of requests, for what the short ones were run for."""
    short = require(tables, "short_runs", SEARCH_COLUMNS)
    longer = require(tables, "capacity", CAPACITY_COLUMNS).merge(short[KEYS].drop_duplicates(), on=KEYS)
    columns = [c for c in SEARCH_COLUMNS if c != "variant"] + ["backend"]
    rows = pd.concat([short[columns], longer[columns]], ignore_index=True)
    return rows.assign(variant=rows["requests"].map("{:,}".format)).sort_values("requests", kind="stable")


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Goodput found with runs of other lengths, latency model {variant.latency}; not in the paper. The load at "
        "which the worst class crosses 1 % violations of TTFT and TTLT, mean over seeds with its 95 % interval. "
        "Dashed: the fluid bound. A short run ends before its backlog has made batch requests late, so that loads "
        "“hold” which no deployment could sustain; FCFS fails at Q1's TTFT first and depends on length the least."
    )


def table(tables: Tables) -> pd.DataFrame:
    """Capacities by length; columns as of `capacity_dots.table`."""
    rows = capacity_dots.table(_frame(tables))
    return rows.sort_values([*KEYS, "requests"], kind="stable", ignore_index=True)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    return capacity_dots.text_table(table(tables)).drop(columns="case")


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per trace: capacity against run length, one line per system."""
    frame = variant.rows(_frame(tables))
    rows = variant.rows(table(tables))
    traces = style.in_order(rows["trace"], style.TRACES)
    systems = style.in_order(rows["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.9)
        panels = figure.subplots(1, len(traces), squeeze=False)[0]
        for ax, trace in zip(panels, traces, strict=True):
            _panel(ax, rows[rows["trace"] == trace], systems)
            ax.set_title(style.trace_label(trace))
            ax.set_xlabel("requests per run", labelpad=2)
        panels[0].set_ylabel("goodput per replica (QPS)", labelpad=2)
        style.legend_above(figure, [*load_lines.handles(systems), marks.bound_handle()], 5)
        style.footer(figure, frame, set(frame["seeds"]), "error bars: 95 % interval over seeds (Student's t)")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, systems: list[str]) -> None:
    for system in systems:
        own = rows[rows["system"] == system]
        look = style.line_style(system)
        ax.plot(own["requests"], own["capacity_qps"], **look)
        ax.vlines(own["requests"], own["interval_low_qps"], own["interval_high_qps"], color=look["color"], lw=1.0)
    for k, row in enumerate(rows[rows["capacity_qps"].isna()].itertuples()):
        text = f"{style.look(row.system).label}, {row.requests / 1000:g}k: {row.remark}"
        ax.annotate(text, (0.98, 0.03 + 0.08 * k), xycoords="axes fraction", ha="right", va="bottom",
                    fontsize=style.SMALL_PT, color=style.look(row.system).colour)  # fmt: skip
    ax.axhline(rows["fluid_bound_qps"].max(), **marks.BOUND)
    ax.set_xscale("log")
    lengths = sorted(set(rows["requests"]))
    ax.set_xticks(lengths, [f"{n / 1000:g}k" for n in lengths])
    ax.minorticks_off()
    ax.set_ylim(bottom=0)
    style.tidy(ax)
