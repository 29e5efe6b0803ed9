"""Fig 2: what the classic queues do under load: medians and tails, and who is violated: all, long prompts, Q1."""

from __future__ import annotations

from matplotlib.figure import Figure

from figures import load_lines, style
from figures.frames import (
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    joined,
    traces_and_latencies,
)

TITLE = "Fig 2: the classic queues under load"
INPUTS = ("summary", "more_systems")
SYSTEMS = ("sarathi-fcfs", "sarathi-sjf", "sarathi-srpf", "sarathi-edf")
#: title -> group of requests, column
PANELS = {
    "TTLT of all, p50 (s)": ("all", "ttlt_p50_s"),
    "TTLT of all, p99 (s)": ("all", "ttlt_p99_s"),
    "Q1 TTFT, p99 (s)": ("Q1", "ttft_p99_s"),
    "violated, overall (%)": ("all", CRITERION_PAPER),
    "violated, long prompts (%)": ("long", CRITERION_PAPER),
    "violated, strictest tier Q1 (%)": ("Q1", CRITERION_PAPER),
}
COLUMNS = (*RUN_COLUMNS, *dict.fromkeys(column for _, column in PANELS.values()))


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(_frame(tables))


def _frame(tables: Tables):
    frame = joined(tables, INPUTS, COLUMNS)
    return frame[frame["system"].isin(SYSTEMS)]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 2: the classic queues on {style.trace_label(variant.trace)}, latency model {variant.latency}. Top: "
        "latency (lines: geometric mean over seeds); bottom: share of requests that miss their TTFT or TTLT; long: "
        "from the 90th percentile of the prompts. Above capacity every value depends on N. The paper prints no numbers "
        "here; its text: SRPF violates most long requests already at 2.5 QPS, EDF collapses past its threshold."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """Two rows of panels: latencies, then violations."""
    frame = variant.rows(_frame(tables))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 4.4)
        panels = figure.subplots(2, 3, sharex=True)
        load_lines.finish(figure, panels, "", systems)
        for ax, (title, (group, column)) in zip(panels.ravel(), PANELS.items(), strict=True):
            load_lines.panel(ax, title, column, load_lines.by_system(frame[frame["group"] == group], systems))
            if column == CRITERION_PAPER:
                ax.set_ylim(-3, 103)
        style.footer(figure, frame, {frame["seed"].nunique()}, load_lines.BANDS)
    return figure
