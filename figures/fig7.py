"""Fig 7: goodput per replica of every system on every trace, with what the paper printed, for one latency model.

Goodput is the load at which the worst class has 1 % of its requests violated.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import paper, style
from figures.frames import (
    CAPACITY_COLUMNS,
    CRITERION_ALL,
    CRITERION_PAPER,
    Tables,
    Variant,
    floats,
    latencies,
    require,
)

TITLE = "Fig 7: goodput per replica"
INPUTS = ("capacity",)
COLUMNS = 3
LANE_IN = 0.19  # height of one system's lane


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(require(tables, "capacity", CAPACITY_COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 7: goodput per replica, latency model {variant.latency}. Bars: the load at which the worst class crosses "
        "1 % violations of TTFT and TTLT, which is what the authors' scripts measure. Hollow diamonds: the same with "
        "every token deadline (Eq 2) counted. Thin ticks: the bar's value in longer runs. Dashed line: the fluid "
        "bound, which no scheduler exceeds for long; a finite run can, because batch requests have minutes of slack. "
        "Where there is no bar, the 1 % was not crossed: “> x” means that every load searched held, up to x. "
        "Stars: printed in the paper (Fig 7; Table 5 for DC and DC+ER); QoServe's star is on both Niyama and the "
        "authors' artifact."
    )


def main_run_length(frame: pd.DataFrame) -> str:
    """The run length that bars show: the paper's, unless there is only another."""
    lengths = list(frame["run_length"].unique())
    return "paper" if "paper" in lengths else str(lengths[0])


def table(tables: Tables) -> pd.DataFrame:
    """Capacities per replica with interval, longer runs, bound and the paper's number; one row per bar."""
    frame = require(tables, "capacity", CAPACITY_COLUMNS)
    rows = []
    for variant in latencies(frame):
        own = variant.rows(frame)
        for trace in style.in_order(own["trace"], style.TRACES):
            here = own[own["trace"] == trace]
            rows += [_row(here, variant, trace, system) for system in style.in_order(here["system"], style.SYSTEMS)]
    return pd.DataFrame(rows)


def _row(here: pd.DataFrame, variant: Variant, trace: str, system: str) -> dict[str, object]:
    """One bar's numbers, requests/s per replica; nan where there is no crossing."""
    length = main_run_length(here)
    strict, own, long = (
        pick(here, system, *key)
        for key in ((CRITERION_ALL, length), (CRITERION_PAPER, length), (CRITERION_PAPER, "long"))
    )
    printed = paper.goodput(trace, system, variant.latency)
    return {
        "latency": variant.latency,
        "trace": trace,
        "system": system,
        "requests": None if own is None else int(own["requests"]),
        "capacity_qps": _per_replica(own, "capacity_qps_per_replica"),
        "interval_low_qps": _per_replica(own, "interval_low_qps"),
        "interval_high_qps": _per_replica(own, "interval_high_qps"),
        "capacity_with_tbt_qps": _per_replica(strict, "capacity_qps_per_replica"),
        "long_requests": None if long is None else int(long["requests"]),
        "long_capacity_qps": _per_replica(long, "capacity_qps_per_replica"),
        "fluid_bound_qps": _per_replica(own, "fluid_bound_qps"),
        "paper_qps": printed.value if printed else math.nan,
        "remark": "not run" if own is None else no_crossing(own),
    }


def _per_replica(row: pd.Series | None, column: str) -> float:
    """A capacity column per replica; nan when the row or its value is missing."""
    if row is None or pd.isna(row[column]):
        return math.nan
    return float(row[column]) / (1 if column.endswith("per_replica") else int(row["replicas"]))


def pick(frame: pd.DataFrame, system: str, criterion: str, run_length: str) -> pd.Series | None:
    """The row of a system, criterion and run length on one trace."""
    keys = {"system": system, "criterion": criterion, "run_length": run_length}
    rows = frame[(frame[list(keys)] == pd.Series(keys)).all(axis=1)]
    return None if rows.empty else rows.iloc[0]


