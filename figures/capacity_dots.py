"""What figures of named searches share: a table of capacities, and dots with intervals, one lane per variant."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from figures import marks, style
from figures.capacities import no_crossing, per_replica, texts
from figures.frames import CRITERION_ALL, CRITERION_PAPER, Tables, Variant, latencies
from figures.paper import Printed

#: What the paper printed for a trace, variant, system and latency model, if anything.
PrintedFor = Callable[[str, str, str, str], Printed | None]
READING = (
    "Dots: the load per replica at which the worst class crosses 1 % violations of TTFT and TTLT; hollow diamonds: "
    "token deadlines (Eq 2) counted too; where there is none, no load held or all did. Stars: printed in the paper, "
    "only beside traces that it ran."
)
KEYS = ["latency", "trace", "variant", "system"]
SPREAD = 0.62  # of a lane, over its systems


def nothing_printed(trace: str, variant: str, system: str, latency: str) -> None:
    """For cases that the paper does not have."""


@dataclass(frozen=True)
class Lanes:
    """What a figure module has of such a figure: its `variants`, `table`, `text_table` and `draw`.

    frame: from the tables to the rows of the searches (`SEARCH_COLUMNS` and backend); printed: the paper's numbers.
    """

    frame: Callable[[Tables], pd.DataFrame]
    printed: PrintedFor = nothing_printed

    def variants(self, tables: Tables) -> list[Variant]:
        """One per latency model."""
        return latencies(self.frame(tables))

    def table(self, tables: Tables) -> pd.DataFrame:
        """One row per lane and system; columns as of `table` below."""
        return table(self.frame(tables), self.printed)

    def text_table(self, tables: Tables) -> pd.DataFrame:
        """The table as formatted text."""
        return text_table(self.table(tables))

    def draw(self, tables: Tables, variant: Variant) -> Figure:
        """One panel per trace, one lane per variant of the search."""
        return draw(self.frame(tables), variant, self.printed)


def table(frame: pd.DataFrame, printed: PrintedFor = nothing_printed) -> pd.DataFrame:
    """One row per latency model, trace, variant and system: capacities in requests/s per replica; nan: no crossing."""
    rows = []
    for key, own in frame.groupby(KEYS, sort=False):
        latency, trace, variant, system = key
        by_criterion = own.set_index("criterion")
        plain, strict = by_criterion.loc[CRITERION_PAPER], by_criterion.loc[CRITERION_ALL]
        star = printed(trace, variant, system, latency)
        rows.append(
            {
                **dict(zip(KEYS, key, strict=True)),
                "predictor": plain["predictor"],
                "requests": int(plain["requests"]),
                "capacity_qps": per_replica(plain, "capacity_qps_per_replica"),
                "interval_low_qps": per_replica(plain, "interval_low_qps"),
                "interval_high_qps": per_replica(plain, "interval_high_qps"),
                "capacity_with_tbt_qps": per_replica(strict, "capacity_qps_per_replica"),
                "fluid_bound_qps": per_replica(plain, "fluid_bound_qps"),
                "paper_qps": star.value if star else math.nan,
                "remark": no_crossing(plain),
            }
        )
    return _in_order(pd.DataFrame(rows))


def _in_order(rows: pd.DataFrame) -> pd.DataFrame:
    """Rows by latency model, trace, variant and system, each in its usual order."""
    known = {"latency": rows["latency"], "trace": style.TRACES, "variant": rows["variant"], "system": style.SYSTEMS}
    ranks = pd.DataFrame(index=rows.index)
    for key, names in known.items():
        order = list(dict.fromkeys(names)) if key in ("latency", "variant") else style.in_order(rows[key], names)
        ranks[key] = rows[key].map({name: i for i, name in enumerate(order)})
    return rows.loc[ranks.sort_values(KEYS).index].reset_index(drop=True)


def text_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`table` as formatted text."""
    text = {
        "latency": rows["latency"],
        "trace": rows["trace"].map(style.trace_label),
        "case": rows["variant"].str.replace("\n", " "),  # a lane's name may have two lines
        "system": [style.look(name).label for name in rows["system"]],
        "N": [style.number_text(n, 0) for n in rows["requests"]],
        "goodput": texts(rows),
        "with token deadlines": rows["capacity_with_tbt_qps"].map(style.number_text),
        "fluid bound": rows["fluid_bound_qps"].map(style.number_text),
    }
    if rows["paper_qps"].notna().any():
        text["paper"] = rows["paper_qps"].map(style.number_text)
    return pd.DataFrame(text)


