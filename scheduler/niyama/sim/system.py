"""A system is a list of pools of replicas: "siloed" is a list longer than one, "shared" a list of one."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from niyama.jit import compiled
from niyama.latency import ModelCard
from niyama.latency.model import empty_batch, seconds, with_prefill
from niyama.policies import Policy
from niyama.qos import QoSClass
from niyama.sim.packing import bins_of, pack
from niyama.sim.routers import Router

ROUND_ROBIN, LEAST_WORK, PACKED = ROUTINGS = ("round-robin", "least-work", "packed")


@dataclass(frozen=True)
class Pool:
    """Replicas with one policy that serve the QoS classes named in `classes`, or all when that is None."""

    policy: Policy
    replicas: int = 1
    classes: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not (isinstance(self.replicas, int) and self.replicas >= 1):
            raise ValueError(f"pool {self.policy.name!r}: replicas is {self.replicas!r}; it must be an integer >= 1")


@dataclass(frozen=True)
class System:
    """Pools and the router before them.

    routing: `round-robin`; `least-work` by the router's own estimate; `packed`, as PolyServe does
    (`niyama.sim.packing`), where a request may also go to a pool other than its class's, if its steps are shorter; or a
    Router, which sees the replicas (`niyama.sim.routers`).
    """

    name: str
    pools: tuple[Pool, ...]
    routing: str | Router = field(default=ROUND_ROBIN)

    def __post_init__(self) -> None:
        if not self.pools:
            raise ValueError(f"system {self.name!r}: pools is empty; give it at least one")
        if not isinstance(self.routing, Router) and self.routing not in ROUTINGS:
            raise ValueError(
                f"system {self.name!r}: routing is {self.routing!r}; use {', '.join(ROUTINGS)} or a Router"
            )

    @property
    def replicas(self) -> int:
        """Number of replicas over all pools."""
        return sum(pool.replicas for pool in self.pools)

    def pool_of(self, class_name: str) -> int:
        """Index of the pool that serves the class: the first that names it or takes all. ValueError when none does."""
        for i, pool in enumerate(self.pools):
            if pool.classes is None or class_name in pool.classes:
                return i
        raise ValueError(f"system {self.name!r}: no pool serves class {class_name!r}; name it in a pool's classes")


def shared(policy: Policy, replicas: int = 1, routing: str | Router = ROUND_ROBIN) -> System:
    """One pool for everybody."""
    return System(policy.name, (Pool(policy, replicas),), routing)


def route(
    system: System,
    classes: tuple[QoSClass, ...],
    class_index: np.ndarray,
    arrival_s: np.ndarray,
    prompt_tokens: np.ndarray,
    predictor: ModelCard,
) -> np.ndarray:
    """int32[n]: the replica of each request, numbered through all pools. Nothing here sees an output length."""
    pool_of_class = np.array([system.pool_of(c.name) for c in classes])
    pool_index = pool_of_class[class_index]
    if system.routing == PACKED:
        slo_s = np.array([c.deadline_slo_s for c in classes])[class_index]
        return _packed(system, pool_index, arrival_s, prompt_tokens, slo_s, predictor)
    replica = np.empty(len(arrival_s), np.int32)
    first = 0
    for i, pool in enumerate(system.pools):
        rows = np.flatnonzero(pool_index == i)
        if system.routing == ROUND_ROBIN:
            replica[rows] = first + np.arange(len(rows)) % pool.replicas
        else:
            rate = _prefill_seconds_per_token(predictor, pool.policy.max_chunk_tokens)
            replica[rows] = first + _least_work(arrival_s[rows], prompt_tokens[rows] * rate, pool.replicas)
        first += pool.replicas
    return replica


def _packed(
    system: System,
    pool_index: np.ndarray,
    arrival_s: np.ndarray,
    prompt_tokens: np.ndarray,
    slo_s: np.ndarray,
    predictor: ModelCard,
) -> np.ndarray:
    """The replicas by `niyama.sim.packing`; pools are told apart by the step their policies hold (`step_s`)."""
    policies = tuple(pool.policy for pool in system.pools)
    bins, bin_of_pool = bins_of(policies, tuple(pool.replicas for pool in system.pools))
    most = min(policy.max_running for policy in policies)
    return pack(arrival_s, prompt_tokens, slo_s, bin_of_pool[pool_index], bins, most, predictor.build())


def _prefill_seconds_per_token(card: ModelCard, chunk_tokens: int) -> float:
    return seconds(card.build(), with_prefill(empty_batch(0, 0), 0, chunk_tokens)) / chunk_tokens


@compiled
def _assign_least_work(arrival_s, work_s, free_at_s, replica):
    for i in range(len(arrival_s)):
        best = 0
        for k in range(1, len(free_at_s)):
            if free_at_s[k] < free_at_s[best]:
                best = k
        replica[i] = best
        free_at_s[best] = max(free_at_s[best], arrival_s[i]) + work_s[i]


def _least_work(arrival_s: np.ndarray, work_s: np.ndarray, replicas: int) -> np.ndarray:
    """Each request to the replica whose assigned prefill work would be done first; no feedback from the engines."""
    replica = np.zeros(len(arrival_s), np.int32)
    _assign_least_work(np.ascontiguousarray(arrival_s), np.ascontiguousarray(work_s), np.zeros(replicas), replica)
    return replica
