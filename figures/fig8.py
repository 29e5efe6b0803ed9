"""Fig 8: goodput of a prefill node of a disaggregated deployment, by the policy of its prefill pool."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import paper, style
from figures.fig7 import no_crossing, pick
from figures.frames import CAPACITY_COLUMNS, CRITERION_ALL, CRITERION_PAPER, Tables, Variant, latencies, require

TITLE = "Fig 8: goodput of prefill nodes"
INPUTS = ("disaggregated",)
CRITERION_PREFILL = "violation_rate_prefill_only"  # a request is over with its first token: the authors' emulation
SIDE = ("decode_nodes", "decode_wait_p99_s", "decodes_mean", "decodes_peak", "decode_kv_peak_tokens")
COLUMNS = (*CAPACITY_COLUMNS, *SIDE, "kv_transfer_p99_s")
LENGTH = "paper"
LANE_IN = 0.24  # height of one system's lane
HOLLOW = {"marker": "D", "ms": 4.2, "mfc": "white", "mec": style.INK, "mew": 0.8, "ls": "none", "zorder": 5}
TICK = {"color": style.INK, "lw": 1.6, "solid_capstyle": "butt", "zorder": 4}


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(require(tables, "disaggregated", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    frame = variant.rows(require(tables, "disaggregated", COLUMNS))
    nodes = style.counted(frame["decode_nodes"].dropna().astype(int)) if frame["decode_nodes"].notna().any() else "no"
    return (
        f"Fig 8: goodput of one prefill node of a disaggregated deployment, latency model {variant.latency}: the load "
        "at which the worst class crosses 1 % violations. Prompts are computed in one pool, their KV crosses a link, "
        f"and the other tokens come from a pool of decode nodes ({nodes}) that is kept away from its limits. Bars: "
        "TTFT of Q1 and TTLT of Q2 and Q3, end to end. Hollow diamonds: token deadlines (Eq 2) counted too. Thick "
        "ticks: every request counted as over with its first token, as the authors emulated it. Dashed line: what a "
        "prefill node computes at most (fluid bound); a finite run can exceed it, for batch requests have minutes of "
        "slack. Stars: printed in the paper."
    )


def table(tables: Tables) -> pd.DataFrame:
    """Goodput per prefill node by each criterion, the paper's number, and the decode side; one row per bar."""
    frame = require(tables, "disaggregated", COLUMNS)
    rows = []
    for variant in latencies(frame):
        own = variant.rows(frame)
        for trace in style.in_order(own["trace"], style.TRACES):
            here = own[own["trace"] == trace]
            rows += [
                _row(here, variant, trace, system) for system in style.in_order(here["system"], style.DISAGGREGATED)
            ]
    return pd.DataFrame(rows)


def _row(here: pd.DataFrame, variant: Variant, trace: str, system: str) -> dict[str, object]:
    """One bar's numbers, requests/s per prefill node; nan where there is no crossing."""
    whole, strict, prefill = (
        pick(here, system, criterion, LENGTH) for criterion in (CRITERION_PAPER, CRITERION_ALL, CRITERION_PREFILL)
    )
    printed = paper.prefill_goodput(trace, system, variant.latency)
    return {
        "latency": variant.latency,
        "trace": trace,
        "system": system,
        "requests": int(whole["requests"]),
        **{name: _number(whole[name]) for name in ("interval_low_qps", "interval_high_qps", "fluid_bound_qps")},
        "capacity_qps": _number(whole["capacity_qps_per_replica"]),
        "capacity_with_tbt_qps": _number(strict["capacity_qps_per_replica"]),
        "capacity_prefill_only_qps": _number(prefill["capacity_qps_per_replica"]),
        "paper_qps": printed.value if printed else math.nan,
        **{name: _number(whole[name]) for name in (*SIDE, "kv_transfer_p99_s")},
        "remark": no_crossing(whole),
    }


