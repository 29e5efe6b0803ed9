"""What a mark means in every figure: the paper's star, hollow diamonds, dashes, and text where there is none."""

from __future__ import annotations

import math

from matplotlib.axes import Axes
from matplotlib.lines import Line2D

from figures import style

#: Capacities with token deadlines counted too.
HOLLOW = {"marker": "D", "ms": 4.2, "mfc": "white", "mec": style.INK, "mew": 0.8, "ls": "none", "zorder": 5}
#: The fluid bound, and an SLO.
BOUND = {"color": style.INK, "ls": (0, (3, 2)), "lw": 0.8, "zorder": 2.5}
SLO = {"color": style.INK, "ls": (0, (4, 2)), "lw": 0.8}


def star(certain: bool = True) -> dict[str, object]:
    """Keywords of the star that marks a number of the paper; hollow where its label cannot be read for sure."""
    face = "black" if certain else "white"
    return {"marker": "*", "ms": 7.5, "mfc": face, "mec": "black", "mew": 0.6, "ls": "none", "zorder": 6}


def star_handle(label: str = "paper") -> Line2D:
    """The star's legend entry."""
    return Line2D([], [], label=label, **star())


def bound_handle() -> Line2D:
    """The fluid bound's legend entry."""
    return Line2D([], [], label="fluid bound", **BOUND)


def slo_handle() -> Line2D:
    """The legend entry of an SLO."""
    return Line2D([], [], label="SLO", **SLO)


def interval(ax: Axes, lane: float, low: float, high: float) -> None:
    """A bar's interval along its lane; nothing for the nan of a single seed."""
    if not math.isnan(low):
        ax.plot([low, high], [lane, lane], color=style.INK, lw=0.9, marker="|", ms=3.5, zorder=4)


def say(ax: Axes, text: str, x: float, y: float, colour: str = style.FAINT) -> None:
    """Text in place of a mark, just right of a data point."""
    patch = {"fc": "white", "ec": "none", "pad": 0.3}
    where = {"xytext": (7 if x > 0 else 2, 0), "textcoords": "offset points", "va": "center"}
    ax.annotate(text, (x, y), **where, fontsize=style.SMALL_PT, color=colour, bbox=patch, zorder=2.6)
