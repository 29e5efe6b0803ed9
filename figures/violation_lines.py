"""What figures of violations against load share: TTFT and TTLT as lines, and with token deadlines thin and dashed."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import classes, load_lines, style
from figures.frames import CRITERION_ALL, CRITERION_PAPER, RUN_COLUMNS

COLUMNS = (*RUN_COLUMNS, CRITERION_PAPER, CRITERION_ALL)
THIN = {"lw": 0.9, "ls": (0, (3, 1.5)), "marker": None, "zorder": 5}
#: Groups of requests that are no classes -> title of the panel.
GROUPS = {"all": "overall", "short": "short prompts (below p90)", "long": "long prompts (from p90)"}
COLUMNS_OF_PANELS = 3
ALSO_WITH_TOKEN_DEADLINES = ("niyama", "qoserve-artifact")


def panel(ax: Axes, title: str, rows: pd.DataFrame, systems: list[str], both: Iterable[str]) -> None:
    """A line per system in percent; thin ones for the systems in `both`, with token deadlines (Eq 2) counted too."""
    load_lines.panel(ax, title, CRITERION_PAPER, load_lines.by_system(rows, systems))
    percent = {"scale": 100.0, "limits": (0.0, 100.0)}
    for system in both:
        load_lines.line(ax, rows[rows["system"] == system], system, CRITERION_ALL, **percent, **THIN)
    ax.set_ylim(-3, 103)


def handle() -> Line2D:
    """The thin lines' legend entry."""
    return Line2D([], [], color=style.INK, **THIN, label="token deadlines counted")


def draw(frame: pd.DataFrame) -> Figure:
    """The runs of one trace and latency model: a panel per group of requests."""
    systems = style.in_order(frame["system"], style.SYSTEMS)
    groups = {**GROUPS, **{name: name for name in classes.names(frame)}}
    both = [system for system in systems if system in ALSO_WITH_TOKEN_DEADLINES]
    with style.styled():
        lines = math.ceil(len(groups) / COLUMNS_OF_PANELS)
        figure = style.new_figure(style.DOUBLE_IN, 1.0 + 1.7 * lines)
        panels = figure.subplots(lines, COLUMNS_OF_PANELS, sharex=True, sharey=True)
        for ax, (group, title) in zip(panels.ravel(), groups.items(), strict=False):
            panel(ax, title, frame[frame["group"] == group], systems, both)
        for ax in panels.ravel()[len(groups) :]:
            ax.remove()
        load_lines.finish(figure, panels, "violated (%)", systems, (handle(),) if both else ())
        style.footer(figure, frame, {frame["seed"].nunique()}, "bands: 95 % interval over seeds (Student's t)")
    return figure
