"""Every metric, defined once, from raw times. Violations are over all requests that arrived.

A request is violated when it missed its TTFT or TTLT (Eq 1, 3) or any output token missed its own deadline (Eq 2).
`violation_rate_without_tbt` leaves the token deadlines out, as the authors' scripts do.
Inter-token gaps are reported raw: a cumulative deadline hides a stall behind an early first token.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from figures.groups import ALL, IMPORTANT, LONG, LOW, SHORT
from niyama.jit import compiled_apart
from niyama.sim import Requests, Run

THRESHOLD = 0.01  # capacity: at most this share of each class may be violated
LONG_QUANTILE = 0.9  # a prompt at or above this quantile of its run is long
QUANTILES = {"p50": 0.5, "p95": 0.95, "p99": 0.99}
# A step that ends exactly on a deadline must not count as late for rounding.
ROUNDING_S = 1e-9


@compiled_apart
def _token_pass(
    token_start: np.ndarray,
    token_s: np.ndarray,
    first_deadline_s: np.ndarray,
    tbt_s: np.ndarray,
    late: np.ndarray,
    over: np.ndarray,
    max_gap: np.ndarray,
) -> None:
    """Per request: tokens after their Eq 2 deadline, gaps longer than the TBT, longest gap."""
    for r in range(len(late)):
        a, b = token_start[r], token_start[r + 1]
        for k in range(a, b):
            if token_s[k] > first_deadline_s[r] + (k - a) * tbt_s[r] + ROUNDING_S:
                late[r] += 1
            if k > a:
                gap = token_s[k] - token_s[k - 1]
                max_gap[r] = max(max_gap[r], gap)
                if gap > tbt_s[r] + ROUNDING_S:
                    over[r] += 1


def request_columns(requests: Requests, run: Run) -> dict[str, np.ndarray]:
    """Derived columns, one value per request; times in s. Token columns are 0 for batch requests."""
    classes, index = requests.classes, requests.class_index
    interactive = np.array([c.interactive for c in classes])[index]
    slo_s = np.array([c.deadline_slo_s for c in classes])[index]
    # a batch class has no token deadlines: they are put where no token can miss them
    first_deadline_s = np.where(interactive, requests.arrival_s + slo_s, np.inf)
    tbt_s = np.array([c.tbt_s if c.interactive else np.inf for c in classes])[index]
    n = len(requests)
    late, over, max_gap = np.zeros(n, np.int32), np.zeros(n, np.int32), np.zeros(n)
    _token_pass(run.token_start, run.token_s, first_deadline_s, tbt_s, late, over, max_gap)
    ttft_s = run.token_s[run.token_start[:-1]] - requests.arrival_s
    ttlt_s = run.token_s[run.token_start[1:] - 1] - requests.arrival_s
    missed = np.where(interactive, ttft_s, ttlt_s) > slo_s + ROUNDING_S
    return {
        "ttft_s": ttft_s,
        "ttlt_s": ttlt_s,
        "max_gap_s": max_gap,
        "late_tokens": late,
        "gaps_over_tbt": over,
        "missed_first_or_last": missed,
        "violated": missed | (late > 0),
    }


def violation_rates(requests: Requests, columns: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray]:
    """Share of violated requests per class, with and without token deadlines; nan for a class nobody was in."""
    counts = np.bincount(requests.class_index, minlength=len(requests.classes))
    with np.errstate(invalid="ignore"):
        with_tbt, without_tbt = (
            np.bincount(requests.class_index, columns[name], len(requests.classes)) / counts
            for name in ("violated", "missed_first_or_last")
        )
    return with_tbt, without_tbt


def groups(requests: Requests) -> Iterator[tuple[str, np.ndarray]]:
    """Name and boolean mask of each group that results are reported for; empty groups are left out."""
    n = len(requests)
    long = requests.prompt_tokens >= np.quantile(requests.prompt_tokens, LONG_QUANTILE)
    masks = {ALL: np.ones(n, bool), SHORT: ~long, LONG: long}
    masks |= {c.name: requests.class_index == i for i, c in enumerate(requests.classes)}
    if not requests.important.all():
        masks |= {IMPORTANT: requests.important, LOW: ~requests.important}
    return ((name, mask) for name, mask in masks.items() if mask.any())


def summarise(
    requests: Requests, run: Run, columns: dict[str, np.ndarray], mask: np.ndarray
) -> dict[str, float | int | None]:
    """The metrics of one group of requests."""
    outputs = requests.output_tokens[mask]
    interactive = np.array([c.interactive for c in requests.classes])[requests.class_index[mask]]
    gaps = int((outputs[interactive] - 1).sum())
    row: dict[str, float | int | None] = {
        "group_requests": int(mask.sum()),
        "violation_rate": float(columns["violated"][mask].mean()),
        "violation_rate_without_tbt": float(columns["missed_first_or_last"][mask].mean()),
        "late_token_share": _share(columns["late_tokens"][mask].sum(), outputs[interactive].sum()),
        "gap_over_tbt_share": _share(columns["gaps_over_tbt"][mask].sum(), gaps),
        "relegated_share": float((run.relegations[mask] > 0).mean()),
        "preemptions": int(run.preemptions[mask].sum()),
    }
    for name in ("ttft_s", "ttlt_s", "max_gap_s"):
        values = np.quantile(columns[name][mask], list(QUANTILES.values()))
        row |= {f"{name[:-2]}_{q}_s": float(v) for q, v in zip(QUANTILES, values, strict=True)}
    return row


def _share(part: float, whole: float) -> float | None:
    return float(part / whole) if whole else None


def run_metrics(requests: Requests, run: Run) -> dict[str, float | int]:
    """What holds for a run as a whole: its length, its drain and how its backlog grew."""
    last_s = run.token_s[run.token_start[1:] - 1]
    arrival_s = requests.arrival_s
    return {
        "duration_s": float(last_s.max()),
        "drain_s": float(max(0.0, last_s.max() - arrival_s[-1])),
        "backlog_slope_qps": backlog_slope_qps(arrival_s, np.sort(last_s)),
        "iterations": run.iterations,
        "un_relegations": run.un_relegations,
    }


def backlog_slope_qps(arrival_s: np.ndarray, finished_s: np.ndarray) -> float:
    """Growth of the number of unfinished requests over the second half of the arrivals, requests/s (least squares).

    Near zero: the system keeps up. Near load minus capacity: what looks fine only has not lasted long enough.
    """
    half = len(arrival_s) // 2
    t = arrival_s[half:]
    if len(t) < 2 or t[-1] == t[0]:
        return 0.0
    unfinished = np.arange(half + 1, len(arrival_s) + 1) - np.searchsorted(finished_s, t, side="right")
    t = t - t.mean()
    return float((t * (unfinished - unfinished.mean())).sum() / (t * t).sum())
