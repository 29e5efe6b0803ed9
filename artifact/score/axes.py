"""What a policy is scored by: each axis a number of a run, or of a search, and which way is better."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from artifact.results import metrics
from niyama.sim import Requests, Run

BELOW, AT, ABOVE, FAR_ABOVE = range(4)  # the suite's `times`


@dataclass(frozen=True)
class Axis:
    """label: as in tables; unit; higher: whether more is better; at: of the suite's `times`, none for a search."""

    label: str
    unit: str
    higher: bool = False
    at: int | None = None


AXES: Mapping[str, Axis] = {
    "capacity_qps": Axis("capacity by token deadlines", "requests/s", higher=True),
    "capacity_without_tbt_qps": Axis("capacity by TTFT and TTLT", "requests/s", higher=True),
    "violated_at": Axis("violated at the load", "share", at=AT),
    "violated_above": Axis("violated above it", "share", at=ABOVE),
    "violated_far_above": Axis("violated far above it", "share", at=FAR_ABOVE),
    "worst_class": Axis("worst class, above it", "share", at=ABOVE),
    "long_prompts": Axis("long prompts, above it", "share", at=ABOVE),
    "important": Axis("important requests, above it", "share", at=ABOVE),
    "gaps_over_tbt": Axis("gaps over the TBT, below it", "share", at=BELOW),
    "longest_gap_p99_s": Axis("longest gap, p99, below it", "s", at=BELOW),
    "ttft_p99_s": Axis("TTFT, p99, below it", "s", at=BELOW),
    "ttlt_p99_s": Axis("TTLT, p99, below it", "s", at=BELOW),
    "fairness": Axis("fairness over tenants, above it", "Jain's index", higher=True, at=ABOVE),
    "wasted_work": Axis("work wasted, above it", "share", at=ABOVE),
}
Values = dict[str, float]


def values_of_run(requests: Requests, run: Run, at: int) -> Values:
    """The axes of a run at the `at`-th of the suite's loads; those that the workload lacks are left out."""
    columns = metrics.request_columns(requests, run)
    of_all = {"violated_at": AT, "violated_above": ABOVE, "violated_far_above": FAR_ABOVE}
    violated = columns["violated"]
    found: Values = {name: float(violated.mean()) for name, own in of_all.items() if own == at}
    if at == BELOW:
        found |= _latencies(requests, columns)
    if at == ABOVE:
        groups = dict(metrics.groups(requests))
        found["worst_class"] = float(np.nanmax(metrics.violation_rates(requests, columns)[0]))
        found["long_prompts"] = float(violated[groups["long"]].mean())
        if "important" in groups:
            found["important"] = float(violated[groups["important"]].mean())
        tokens = requests.prompt_tokens.astype(np.int64) + requests.output_tokens
        found["wasted_work"] = float(tokens[violated].sum() / tokens.sum())
        if requests.tenant is not None:
            found["fairness"] = fairness(requests.tenant, tokens, violated)
    return found


def _latencies(requests: Requests, columns: Mapping[str, np.ndarray]) -> Values:
    """Gaps and TTFT of interactive requests, TTLT of batch requests."""
    interactive = np.array([c.interactive for c in requests.classes])[requests.class_index]
    found: Values = {}
    if interactive.any():
        gaps = int((requests.output_tokens[interactive] - 1).sum())
        found["gaps_over_tbt"] = float(columns["gaps_over_tbt"][interactive].sum() / max(gaps, 1))
        found["longest_gap_p99_s"] = float(np.quantile(columns["max_gap_s"][interactive], 0.99))
        found["ttft_p99_s"] = float(np.quantile(columns["ttft_s"][interactive], 0.99))
    if not interactive.all():
        found["ttlt_p99_s"] = float(np.quantile(columns["ttlt_s"][~interactive], 0.99))
    return found


def fairness(tenant: np.ndarray, tokens: np.ndarray, violated: np.ndarray) -> float:
    """Jain's index over tenants of what each got within its SLOs, as a multiple of its max-min fair share, in tokens.

    The fair share divides what all got together: a tenant that asks for less than an equal part gets all it asks for.
    So one that sends most of the load and is served by it takes from the others, and the index falls.
    """
    asked = np.bincount(tenant, tokens)
    got = np.bincount(tenant, np.where(violated, 0, tokens))[asked > 0]
    fair = fair_shares(asked[asked > 0], float(got.sum()))
    return jain(got / fair) if got.sum() else 1.0


def fair_shares(asked: np.ndarray, total: float) -> np.ndarray:
    """float64[n]: the max-min fair division of `total` among those who asked for so much each."""
    shares, left = np.zeros(len(asked)), total
    for done, i in enumerate(np.argsort(asked, kind="stable")):
        shares[i] = min(float(asked[i]), left / (len(asked) - done))
        left -= shares[i]
    return shares


def jain(values: np.ndarray) -> float:
    """Jain's index of fairness, (sum x)^2 / (n sum x^2): 1 when all are equal, 1/n when one has everything."""
    return float(values.sum() ** 2 / (len(values) * (values**2).sum()))
