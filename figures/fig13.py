"""Fig 13: each class's p99 latency in windows of time while the load toggles; its violations are Fig 12's."""

from __future__ import annotations

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from figures import load_lines, style, waves
from figures.classes import classes
from figures.frames import RUN_COLUMNS, Tables, Variant, require, traces_and_latencies

TITLE = "Fig 13: load that toggles, latency against time"
INPUTS = ("overload_windows",)
COLUMNS = (*RUN_COLUMNS, *waves.COLUMNS, "start_s", "window_s", "group_requests", "latency_p99_s")
SHADE = "#EFEFEF"


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "overload_windows", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    frame = variant.rows(require(tables, "overload_windows", COLUMNS))
    window_s, requests = frame["window_s"].iloc[0], frame["group_requests"].median()
    return (
        f"Fig 13: {waves.describe_load(frame)}; {style.trace_label(variant.trace)}, latency model {variant.latency}. "
        "Lines: 99th percentile of the latency (TTFT of interactive classes, else TTLT) "
        f"of the requests that arrive within {window_s:g} s (half the windows have fewer than {requests:g} of a class, "
        "so this is near the longest), relegated ones included; median over seeds, bands from the least to the most. "
        "Shaded: phases of high load; dashed: the SLO. The paper prints no numbers for this figure."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per class over the same hours."""
    frame = variant.rows(require(tables, "overload_windows", COLUMNS))
    systems, shown = style.in_order(frame["system"], style.SYSTEMS), classes(frame)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 1.1 + 1.3 * len(shown))
        panels = figure.subplots(len(shown), 1, sharex=True, squeeze=False)[:, 0]
        for ax, one in zip(panels, shown, strict=True):
            own = frame[frame["group"] == one.name]
            _shade(ax, own)
            for system in systems:
                _line(ax, own[own["system"] == system], system)
            style.log_axis(ax)
            load_lines.slo(ax, one.slo_s)
            ax.set_ylabel(f"{one.title} p99 (s)", labelpad=2)
            style.tidy(ax)
        panels[-1].set_xlabel("time of arrival (h)", labelpad=2)
        load = Patch(color=SHADE, label=f"{frame['high_qps'].iloc[0]:g} QPS")
        style.legend_above(figure, [*load_lines.handles(systems), load], 5)
        for handle in figure.legends[0].get_lines():
            handle.set_marker("")
        style.footer(figure, frame, {frame["seed"].nunique()}, "bands: least and most of the seeds")
    return figure


def _shade(ax: Axes, rows: pd.DataFrame) -> None:
    """Mark the phases of high load, which are the second, the fourth and so on."""
    dwell_h, end_h = rows["dwell_s"].iloc[0] / 3600, (rows["start_s"] + rows["window_s"]).max() / 3600
    for start_h in np.arange(dwell_h, end_h, 2 * dwell_h):
        ax.axvspan(start_h, min(end_h, start_h + dwell_h), color=SHADE, lw=0, zorder=0)
    ax.set_xlim(0, end_h)


def _line(ax: Axes, rows: pd.DataFrame, system: str) -> None:
    """Median over seeds, and the band between the extremes, at the middle of each window."""
    by_window = rows.groupby("start_s")["latency_p99_s"].agg(["median", "min", "max"]).dropna()
    if by_window.empty:
        return
    hours, look = (by_window.index + rows["window_s"].iloc[0] / 2) / 3600, style.look(system)
    line = {**style.line_style(system), "marker": None, "lw": 1.4 if look.emphasised else 1.0}
    ax.plot(hours, by_window["median"], **line)
    ax.fill_between(hours, by_window["min"], by_window["max"], color=look.colour, alpha=0.18, lw=0, zorder=2)
