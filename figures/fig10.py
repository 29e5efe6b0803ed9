"""Fig 10: p50 and p95 of each class's latency (TTFT of interactive ones, else TTLT) against load, with the SLOs."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import load_lines, style
from figures.classes import classes
from figures.frames import RUN_COLUMNS, Tables, Variant, estimate_of_log, require, traces_and_latencies

TITLE = "Fig 10: latency against load"
INPUTS = ("summary",)
QUANTILES = ("p50", "p95")
COLUMNS = (*RUN_COLUMNS, *(f"{measure}_{q}_s" for measure in ("ttft", "ttlt") for q in QUANTILES))


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "summary", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 10: latency by class on {style.trace_label(variant.trace)}, latency model {variant.latency}. Lines: "
        "geometric mean over seeds; bands: 95 % interval of the mean logarithm; dashed: the SLO. Above capacity the "
        "backlog grows until the last arrival, so every value there depends on N (the paper does not print its own). "
        "The paper prints no numbers for this figure."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One row of panels per percentile, one column per class."""
    frame = variant.rows(require(tables, "summary", COLUMNS))
    systems, shown = style.in_order(frame["system"], style.SYSTEMS), classes(frame)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 4.6)
        panels = figure.subplots(len(QUANTILES), len(shown), sharex=True, sharey="col", squeeze=False)
        for line, quantile in zip(panels, QUANTILES, strict=True):
            for ax, one in zip(line, shown, strict=True):
                _panel(ax, frame[frame["group"] == one.name], systems, f"{one.measure}_{quantile}_s")
                ax.set_title(f"{one.title}, {quantile}")
        for line in panels:  # only now: rows of panels share their y axes
            for ax, one in zip(line, shown, strict=True):
                load_lines.slo(ax, one.slo_s)
        load_lines.finish(figure, panels, "seconds", systems)
        bands = "bands: 95 % interval of the mean logarithm over seeds (t)"
        style.footer(figure, frame, {frame["seed"].nunique()}, bands)
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, systems: list[str], column: str) -> None:
    for system in systems:
        load_lines.line(ax, rows[rows["system"] == system], system, column, how=estimate_of_log)
    style.log_axis(ax)
    style.tidy(ax)
