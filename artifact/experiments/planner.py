"""The fewest replicas that hold a load: the one search that every planned fleet comes from."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.alone import refuse_infeasible
from artifact.results.metrics import THRESHOLD
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import trace_of
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system
from niyama import load_card

Sizes = tuple[int, ...]  # replicas of each pool
MORE = 8  # replicas that are tried one by one, beyond twice the size that a search starts with


@dataclass(frozen=True)
class Planner:
    """Looks for the smallest fleet whose worst violation rate, averaged over seeds, is within the threshold.

    rates: of a fleet under one seed, one for each pool or one for all; each is asked for more than once. with_tbt:
    whether they count token deadlines. near_seed_0: climb by the first seed alone, until all are asked. feasible: it is
    known that enough replicas do.
    """

    spec: RunSpec  # its replicas and seed are those of each fleet
    seeds: int
    rates: Callable[[Sizes, int], np.ndarray]
    with_tbt: bool
    near_seed_0: bool = False
    feasible: bool = False

    def holds(self, sizes: Sizes) -> bool:
        """Whether the worst rate is within the threshold; stops at the first seed that settles it."""
        total = np.zeros(1)
        for seed in range(self.seeds):
            total = total + self.rates(sizes, seed)
            if total.max() > THRESHOLD * self.seeds:
                return False
        return True

    def plan(self, start: Sizes) -> Sizes:
        """From `start`, up until it holds, then down by one replica at a time while a smaller fleet does.

        Up by one replica; by an eighth from twice the start and MORE on, if it can hold at all: so that it ends.
        With several pools, up where most is violated, down wherever one less still holds: a fleet of which no pool
        can spare a replica. Smaller ones that trade replicas between pools are tried too. ConfigError when a class
        cannot be met by any number.
        """
        sizes, patience = start, 2 * sum(start) + MORE
        while self.near_seed_0 and sum(sizes) < patience and self.rates(sizes, 0).max() > THRESHOLD:
            sizes = self._larger(sizes, by_an_eighth=False)
        while not self.holds(sizes):
            if sum(sizes) == patience and not self.feasible:
                refuse_infeasible(self.spec, range(self.seeds), with_tbt=self.with_tbt)
            if sum(sizes) >= max(patience, self.spec.requests):
                raise ConfigError(
                    f"{self.spec.system} on {self.spec.trace} at {self.spec.load_qps:g} QPS: {sum(sizes)} replicas, "
                    f"one for each request, still miss more than {THRESHOLD:.0%}; relax the SLOs"
                )
            sizes = self._larger(sizes, by_an_eighth=sum(sizes) >= patience)
        while (smaller := next((s for s in _smaller(sizes) if self.holds(s)), None)) is not None:
            sizes = smaller
        return sizes

    def _larger(self, sizes: Sizes, by_an_eighth: bool) -> Sizes:
        """With more replicas where most is violated: one, or an eighth of that pool."""
        worst = int(np.argmax(self.rates(sizes, 0))) if len(sizes) > 1 else 0
        return _changed(sizes, {worst: max(1, sizes[worst] // 8) if by_an_eighth else 1})


def at_fluid_bound(spec: RunSpec) -> Sizes:
    """Replicas per pool at the fluid bound of their share of the load, below which nothing holds for long."""
    source = trace_of(spec)
    bound = fluid_bound_qps(load_card(spec.latency), source.prompt_tokens, source.output_tokens)
    pools = build_system(spec.system, spec.classes).pools
    shares = [sum(c.share for c in spec.classes if p.classes is None or c.name in p.classes) for p in pools]
    return tuple(max(1, int(spec.load_qps * share / bound)) for share in shares)


def _changed(sizes: Sizes, by: dict[int, int]) -> Sizes:
    return tuple(n + by.get(i, 0) for i, n in enumerate(sizes))


def _smaller(sizes: Sizes) -> Iterator[Sizes]:
    """Fleets with one replica less: one pool loses it, or loses two of which another gets one."""
    pools = range(len(sizes))
    steps = [{i: -1} for i in pools] + [{i: -2, j: 1} for i in pools for j in pools if i != j]
    return (fleet for fleet in (_changed(sizes, step) for step in steps) if min(fleet) >= 1)
