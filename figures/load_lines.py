"""What the figures over load share: a system's line with its band, an SLO line, and the axes around them."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import marks, style
from figures.frames import by_load, estimate, estimate_of_log

BANDS = "bands: 95 % interval over seeds (t; of the mean logarithm for latencies)"


def line(
    ax: Axes,
    rows: pd.DataFrame,
    system: str,
    column: str,
    *,
    how: Callable = estimate,
    scale: float = 1.0,
    limits: tuple[float, float] | None = None,
    **changes: object,
) -> None:
    """One system's mean over seeds against load, times `scale`, and its interval clipped to `limits` as a band.

    changes: keywords of the line that are not the system's own, such as another colour for each variant of it.
    """
    points = [(load, found.scaled(scale)) for load, found in by_load(rows, column, how)]
    if not points:
        return
    look = {**style.line_style(system), **changes}
    ax.plot([load for load, _ in points], [e.mean for _, e in points], **look)
    banded = [(load, e.low, e.high) for load, e in points if e.low is not None]
    if banded:
        loads, lows, highs = np.array(banded).T
        lows, highs = np.clip([lows, highs], *(limits or (-np.inf, np.inf)))
        ax.fill_between(loads, lows, highs, color=look["color"], alpha=0.18, lw=0, zorder=2)


def panel(ax: Axes, title: str, column: str, lines: Iterable[tuple[str, pd.DataFrame, dict]], **axis) -> None:
    """A titled panel of (system, rows, changes of its look): latencies on a logarithmic axis, shares in percent."""
    in_seconds = column.endswith("_s")
    reading = {"how": estimate_of_log} if in_seconds else {"scale": 100.0, "limits": (0.0, 100.0)}
    for system, rows, changes in lines:
        line(ax, rows, system, column, **reading, **changes)
    ax.set_title(title)
    if in_seconds:
        style.log_axis(ax, **axis)
    style.tidy(ax)


def by_system(rows: pd.DataFrame, systems: list[str]) -> list[tuple[str, pd.DataFrame, dict]]:
    """The lines of a panel with a line per system."""
    return [(system, rows[rows["system"] == system], {}) for system in systems]


def deadline(ax: Axes, value: float, text: str) -> None:
    """The SLO as a dashed line, named at its left end; makes room for the name on a logarithmic axis."""
    ax.set_ylim(top=max(ax.get_ylim()[1], 3 * value))
    ax.axhline(value, **marks.SLO, zorder=2.5)
    near = {"xytext": (2, 1.5), "textcoords": "offset points", "va": "bottom", "zorder": 7}
    ax.annotate(text, (0, value), xycoords=("axes fraction", "data"), **near, fontsize=style.SMALL_PT)


def slo(ax: Axes, slo_s: float | None) -> None:
    """A class's SLO in seconds as such a line; nothing where it is not known."""
    if slo_s is not None:
        deadline(ax, slo_s, f"SLO {slo_s:,g} s")


def handles(systems: list[str]) -> list[Line2D]:
    """Legend entries of systems."""
    return [Line2D([], [], label=style.look(s).label, **style.line_style(s)) for s in systems]


def finish(figure: Figure, panels: np.ndarray, unit: str, systems: list[str], extra: tuple[Line2D, ...] = ()) -> None:
    """Axis titles on the outer panels of a grid, and the legend."""
    for ax in panels[-1]:
        ax.set_xlabel("load (QPS)", labelpad=2)
    for ax in panels[:, 0]:
        ax.set_ylabel(unit, labelpad=2)
    style.legend_above(figure, [*handles(systems), *extra], 5)
