"""The fewest replicas of a system that hold a question's load, by the search that all planned fleets come from."""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.planner import Planner, Sizes
from artifact.planning.demand import Window, Workloads
from artifact.planning.question import Question, Served, serve, system_of
from artifact.results.metrics import THRESHOLD
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.spec import ClassSpec
from artifact.runs.systems import SILO
from niyama import rules
from niyama.own_rules import source_of

GROWTH = 1.25  # of fleets tried until one holds, before the search proper
MOST_BOUNDS = 20  # fluid bounds: more replicas than that are not looked for


@dataclass(frozen=True)
class Sized:
    """What was found for a system. sizes: of its pools; by_seed: replicas that each seed alone would have."""

    system: str
    sizes: Sizes
    by_seed: tuple[int, ...]

    @property
    def fleet(self) -> str:
        return "-".join(map(str, self.sizes))


class Sizing:
    """Runs of fleets on a question's load, each done once."""

    def __init__(self, question: Question) -> None:
        self.question = question
        self.workloads = Workloads(question)
        self._rates: dict[tuple[object, ...], np.ndarray] = {}

    @property
    def planned(self) -> float:
        """How many times the load the fleet has to hold."""
        return 1.0 + self.question.headroom

    def size(self, system: str) -> Sized:
        """Pool by pool for the silo, each class planned by itself. ConfigError where no number of replicas does."""
        pools = [self._pool(system, qos) for qos in self.pools(system)]
        sizes, by_seed = zip(*pools, strict=True)
        return Sized(system, tuple(sizes), tuple(sum(own) for own in zip(*by_seed, strict=True)))

    def pools(self, system: str) -> list[ClassSpec | None]:
        """The class of each pool that is planned by itself; None: all."""
        return list(self.question.classes) if system == SILO else [None]

    def _pool(self, system: str, qos: ClassSpec | None) -> tuple[int, tuple[int, ...]]:
        """Replicas of a pool, and those that each seed alone would have."""
        question = self.question
        floor = self.floor(system, qos, self.planned)
        least = floor if question.sustained else 1
        classes = None if qos is None else (qos.model_copy(update={"share": 1.0}),)
        spec = question.spec(system, classes)

        def rates(sizes: Sizes, seed: int) -> np.ndarray:
            if sizes[0] < least:
                return np.ones(1)
            return np.array([np.nanmax(self.rates(system, sizes, seed, self.planned, qos))])

        options = {"with_tbt": question.with_tbt, "near_seed_0": True, "feasible": True}
        start = self._start(spec.system, floor, rates)
        (found,) = Planner(spec, question.seeds, rates, **options).plan((start,))
        alone = [
            Planner(spec, 1, lambda sizes, _, seed=seed: rates(sizes, seed), **options).plan((found,))[0]
            for seed in range(question.seeds)
        ]
        return found, tuple(alone)

    def _start(self, system: str, floor: int, rates: object) -> int:
        """The fewest that hold by the first seed, nearly: the search proper goes on from there."""
        low, high = floor - 1, floor
        while rates((high,), 0).max() > THRESHOLD:  # type: ignore[operator]
            if high > MOST_BOUNDS * floor:
                raise ConfigError(
                    f"{system} at {self.question.mean_qps * self.planned:g} QPS: {high} replicas still miss more than "
                    f"{THRESHOLD:.0%} of a class, {MOST_BOUNDS} times what the work alone takes; relax the SLOs"
                )
            low, high = high, max(high + 1, int(high * GROWTH))
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if rates((middle,), 0).max() > THRESHOLD else (low, middle)  # type: ignore[operator]
        return high

    def falls_behind(self, system: str, sizes: Sizes, times: float) -> str | None:
        """What piles up at `times` the load, although a run may end before that shows; None: nothing does."""
        for size, qos in zip(sizes, self.pools(system), strict=True):
            if self.question.sustained and size < self.floor(system, qos, times):
                return "work piles up" if qos is None else f"work of {qos.name} piles up"
        return None

    def floor(self, system: str, qos: ClassSpec | None, times: float) -> int:
        """Replicas at the fluid bound of `times` what is simulated: fewer only seem to hold, because a run ends."""
        requests = self.workloads.requests(0, 1.0, qos)
        (pool, *_) = system_of(system, (qos,) if qos else self.question.classes, None, self.question.card).pools
        shared = source_of(pool.policy.prefill_budget) is source_of(rules.fixed_chunk)
        lengths, chunk = (requests.prompt_tokens, requests.output_tokens), pool.policy.max_chunk_tokens
        bound = fluid_bound_qps(self.question.card, *lengths, chunk, shared, chunk_step=8)
        demand = self.workloads.demand
        whole = self.question.mean_qps if demand is None else demand.window.requests / _length_s(demand.window)
        return max(1, ceil(whole * times * (qos.share if qos else 1.0) / bound - 1e-9)) if bound else 1

    def rates(self, system: str, sizes: Sizes, seed: int, times: float, qos: ClassSpec | None = None) -> np.ndarray:
        """float64[classes]: violation rates of a fleet at `times` the load; qos: of the pool of that class alone.

        Of all that is simulated, or of its busiest bin where that is worse.
        """
        key = system, sizes, seed, times, qos and qos.name
        if key not in self._rates:
            done, demand = self.served(system, sizes, seed, times, qos), self.workloads.demand
            found = done.rates(self.question.with_tbt)
            if demand is not None:
                at_peak = demand.bins_of(done.requests.arrival_s) == demand.peak
                found = np.fmax(found, done.rates(self.question.with_tbt, at_peak))
            self._rates[key] = found
        return self._rates[key]

    def served(
        self,
        system: str,
        sizes: Sizes,
        seed: int,
        times: float,
        qos: ClassSpec | None = None,
        window: Window | None = None,
    ) -> Served:
        """One run of a fleet."""
        classes = (qos,) if qos else self.question.classes
        fleet = system_of(system, classes, sizes, self.question.card)
        return serve(self.question, fleet, system, self.workloads.requests(seed, times, qos, window), seed)


def _length_s(window: Window) -> float:
    return window.end_s - window.start_s
