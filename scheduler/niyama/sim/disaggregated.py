"""A disaggregated deployment: one pool computes prompts, another decodes, and each request's KV crosses a link between.

A request ends in the prefill pool with its first token; the decode pool makes the others. Nothing flows back, so the
pools are simulated one after the other, each by the same replicas as everything else. Two simplifications: a prefill
node holds a prompt's KV until the first token, not until it is sent (milliseconds, of a cache that holds hundreds of
prompts); and KV that has come waits for a place in a decode node without filling one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from niyama.jit import compiled
from niyama.latency import ModelCard
from niyama.qos import QoSClass
from niyama.sim.requests import Requests
from niyama.sim.run import Run, blank_run, check_run, simulate
from niyama.sim.system import System


@dataclass(frozen=True)
class KVLink:
    """What KV crosses between the pools: each prefill node sends one request's KV after the other.

    A request of n prompt tokens occupies the link for n * kv_bytes_per_token / bytes_per_s, and arrives `delay_s`
    after it has been sent whole.
    """

    kv_bytes_per_token: float
    bytes_per_s: float
    delay_s: float

    def __post_init__(self) -> None:
        for field in ("kv_bytes_per_token", "bytes_per_s"):
            if not (np.isfinite(getattr(self, field)) and getattr(self, field) > 0):
                raise ValueError(f"KV link: {field} is {getattr(self, field)}; it must be finite and positive")
        if not (np.isfinite(self.delay_s) and self.delay_s >= 0):
            raise ValueError(f"KV link: delay_s is {self.delay_s}; it must be finite and not negative")

    def arrivals(self, ready_s: np.ndarray, prompt_tokens: np.ndarray) -> np.ndarray:
        """float64[n]: when KV that one node has ready at `ready_s` (any order) has arrived; in order of readiness."""
        order = np.argsort(ready_s, kind="stable")
        busy_s = prompt_tokens[order] * (self.kv_bytes_per_token / self.bytes_per_s)
        sent_s = np.cumsum(busy_s)
        sent_s += np.maximum.accumulate(ready_s[order] - (sent_s - busy_s))  # idle until ready, busy until sent
        arrived_s = np.empty(len(order))
        arrived_s[order] = sent_s + self.delay_s
        return arrived_s


@dataclass(frozen=True)
class Disaggregated:
    """A system of two pools and the link between them.

    batch_allowance_s: what the prefill pool takes off the deadlines of batch requests, for what comes after it.
    """

    name: str
    prefill: System
    decode: System
    link: KVLink
    batch_allowance_s: float = 0.0

    def __post_init__(self) -> None:
        if not (np.isfinite(self.batch_allowance_s) and self.batch_allowance_s >= 0):
            wanted = "it must be finite and not negative"
            raise ValueError(f"system {self.name!r}: batch_allowance_s is {self.batch_allowance_s}; {wanted}")


@dataclass(frozen=True)
class DisaggregatedRun:
    """Raw times of n requests through both pools, in seconds.

    run: all tokens, in request order; replicas, relegations and first chunks are the prefill pool's, preemptions both
    pools'. decoded: int64[m], the requests that went on to the decode pool, in the order in which their KV came;
    kv_arrived_s: float64[m], when; decode: the decode pool's own run of them.
    """

    run: Run
    decoded: np.ndarray
    kv_arrived_s: np.ndarray
    decode: Run


def simulate_disaggregated(
    system: Disaggregated,
    requests: Requests,
    executor: ModelCard,
    predictor: ModelCard,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> DisaggregatedRun:
    """Run `requests` through the prefill pool, the link and the decode pool, to the end.

    The cards are those of the replicas of both pools; noise as of `simulate`. Raises ValueError as `simulate` does.
    """
    check_run(requests, executor)
    prompts = _prompts(requests, system)
    prefill = simulate(system.prefill, prompts, executor, predictor, noise=noise, seed=2 * seed)
    arrived_s = np.full(len(requests), np.inf)
    for node in range(system.prefill.replicas):
        rows = np.flatnonzero((requests.output_tokens > 1) & (prefill.replica == node))
        arrived_s[rows] = system.link.arrivals(prefill.token_s[rows], requests.prompt_tokens[rows])
    decoded = np.argsort(arrived_s, kind="stable")[: np.count_nonzero(requests.output_tokens > 1)]
    handed_over = _handed_over(requests, decoded, arrived_s)
    decode = simulate(system.decode, handed_over, executor, predictor, noise=noise, seed=2 * seed + 1)
    return DisaggregatedRun(_joined(requests, prefill, decoded, decode), decoded, arrived_s[decoded], decode)


def _joined(requests: Requests, prefill: Run, decoded: np.ndarray, decode: Run) -> Run:
    """First tokens of the one pool and further tokens of the other, as one run."""
    whole = blank_run(requests, prefill.replica)
    _copy_tokens(decode.token_start, decode.token_s, whole.token_start[decoded], whole.token_s)
    whole.token_s[whole.token_start[:-1]] = prefill.token_s
    preemptions = prefill.preemptions.copy()
    preemptions[decoded] += decode.preemptions
    return replace(
        prefill,
        token_start=whole.token_start,
        token_s=whole.token_s,
        preemptions=preemptions,
        iterations=prefill.iterations + decode.iterations,
    )


@compiled
def _copy_tokens(token_start, token_s, to_start, to_s):
    """The tokens of each request in one layout to where it begins in another."""
    for i in range(len(to_start)):
        for k in range(token_start[i + 1] - token_start[i]):
            to_s[to_start[i] + k] = token_s[token_start[i] + k]


def _prompts(requests: Requests, system: Disaggregated) -> Requests:
    """The requests as the prefill pool sees them: over with their first token, batch deadlines earlier."""
    return replace(
        requests,
        classes=tuple(_earlier(c, system.batch_allowance_s) for c in requests.classes),
        output_tokens=np.ones_like(requests.output_tokens),
    )


def _earlier(qos: QoSClass, allowance_s: float) -> QoSClass:
    """A batch class whose deadline leaves `allowance_s` for what comes after the first token."""
    return qos if qos.interactive else replace(qos, ttlt_s=qos.deadline_slo_s - allowance_s)


def _handed_over(requests: Requests, decoded: np.ndarray, arrived_s: np.ndarray) -> Requests:
    """The requests `decoded` as the decode pool sees them: there when their KV is, with one token out."""
    return replace(
        requests,
        class_index=requests.class_index[decoded],
        arrival_s=arrived_s[decoded],
        prompt_tokens=requests.prompt_tokens[decoded],
        output_tokens=requests.output_tokens[decoded],
        important=requests.important[decoded],
        app=None if requests.app is None else requests.app[decoded],
        tenant=None if requests.tenant is None else requests.tenant[decoded],
        emitted_tokens=np.ones(len(decoded), np.int32),
    )
