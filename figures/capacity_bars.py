"""What Fig 7 and Fig 8 share: capacities as bars, one lane per system, with interval, ticks, fluid bound and stars."""

from __future__ import annotations

import math
from collections.abc import Callable

import pandas as pd
from matplotlib.artist import Artist
from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import marks, style
from figures.paper import Printed

#: What the paper printed for a trace, system and latency model, if anything.
PrintedFor = Callable[[str, str, str], Printed | None]
TICK = {"color": style.INK, "lw": 1.6, "solid_capstyle": "butt", "zorder": 4}


def panel(ax: Axes, rows: pd.DataFrame, systems: list[str], ticks: str, printed: PrintedFor) -> None:
    """The bars of one trace, a lane for each of `systems`.

    rows: system, trace, latency, remark, and in requests/s (nan: none) capacity_qps, interval_low_qps,
    interval_high_qps, capacity_with_tbt_qps, fluid_bound_qps, paper_qps and the column called `ticks`.
    """
    by_system = rows.set_index("system")
    bound = rows["fluid_bound_qps"].max()
    if not math.isnan(bound):
        ax.axvline(bound, **marks.BOUND)
    for lane, system in enumerate(systems):
        if system in by_system.index:
            _lane(ax, lane, system, by_system.loc[system], ticks, printed)
    ax.set_yticks(range(len(systems)), [style.look(s).label for s in systems])
    for tick, system in zip(ax.yaxis.get_major_ticks(), systems, strict=True):
        tick.label1.set_fontweight("bold" if style.look(system).emphasised else "normal")
    ax.set_ylim(len(systems) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.margins(x=0.08)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _lane(ax: Axes, lane: int, system: str, row: pd.Series, ticks: str, printed: PrintedFor) -> None:
    """Bar, interval, hollow diamond, tick and star of one system; text stands for a missing bar."""
    if math.isnan(row["capacity_qps"]):
        shown = row[["capacity_with_tbt_qps", ticks, "paper_qps"]].max()
        marks.say(ax, row["remark"], 0 if math.isnan(shown) else shown, lane)
    else:
        ax.barh(lane, row["capacity_qps"], height=0.68, color=style.look(system).colour, zorder=2)
    marks.interval(ax, lane, row["interval_low_qps"], row["interval_high_qps"])
    if not math.isnan(row["capacity_with_tbt_qps"]):
        ax.plot(row["capacity_with_tbt_qps"], lane, **marks.HOLLOW)
    if not math.isnan(row[ticks]):
        ax.plot([row[ticks]] * 2, [lane - 0.42, lane + 0.42], **TICK)
    number = printed(row["trace"], system, row["latency"])
    if number is not None:
        ax.plot(number.value, lane, **marks.star(number.certain))


def handles(rows: pd.DataFrame, bar: str, ticks: str, tick: str) -> list[Artist]:
    """Legend entries of what `panel` draws of these rows; bar, tick: what a bar and a tick of column `ticks` are."""
    found: list[Artist] = [
        Patch(color="#999999", label=bar),
        Line2D([], [], label="token deadlines counted", **marks.HOLLOW),
    ]
    if rows[ticks].notna().any():
        found.append(Line2D([], [], marker="|", ms=8, mew=1.6, color=style.INK, ls="none", label=tick))
    found.append(marks.bound_handle())
    return [*found, marks.star_handle()] if rows["paper_qps"].notna().any() else found
