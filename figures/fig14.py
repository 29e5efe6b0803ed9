"""Fig 14: alpha of the hybrid priority, and what the long prompts pay for large values."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import load_lines, style
from figures.frames import (
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    require,
    traces_and_latencies,
)

TITLE = "Fig 14: alpha of the hybrid priority"
INPUTS = ("alpha",)
SYSTEM = "niyama"
ADAPTIVE = "adaptive"
#: title -> group of requests, column
PANELS = {
    "TTLT of all, p50 (s)": ("all", "ttlt_p50_s"),
    "violated, overall (%)": ("all", CRITERION_PAPER),
    "violated, short prompts (%)": ("short", CRITERION_PAPER),
    "violated, long prompts (%)": ("long", CRITERION_PAPER),
}
COLUMNS = (*RUN_COLUMNS, "variant", *dict.fromkeys(column for _, column in PANELS.values()))


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "alpha", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 14: Niyama with other values of alpha (ms per token of remaining work) on "
        f"{style.trace_label(variant.trace)}, latency model {variant.latency}. 0 is EDF order within what dynamic "
        "chunking and relegation do; 8 is what all other figures use; adaptive goes from 1 to 8 with the queue. Long: "
        "from the 90th percentile of the prompts. The paper draws 0, 2 and 4 and prints no numbers: medians of 1 to "
        "10 s, violations up to some 20 %, larger values better for all but the long."
    )


def looks(labels: list[str]) -> dict[str, dict[str, object]]:
    """Keywords of each label's line: fixed values along a ramp, the adaptive one black and dashed."""
    fixed = [label for label in labels if label != ADAPTIVE]
    colours = dict(zip(fixed, style.ramp(len(fixed)), strict=True)) | {ADAPTIVE: style.INK}
    dashes = {ADAPTIVE: {"ls": (0, (3, 1.5))}}
    return {label: {"color": colours[label], "marker": None, "lw": 1.2, **dashes.get(label, {})} for label in labels}


def draw(tables: Tables, variant: Variant) -> Figure:
    """Median latency, and violations overall, of short and of long prompts."""
    frame = variant.rows(require(tables, "alpha", COLUMNS))
    labels = list(dict.fromkeys(frame["variant"]))
    own = looks(labels)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 4.4)
        panels = figure.subplots(2, 2, sharex=True)
        for ax, (title, (group, column)) in zip(panels.ravel(), PANELS.items(), strict=True):
            rows = frame[frame["group"] == group]
            lines = [(SYSTEM, rows[rows["variant"] == label], own[label]) for label in labels]
            load_lines.panel(ax, title, column, lines, steps=(1.0, 2.0, 5.0))
        for ax in panels[-1]:
            ax.set_xlabel("load (QPS)", labelpad=2)
        names = [label if label == ADAPTIVE else f"{label} ms/token" for label in labels]
        handles = [Line2D([], [], label=n, **own[label]) for n, label in zip(names, labels, strict=True)]
        style.legend_above(figure, handles, 5)
        style.footer(figure, frame, {frame["seed"].nunique()}, load_lines.BANDS)
    return figure