def no_crossing(row: pd.Series) -> str:
    """Why a capacity is null, in a few words; empty when it is not."""
    if not pd.isna(row["capacity_qps_per_replica"]):
        return ""
    seeds = floats(row["seed_capacity_qps"])
    missing = int(pd.isna(seeds).sum())
    if 0 < missing < len(seeds):
        return f"no crossing in {missing} of {len(seeds)} seeds"
    if not pd.isna(row["passes_qps"]):
        return f"no crossing up to {row['passes_qps'] / row['replicas']:.3g}"
    return "no crossing" if pd.isna(row["fails_qps"]) else f"fails at {row['fails_qps'] / row['replicas']:.3g}"


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people, requests/s per replica: mean and interval, and the paper's number, in one row per bar."""
    rows = table(tables)
    ends = rows[["capacity_qps", "interval_low_qps", "interval_high_qps"]].clip(lower=0.0).to_numpy()
    measured = [style.interval_text(*v) if v[0] == v[0] else r for v, r in zip(ends, rows["remark"], strict=True)]
    return pd.DataFrame(
        {
            "latency": rows["latency"],
            "trace": rows["trace"].map(style.trace_label),
            "system": [style.look(name).label for name in rows["system"]],
            "N": [style.number_text(n, 0) for n in rows["requests"]],
            "goodput": measured,
            "with token deadlines": rows["capacity_with_tbt_qps"].map(style.number_text),
            "long N": [style.number_text(n, 0) for n in rows["long_requests"]],
            "long run": rows["long_capacity_qps"].map(style.number_text),
            "fluid bound": rows["fluid_bound_qps"].map(style.number_text),
            "paper": rows["paper_qps"].map(style.number_text),
        }
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per trace, one lane per system."""
    frame = variant.rows(require(tables, "capacity", CAPACITY_COLUMNS))
    rows = table({"capacity": frame})
    systems = style.in_order(rows["system"], style.SYSTEMS)
    traces = style.in_order(rows["trace"], style.TRACES)
    columns = min(COLUMNS, len(traces))
    lines = math.ceil(len(traces) / columns)
    width = style.DOUBLE_IN if columns > 1 else style.SINGLE_IN
    with style.styled():
        figure = style.new_figure(width, lines * (0.62 + LANE_IN * len(systems)) + 0.85)
        axes = figure.subplots(lines, columns, sharey=True, squeeze=False).ravel()
        for ax in axes[len(traces) :]:
            ax.remove()
        for ax, trace in zip(axes, traces, strict=False):
            _panel(ax, rows[rows["trace"] == trace], systems)
            ax.set_title(_title(rows[rows["trace"] == trace], trace))
        style.legend_above(figure, _handles(rows), 3 if columns == 1 else 5)
        style.footer(figure, frame, set(frame["seeds"]), "bars of error: 95 % interval over seeds (Student's t)")
    return figure


def _title(rows: pd.DataFrame, trace: str) -> str:
    requests, long = rows["requests"].dropna(), rows["long_requests"].dropna()
    more = f" (long: {style.counted(long.astype(int))})" if len(long) else ""
    return f"{style.trace_label(trace)}\nN = {style.counted(requests.astype(int))}{more}"


def _panel(ax: Axes, rows: pd.DataFrame, systems: list[str]) -> None:
    by_system = rows.set_index("system")
    bound = rows["fluid_bound_qps"].max()
    if not math.isnan(bound):
        ax.axvline(bound, color=style.INK, ls=(0, (3, 2)), lw=0.8, zorder=2.5)
    for lane, system in enumerate(systems):
        if system in by_system.index:
            _lane(ax, lane, system, by_system.loc[system])
    ax.set_yticks(range(len(systems)), [style.look(s).label for s in systems])
    for tick, system in zip(ax.yaxis.get_major_ticks(), systems, strict=True):
        tick.label1.set_fontweight("bold" if style.look(system).emphasised else "normal")
    ax.set_ylim(len(systems) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.margins(x=0.08)
    ax.set_xlabel("goodput per replica (QPS)", labelpad=2)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _lane(ax: Axes, lane: int, system: str, row: pd.Series) -> None:
    """Bar, interval, hollow diamond, long-run tick and star of one system; nothing stands for a missing number."""
    if not math.isnan(row["capacity_qps"]):
        ax.barh(lane, row["capacity_qps"], height=0.68, color=style.look(system).colour, zorder=2)
        if not math.isnan(row["interval_low_qps"]):
            ends = [row["interval_low_qps"], row["interval_high_qps"]]
            ax.plot(ends, [lane, lane], color=style.INK, lw=0.9, marker="|", ms=3.5, zorder=4)
    else:
        _say_no_crossing(ax, lane, row)
    if not math.isnan(row["capacity_with_tbt_qps"]):
        ax.plot(row["capacity_with_tbt_qps"], lane, **HOLLOW)
    if not math.isnan(row["long_capacity_qps"]):
        ax.plot([row["long_capacity_qps"]] * 2, [lane - 0.42, lane + 0.42], **TICK)
    printed = paper.goodput(row["trace"], system, row["latency"])
    if printed is not None:
        ax.plot(printed.value, lane, **style.paper_style(printed.certain))


def _say_no_crossing(ax: Axes, lane: int, row: pd.Series) -> None:
    """In place of a bar: the remark, to the right of whatever the lane shows."""
    shown = row[["capacity_with_tbt_qps", "long_capacity_qps", "paper_qps"]].max()
    text = row["remark"].replace("no crossing up to", ">").replace("no crossing in", "none in").replace(" of ", "/")
    style.say(ax, text, 0 if math.isnan(shown) else shown, lane)


HOLLOW = {"marker": "D", "ms": 4.2, "mfc": "white", "mec": style.INK, "mew": 0.8, "ls": "none", "zorder": 5}
TICK = {"color": style.INK, "lw": 1.6, "solid_capstyle": "butt", "zorder": 4}


def _handles(rows: pd.DataFrame) -> list:
    handles = [
        Patch(color="#999999", label="TTFT and TTLT"),
        Line2D([], [], label="and token deadlines", **HOLLOW),
        Line2D([], [], color=style.INK, ls=(0, (3, 2)), lw=0.8, label="fluid bound"),
    ]
    if rows["long_capacity_qps"].notna().any():
        handles.insert(2, Line2D([], [], marker="|", ms=8, mew=1.6, color=style.INK, ls="none", label="long run"))
    if rows["paper_qps"].notna().any():
        handles.append(style.paper_handle())
    return handles