def _number(value: object) -> float:
    return math.nan if pd.isna(value) else float(value)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people: requests/s per prefill node, mean and interval, and how busy the decode nodes were."""
    rows = table(tables)
    ends = rows[["capacity_qps", "interval_low_qps", "interval_high_qps"]].to_numpy()
    measured = [style.interval_text(*v) if v[0] == v[0] else r for v, r in zip(ends, rows["remark"], strict=True)]
    return pd.DataFrame(
        {
            "latency": rows["latency"],
            "trace": rows["trace"].map(style.trace_label),
            "system": [style.look(name).label for name in rows["system"]],
            "N": [style.number_text(n, 0) for n in rows["requests"]],
            "goodput": measured,
            "prefill only": rows["capacity_prefill_only_qps"].map(style.number_text),
            "with token deadlines": rows["capacity_with_tbt_qps"].map(style.number_text),
            "paper": rows["paper_qps"].map(style.number_text),
            "fluid bound": rows["fluid_bound_qps"].map(style.number_text),
            "decode nodes": [style.number_text(n, 0) for n in rows["decode_nodes"]],
            "decodes per node, mean (peak)": [
                f"{style.number_text(mean, 0)} ({style.number_text(peak, 0)})"
                for mean, peak in zip(rows["decodes_mean"], rows["decodes_peak"], strict=True)
            ],
            "peak KV (tokens)": [style.number_text(n, 0) for n in rows["decode_kv_peak_tokens"]],
            "wait for decoding, p99 (ms)": [style.number_text(s * 1e3, 0) for s in rows["decode_wait_p99_s"]],
            "KV transfer, p99 (ms)": [style.number_text(s * 1e3, 0) for s in rows["kv_transfer_p99_s"]],
        }
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per trace, one lane per system."""
    frame = variant.rows(require(tables, "disaggregated", COLUMNS))
    rows = table({"disaggregated": frame})
    systems = style.in_order(rows["system"], style.DISAGGREGATED)
    traces = style.in_order(rows["trace"], style.TRACES)
    width = style.DOUBLE_IN if len(traces) > 1 else style.SINGLE_IN
    with style.styled():
        figure = style.new_figure(width, 1.35 + LANE_IN * len(systems))
        for ax, trace in zip(figure.subplots(1, len(traces), sharey=True, squeeze=False)[0], traces, strict=True):
            own = rows[rows["trace"] == trace]
            _panel(ax, own, systems)
            ax.set_title(f"{style.trace_label(trace)}, N = {style.counted(own['requests'])}")
        style.legend_above(figure, _handles(rows), 2 if len(traces) == 1 else 5)
        style.footer(figure, frame, set(frame["seeds"]), "bars of error: 95 % interval over seeds (Student's t)")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, systems: list[str]) -> None:
    by_system = rows.set_index("system")
    ax.axvline(rows["fluid_bound_qps"].max(), color=style.INK, ls=(0, (3, 2)), lw=0.8, zorder=2.5)
    for lane, system in enumerate(systems):
        if system in by_system.index:
            _lane(ax, lane, system, by_system.loc[system])
    ax.set_yticks(range(len(systems)), [style.look(s).label for s in systems])
    for tick, system in zip(ax.yaxis.get_major_ticks(), systems, strict=True):
        tick.label1.set_fontweight("bold" if style.look(system).emphasised else "normal")
    ax.set_ylim(len(systems) - 0.4, -0.6)
    ax.set_xlim(left=0)
    ax.margins(x=0.08)
    ax.set_xlabel("goodput per prefill node (QPS)", labelpad=2)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _lane(ax: Axes, lane: int, system: str, row: pd.Series) -> None:
    """Bar, interval, diamond, tick and star of one system; words where there is no crossing."""
    if math.isnan(row["capacity_qps"]):
        shown = row[["capacity_with_tbt_qps", "capacity_prefill_only_qps", "paper_qps"]].max()
        style.say(ax, row["remark"], 0 if math.isnan(shown) else shown, lane)
    else:
        ax.barh(lane, row["capacity_qps"], height=0.68, color=style.look(system).colour, zorder=2)
    if not math.isnan(row["interval_low_qps"]):
        ends = [row["interval_low_qps"], row["interval_high_qps"]]
        ax.plot(ends, [lane, lane], color=style.INK, lw=0.9, marker="|", ms=3.5, zorder=4)
    if not math.isnan(row["capacity_with_tbt_qps"]):
        ax.plot(row["capacity_with_tbt_qps"], lane, **HOLLOW)
    if not math.isnan(row["capacity_prefill_only_qps"]):
        ax.plot([row["capacity_prefill_only_qps"]] * 2, [lane - 0.42, lane + 0.42], **TICK)
    if not math.isnan(row["paper_qps"]):
        ax.plot(row["paper_qps"], lane, **style.paper_style())


def _handles(rows: pd.DataFrame) -> list:
    handles = [
        Patch(color="#999999", label="end to end"),
        Line2D([], [], label="and token deadlines", **HOLLOW),
        Line2D([], [], marker="|", ms=8, mew=1.6, color=style.INK, ls="none", label="prefill only"),
        Line2D([], [], color=style.INK, ls=(0, (3, 2)), lw=0.8, label="fluid bound"),
    ]
    return [*handles, style.paper_handle()] if rows["paper_qps"].notna().any() else handles
