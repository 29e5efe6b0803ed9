"""Plain-text output of `simulate` and `capacity`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from artifact.results import metrics


def print_point(answer: dict[str, Any]) -> None:
    """Print what `simulate` found."""
    print(
        f"{answer['system']} on {answer['trace']} at {answer['load_qps']:g} QPS: {answer['requests']} requests, "
        f"{answer['duration_s'] / 3600:.2f} h, seed {answer['seed']}"
    )
    print_models(answer)
    print()
    print(
        f"{'group':10s} {'violated':>9s} {'(no TBT)':>9s} {'TTFT p50':>9s} {'p99':>8s} {'TTLT p50':>9s} {'p99':>8s}"
        f" {'gap p99':>8s} {'late tok':>9s} {'relegated':>9s}"
    )
    for name, row in {"all": answer, **answer["classes"], **answer["groups"]}.items():
        late = row["late_token_share"]
        print(
            f"{name:10s} {row['violation_rate']:9.2%} {row['violation_rate_without_tbt']:9.2%}"
            f" {row['ttft_p50_s']:8.2f}s {row['ttft_p99_s']:7.2f}s {row['ttlt_p50_s']:8.2f}s {row['ttlt_p99_s']:7.2f}s"
            f" {row['max_gap_p99_s'] * 1e3:6.0f}ms {'-' if late is None else format(late, '.2%'):>9s}"
            f" {row['relegated_share']:9.2%}"
        )
    print(
        f"\nbacklog grows by {answer['backlog_slope_qps']:+.3f} requests/s, drained {answer['drain_s']:.0f} s after the"
        f" last arrival\n{answer['iterations']} iterations at {answer['iterations_per_s']:,.0f}/s, "
        f"{answer['requests_per_s']:,.0f} requests/s"
    )


def print_models(answer: Mapping[str, Any]) -> None:
    """Print what executes and predicts, and, in a line more, what of the run differs from the defaults."""
    print(f"backend {answer['backend']}, latency {answer['latency']}, predictor {answer['predictor']}")
    if answer["changed"]:
        values = {
            name: value if isinstance(value, str) else json.dumps(value) for name, value in answer["changed"].items()
        }
        print(f"changed: {', '.join(f'{name} {value}' for name, value in values.items())}")


def describe_capacity(row: dict[str, Any]) -> str:
    """One line describing a capacity and its bracket."""
    bracket = f"holds at {row['passes_qps']}, fails at {row['fails_qps']} QPS"
    if row["capacity_qps"] is None:
        return f"no crossing of {metrics.THRESHOLD:.0%} seen in every seed ({bracket})"
    low, high = row["interval_low_qps"], row["interval_high_qps"]
    interval = "" if low is None else f", 95 % interval {low:.3f} to {high:.3f}"
    return f"{row['capacity_qps']:.3f} QPS{interval} ({bracket})"
