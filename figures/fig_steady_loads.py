"""Gaps between tokens and violations up to twice the capacity: niyama-steady, Niyama and EDF. Not in the paper."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import load_lines, style
from figures.classes import classes
from figures.frames import (
    CRITERION_ALL,
    RUN_COLUMNS,
    Tables,
    Variant,
    estimate,
    estimate_of_log,
    require,
    traces_and_latencies,
)

TITLE = "Niyama-steady: gaps and overload (not in the paper)"
INPUTS = ("steady_loads",)
#: column -> title, axis title, what a table's value is multiplied with, whether of all requests or of the first
#: interactive class
PANELS = {
    CRITERION_ALL: ("violated, all requests", "% of requests", 100.0, True),
    "gap_over_tbt_share": ("gaps longer than the TBT", "% of gaps", 100.0, False),
    "max_gap_p99_s": ("longest gap of a request, p99", "milliseconds", 1e3, False),
}
COLUMNS = (*RUN_COLUMNS, "variant", *PANELS)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, INPUTS[0], COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Load up to overload on {style.trace_label(variant.trace)}, latency model {variant.latency}; not in the "
        "paper. Rows: what differs in how step times are predicted. Left: violated requests, token deadlines (Eq 2) "
        "counted. Middle and right: of the first interactive class, gaps longer than the TBT, whether or not the "
        "token is late, and the longest gap of a request, 99th percentile. Niyama spends the time that an early "
        "first token banks as long steps; niyama-steady holds steps at 0.9 TBT and lets them grow to 2.5 TBT only "
        "as the queue demands it."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """A row of panels per variant of the grid, one panel per measure."""
    frame = variant.rows(require(tables, INPUTS[0], COLUMNS))
    cases = list(dict.fromkeys(frame["variant"]))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 1.0 + 1.9 * len(cases))
        panels = figure.subplots(len(cases), len(PANELS), squeeze=False, sharex=True)
        load_lines.finish(figure, panels, "", systems)
        for row, case in zip(panels, cases, strict=True):
            _row(row, case, frame[frame["variant"] == case], systems)
        bands = "bands: 95 % interval over seeds (t; of the mean logarithm on the right)"
        style.footer(figure, frame, {frame["seed"].nunique()}, bands)
    return figure


def _row(axes, case: str, frame: pd.DataFrame, systems: list[str]) -> None:
    one = next((c for c in classes(frame) if c.measure == "ttft"), None)
    for ax, (column, (title, unit, scale, of_all)) in zip(axes, PANELS.items(), strict=True):
        rows = frame[frame["group"] == ("all" if of_all else one.name if one else None)]
        in_seconds = column.endswith("_s")
        how, limits = (estimate_of_log, None) if in_seconds else (estimate, (0.0, 100.0))
        for system in systems:
            load_lines.line(ax, rows[rows["system"] == system], system, column, how=how, scale=scale, limits=limits)
        ax.set_title(f"{title}\n{case}")
        ax.set_ylabel(unit, labelpad=2)
        if in_seconds:
            style.log_axis(ax, (1.0, 2.0, 5.0))
            if one is not None and one.tbt_s is not None:
                load_lines.deadline(ax, one.tbt_s * 1e3, f"TBT {one.tbt_s * 1e3:.0f} ms")
        else:
            ax.set_ylim(bottom=min(0.0, ax.get_ylim()[0]))
        style.tidy(ax)
