"""Fig 8: goodput of a prefill node of a disaggregated deployment, by the policy of its prefill pool."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_bars, paper, style
from figures.capacities import cases, no_crossing, per_replica, pick, texts
from figures.frames import CAPACITY_COLUMNS, CRITERION_ALL, CRITERION_PAPER, Tables, Variant, latencies, require

TITLE = "Fig 8: goodput of prefill nodes"
INPUTS = ("disaggregated",)
CRITERION_PREFILL = "violation_rate_prefill_only"  # a request is over with its first token: the authors' emulation
SIDE = ("decode_nodes", "decode_wait_p99_s", "decodes_mean", "decodes_peak", "decode_kv_peak_tokens")
COLUMNS = (*CAPACITY_COLUMNS, *SIDE, "kv_transfer_p99_s")
LENGTH = "paper"
LANE_IN = 0.24  # height of one system's lane
PREFILL = "capacity_prefill_only_qps"


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
        "slack. Stars: printed in the paper, which ran the 2024 week."
    )


def table(tables: Tables) -> pd.DataFrame:
    """Goodput per prefill node by each criterion, the paper's number, and the decode side; one row per bar."""
    frame = require(tables, "disaggregated", COLUMNS)
    return pd.DataFrame([_row(*case) for case in cases(frame, style.DISAGGREGATED)])


def _row(here: pd.DataFrame, latency: str, trace: str, system: str) -> dict[str, object]:
    """One bar's numbers, requests/s per prefill node; nan where there is no crossing."""
    whole, strict, prefill = (
        pick(here, system, criterion, LENGTH) for criterion in (CRITERION_PAPER, CRITERION_ALL, CRITERION_PREFILL)
    )
    printed = paper.prefill_goodput(trace, system, latency)
    side = {name: math.nan if pd.isna(whole[name]) else float(whole[name]) for name in (*SIDE, "kv_transfer_p99_s")}
    return {
        "latency": latency,
        "trace": trace,
        "system": system,
        "requests": int(whole["requests"]),
        **{name: per_replica(whole, name) for name in ("interval_low_qps", "interval_high_qps", "fluid_bound_qps")},
        "capacity_qps": per_replica(whole, "capacity_qps_per_replica"),
        "capacity_with_tbt_qps": per_replica(strict, "capacity_qps_per_replica"),
        PREFILL: per_replica(prefill, "capacity_qps_per_replica"),
        "paper_qps": printed.value if printed else math.nan,
        **side,
        "remark": no_crossing(whole),
    }


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as text: requests/s per prefill node, mean and interval, and how busy the decode nodes were."""
    rows = table(tables)
    return pd.DataFrame(
        {
            "latency": rows["latency"],
            "trace": rows["trace"].map(style.trace_label),
            "system": [style.look(name).label for name in rows["system"]],
            "N": [style.number_text(n, 0) for n in rows["requests"]],
            "goodput": texts(rows),
            "prefill only": rows[PREFILL].map(style.number_text),
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
            capacity_bars.panel(ax, own, systems, PREFILL, paper.prefill_goodput)
            ax.set_xlabel("goodput per prefill node (QPS)", labelpad=2)
            ax.set_title(f"{style.trace_label(trace)}, N = {style.counted(own['requests'])}")
        handles = capacity_bars.handles(rows, "end to end", PREFILL, "prefill only")
        style.legend_above(figure, handles, 2 if len(traces) == 1 else 5)
        style.footer(figure, frame, set(frame["seeds"]), "error bars: 95 % interval over seeds (Student's t)")
    return figure
