"""What the authors never plotted: late tokens and gaps between tokens of Q1 against load.

Not in the paper, which says that TBT violations average below 0.1 % and leaves them out (section 4.2).
"""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import load_lines, style
from figures.classes import Class, classes
from figures.frames import (
    RUN_COLUMNS,
    Tables,
    Variant,
    estimate,
    estimate_of_log,
    require,
    traces_and_latencies,
)

TITLE = "Between the tokens (not in the paper)"
INPUTS = ("summary",)
#: column -> title, axis title, what a table's value is multiplied with
PANELS = {
    "late_token_share": ("tokens after their deadline (Eq 2)", "% of tokens", 100.0),
    "gap_over_tbt_share": ("gaps longer than the TBT", "% of gaps", 100.0),
    "max_gap_p99_s": ("longest gap of a request, p99", "milliseconds", 1e3),
}
COLUMNS = (*RUN_COLUMNS, *PANELS)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "summary", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    one = _class(variant.rows(require(tables, "summary", COLUMNS)))
    return (
        f"Between the tokens of {one.name if one else 'no class'} on {style.trace_label(variant.trace)}, latency model "
        f"{variant.latency}; not in the paper. Left: tokens later than Eq 2 allows. Middle: gaps longer than the TBT, "
        "whether or not the token is late: a first token that comes early banks time that may be spent as long gaps "
        "without a violation. Right: "
        "the longest gap of a request, 99th percentile."
    )


def _class(frame: pd.DataFrame) -> Class | None:
    """The first interactive class."""
    return next((one for one in classes(frame) if one.measure == "ttft"), None)


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per measure."""
    frame = variant.rows(require(tables, "summary", COLUMNS))
    one = _class(frame)
    rows = frame[frame["group"] == (one.name if one else None)]
    systems = style.in_order(frame["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.9)
        panels = figure.subplots(1, len(PANELS), squeeze=False)
        load_lines.finish(figure, panels, "", systems)
        for ax, (column, (title, unit, scale)) in zip(panels[0], PANELS.items(), strict=True):
            in_seconds = column.endswith("_s")
            how = estimate_of_log if in_seconds else estimate
            limits = None if in_seconds else (0.0, 100.0)
            for system in systems:
                load_lines.line(ax, rows[rows["system"] == system], system, column, how=how, scale=scale, limits=limits)
            ax.set_title(title)
            ax.set_ylabel(unit, labelpad=2)
            _axis(ax, in_seconds, one.tbt_s if one else None)
        bands = "bands: 95 % interval over seeds (t; of the mean logarithm on the right)"
        style.footer(figure, frame, {frame["seed"].nunique()}, bands)
    return figure


def _axis(ax: Axes, in_milliseconds: bool, tbt_s: float | None) -> None:
    if in_milliseconds:
        style.log_axis(ax, (1.0, 2.0, 5.0))
    if in_milliseconds and tbt_s is not None:
        load_lines.deadline(ax, tbt_s * 1e3, f"TBT {tbt_s * 1e3:.0f} ms")
    if not in_milliseconds:
        ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
    style.tidy(ax)