def draw(frame: pd.DataFrame, variant: Variant, printed: PrintedFor = nothing_printed) -> Figure:
    """One panel per trace, one lane per variant, one dot per system."""
    own = variant.rows(frame)
    rows = table(own, printed)
    labels = list(dict.fromkeys(rows["variant"]))
    traces = style.in_order(rows["trace"], style.TRACES)
    systems = style.in_order(rows["system"], style.SYSTEMS)
    width = style.DOUBLE_IN if len(traces) > 1 else style.SINGLE_IN * 1.3
    with style.styled():
        height = len(labels) * max(0.24, 0.1 + 0.1 * len(systems)) + (1.7 if len(traces) > 1 else 2.0)
        figure = style.new_figure(width, height)
        panels = figure.subplots(1, len(traces), sharey=True, squeeze=False)[0]
        for ax, trace in zip(panels, traces, strict=True):
            _panel(ax, rows[rows["trace"] == trace], labels, systems)
            requests = style.counted(rows.loc[rows["trace"] == trace, "requests"])
            ax.set_title(f"{style.trace_label(trace)}\nN = {requests}")
        style.legend_above(figure, _handles(rows, systems), 5 if len(traces) > 1 else 3)
        style.footer(figure, own, set(own["seeds"]), "error bars: 95 % interval over seeds (Student's t)")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, labels: list[str], systems: list[str]) -> None:
    for row in rows.itertuples():
        shift = SPREAD * ((systems.index(row.system) + 0.5) / len(systems) - 0.5)
        _dot(ax, labels.index(row.variant) + shift, row)
    ax.set_yticks(range(len(labels)), labels)
    ax.set_ylim(len(labels) - 0.45, -0.55)
    shown = rows[["capacity_qps", "interval_high_qps", "capacity_with_tbt_qps", "paper_qps"]].max().max()
    ax.set_xlim(0, 1.0 if math.isnan(shown) else 1.08 * shown)
    ax.xaxis.set_major_locator(MaxNLocator(6))
    for lane in range(1, len(labels)):
        ax.axhline(lane - 0.5, color="#E4E4E4", lw=0.5, zorder=0)
    ax.set_xlabel("goodput per replica (QPS)", labelpad=2)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _dot(ax: Axes, lane: float, row) -> None:
    look = style.look(row.system)
    if math.isnan(row.capacity_qps):
        shown = [v for v in (row.capacity_with_tbt_qps, row.paper_qps) if not math.isnan(v)]
        marks.say(ax, f"{look.label}: {row.remark}", max(shown, default=0), lane, look.colour)
    else:
        ax.plot(row.capacity_qps, lane, marker=look.marker, ms=4.5, color=look.colour, ls="none", zorder=4)
    if not math.isnan(row.interval_low_qps):
        ax.plot([row.interval_low_qps, row.interval_high_qps], [lane, lane], color=look.colour, lw=1.0, zorder=3)
    if not math.isnan(row.capacity_with_tbt_qps):
        ax.plot(row.capacity_with_tbt_qps, lane, **{**marks.HOLLOW, "mec": look.colour, "zorder": 3.5})
    if not math.isnan(row.paper_qps):
        ax.plot(row.paper_qps, lane, **marks.star())


def _handles(rows: pd.DataFrame, systems: list[str]) -> list[Line2D]:
    looks = [style.look(system) for system in systems]
    handles = [Line2D([], [], marker=x.marker, ms=4.5, color=x.colour, lw=1, label=x.label) for x in looks]
    handles.append(Line2D([], [], label="token deadlines counted", **marks.HOLLOW))
    return [*handles, marks.star_handle()] if rows["paper_qps"].notna().any() else handles
