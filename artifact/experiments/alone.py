"""What no number of replicas helps: the requests of a class that miss their SLOs even where each is served alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import numpy as np

from artifact.config import ConfigError
from artifact.results import metrics
from artifact.runs.run import Result, run
from artifact.runs.spec import RunSpec
from niyama.sim import Requests, Run

#: A load and near-regular gaps at which a replica is done with one request before the next comes.
ALONE_QPS, ALONE_ARRIVALS = 1e-4, {"kind": "gamma", "cv": 0.1}


class Ran(Protocol):
    """Requests and their times."""

    @property
    def requests(self) -> Requests: ...
    @property
    def run(self) -> Run: ...


def refuse_infeasible(spec: RunSpec, seeds: Iterable[int], *, with_tbt: bool) -> None:
    """ConfigError when a class misses more than the threshold although every request has a replica to itself.

    with_tbt: token deadlines are counted too. The mean over seeds decides, as it does for fleets.
    """
    runs = [_alone(spec, seed) for seed in seeds]
    rates = np.mean([class_rates(done, with_tbt) for done in runs], axis=0)
    worst = int(np.argmax(rates))
    if rates[worst] > metrics.THRESHOLD:
        qos = spec.classes[worst]
        raise ConfigError(
            f"class {qos.name!r} misses {rates[worst]:.1%} of its requests on any number of replicas "
            f"({spec.system} on {spec.trace}, {spec.latency_name}): {why_alone(runs, worst, with_tbt)}; "
            "relax its SLO, or drop such requests"
        )


def _alone(spec: RunSpec, seed: int) -> Result:
    more = {"load_qps": ALONE_QPS, "arrivals": ALONE_ARRIVALS, "replicas": None, "seed": seed}
    return run(spec.model_copy(update=more))


def class_rates(done: Ran, with_tbt: bool) -> np.ndarray:
    """float64[classes]: violation rates of a run; a class that nobody was in has none."""
    columns = metrics.request_columns(done.requests, done.run)
    return np.nan_to_num(metrics.violation_rates(done.requests, columns)[0 if with_tbt else 1])


def why_alone(runs: Sequence[Ran], class_index: int, with_tbt: bool) -> str:
    """Which SLO is missed alone, and from what prompt length on."""
    done = runs[0]
    qos, mine = done.requests.classes[class_index], done.requests.class_index == class_index
    start = done.run.token_start
    first_s = done.run.token_s[start[:-1]] - done.requests.arrival_s
    last_s = done.run.token_s[start[1:] - 1] - done.requests.arrival_s
    name, took_s = ("TTFT", first_s) if qos.interactive else ("TTLT", last_s)
    late = mine & (took_s > qos.deadline_slo_s)
    if not late.any():
        return f"its TBT of {qos.tbt_s:g} s is less than its tokens take" if with_tbt else "its SLO is too short"
    tokens = int(done.requests.prompt_tokens[late].min())
    return (
        f"a {name} of {qos.deadline_slo_s:g} s is less than one request alone takes, "
        f"with prompts from {tokens:,} tokens on"
    )
