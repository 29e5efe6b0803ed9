"""What Fig 7's parts share: goodput per replica of every system on every trace, as a table and as bars.

Goodput is the load at which the worst class has 1 % of its requests violated.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_bars, paper, style
from figures.capacities import cases, no_crossing, per_replica, pick, texts
from figures.frames import CRITERION_ALL, CRITERION_PAPER

COLUMNS = 3
LANE_IN = 0.19  # height of one system's lane
LONG = "long_capacity_qps"


def caption(latency: str) -> str:
    """What the bars of one latency model are."""
    return (
        f"Fig 7: goodput per replica, latency model {latency}. Bars: the load at which the worst class crosses "
        "1 % violations of TTFT and TTLT, which is what the authors' scripts measure. Hollow diamonds: the same with "
        "every token deadline (Eq 2) counted. Thin ticks: the bar's value in longer runs. Dashed line: the fluid "
        "bound, which no scheduler exceeds for long; a finite run can, because batch requests have minutes of slack. "
        "Where there is no bar, the 1 % was not crossed: “> x” means that every load searched held, up to x. "
        "Stars: printed in the paper (Fig 7; Table 5 for DC and DC+ER), only beside traces that it ran: the 2024 "
        "weeks and ShareGPT; QoServe's star is on both Niyama and the authors' artifact."
    )


def main_run_length(frame: pd.DataFrame) -> str:
    """The run length that bars show: the paper's, unless there is only another."""
    lengths = list(frame["run_length"].unique())
    return "paper" if "paper" in lengths else str(lengths[0])


def table(frame: pd.DataFrame) -> pd.DataFrame:
    """Capacities per replica with interval, longer runs, bound and the paper's number; one row per bar."""
    return pd.DataFrame([_row(*case) for case in cases(frame, style.SYSTEMS)])


def _row(here: pd.DataFrame, latency: str, trace: str, system: str) -> dict[str, object]:
    """One bar's numbers, requests/s per replica; nan where there is no crossing."""
    length = main_run_length(here)
    strict, own, long = (
        pick(here, system, *key)
        for key in ((CRITERION_ALL, length), (CRITERION_PAPER, length), (CRITERION_PAPER, "long"))
    )
    printed = paper.goodput(trace, system, latency)
    return {
        "latency": latency,
        "trace": trace,
        "system": system,
        "requests": None if own is None else int(own["requests"]),
        "capacity_qps": per_replica(own, "capacity_qps_per_replica"),
        "interval_low_qps": per_replica(own, "interval_low_qps"),
        "interval_high_qps": per_replica(own, "interval_high_qps"),
        "capacity_with_tbt_qps": per_replica(strict, "capacity_qps_per_replica"),
        "long_requests": None if long is None else int(long["requests"]),
        LONG: per_replica(long, "capacity_qps_per_replica"),
        "fluid_bound_qps": per_replica(own, "fluid_bound_qps"),
        "paper_qps": printed.value if printed else math.nan,
        "remark": "not run" if own is None else no_crossing(own),
    }


def text_table(rows: pd.DataFrame) -> pd.DataFrame:
    """`table` as formatted text, requests/s per replica: mean and interval, and the paper's number."""
    return pd.DataFrame(
        {
            "latency": rows["latency"],
            "trace": rows["trace"].map(style.trace_label),
            "system": [style.look(name).label for name in rows["system"]],
            "N": [style.number_text(n, 0) for n in rows["requests"]],
            "goodput": texts(rows),
            "with token deadlines": rows["capacity_with_tbt_qps"].map(style.number_text),
            "long N": [style.number_text(n, 0) for n in rows["long_requests"]],
            "long run": rows[LONG].map(style.number_text),
            "fluid bound": rows["fluid_bound_qps"].map(style.number_text),
            "paper": rows["paper_qps"].map(style.number_text),
        }
    )


def draw(frame: pd.DataFrame) -> Figure:
    """The rows of one latency model: one panel per trace, one lane per system."""
    rows = table(frame)
    rows["remark"] = [_short(remark) for remark in rows["remark"]]
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
            own = rows[rows["trace"] == trace]
            capacity_bars.panel(ax, own, systems, LONG, paper.goodput)
            ax.set_xlabel("goodput per replica (QPS)", labelpad=2)
            ax.set_title(_title(own, trace))
        handles = capacity_bars.handles(rows, "TTFT and TTLT", LONG, "long run")
        style.legend_above(figure, handles, 3 if columns == 1 else 5)
        style.footer(figure, frame, set(frame["seeds"]), "error bars: 95 % interval over seeds (Student's t)")
    return figure


def _short(remark: str) -> str:
    """A remark that fits into a panel."""
    return remark.replace("no crossing up to", ">").replace("no crossing in", "none in").replace(" of ", "/")


def _title(rows: pd.DataFrame, trace: str) -> str:
    requests, long = rows["requests"].dropna(), rows["long_requests"].dropna()
    more = f" (long: {style.counted(long.astype(int))})" if len(long) else ""
    return f"{style.trace_label(trace)}\nN = {style.counted(requests.astype(int))}{more}"
