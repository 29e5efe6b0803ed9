"""Capacity: the load at which the worst class crosses the threshold, per seed, with its bracket and an interval.

Loads are multiples of a step. Each seed's crossing is bisected on that grid and interpolated inside its bracket;
seeds share the workload (common random numbers), so the next seed starts from the last one's bracket.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field

import numpy as np

from artifact.results import metrics
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import run, trace_of
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.systems import build_system, silo_pool
from figures.estimates import estimate
from niyama import load_card
from niyama.sim import Requests

CRITERIA = ("violation_rate", "violation_rate_without_tbt")
Row = dict[str, object]
HEADROOM = 2.0  # finite runs can exceed the fluid bound; nothing is searched beyond this multiple of it


@dataclass(frozen=True)
class Crossing:
    """One seed's answer. `capacity_qps` is None when the threshold is not crossed between the searched loads."""

    seed: int
    capacity_qps: float | None
    passes_qps: float | None  # highest load seen to hold
    fails_qps: float | None  # lowest load above it seen to fail


def worst_rates(requests: Requests, columns: dict[str, np.ndarray]) -> dict[str, float]:
    """The worst class's violation rate by each of CRITERIA."""
    rates = metrics.violation_rates(requests, columns)
    return {name: float(np.nanmax(rate)) for name, rate in zip(CRITERIA, rates, strict=True)}


def worst_rates_of_run(spec: RunSpec) -> dict[str, float]:
    """`worst_rates` of one run."""
    done = run(spec)
    return worst_rates(done.requests, metrics.request_columns(done.requests, done.run))


@dataclass
class Search:
    """Worst-class violation rates by (load, seed), run when first asked for; `points` keeps them all.

    `measure` runs one specification and answers a rate for each criterion it is asked about.
    """

    spec: RunSpec
    step_qps: float
    on_run: Callable[[RunSpec], None] | None = None
    measure: Callable[[RunSpec], dict[str, float]] = worst_rates_of_run
    points: dict[tuple[int, int], dict[str, float]] = field(default_factory=dict)

    def rate(self, k: int, seed: int, criterion: str) -> float:
        """Worst class's violation rate at load k * step."""
        if (k, seed) not in self.points:
            spec = self.spec.model_copy(update={"load_qps": self.load(k), "seed": seed})
            if self.on_run is not None:
                self.on_run(spec)
            self.points[k, seed] = self.measure(spec)
        return self.points[k, seed][criterion]

    def load(self, k: int) -> float:
        return round(k * self.step_qps, 10)

    def crossing(self, seed: int, criterion: str, guess: int, top: int) -> Crossing:
        """Find the seed's crossing between 1 and `top` grid steps, starting near `guess`."""

        def fails(k: int) -> bool:
            return self.rate(k, seed, criterion) > metrics.THRESHOLD

        low, high, stride = guess, guess, 1
        if fails(guess):
            while low >= 1 and fails(low):
                high, low, stride = low, low - stride, 2 * stride
            low = max(low, 0)  # load 0 holds by definition, but is no measurement
        else:
            while high <= top and not fails(high):
                low, high, stride = high, high + stride, 2 * stride
            if high > top:
                if low == top or not fails(top):
                    return Crossing(seed, None, self.load(max(low, top)), None)
                high = top
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (low, middle) if fails(middle) else (middle, high)
        if low == 0:
            return Crossing(seed, None, None, self.load(high))
        a, b = self.rate(low, seed, criterion), self.rate(high, seed, criterion)
        share = (metrics.THRESHOLD - a) / (b - a)
        capacity = self.load(low) + share * (self.load(high) - self.load(low))
        return Crossing(seed, capacity, self.load(low), self.load(high))


def crossings(
    search: Search,
    criteria: Iterable[str],
    seeds: int,
    bound: float,
    guess_qps: float | None,
    most_qps: float | None = None,
    near: str = "capacity_qps",
) -> Iterator[tuple[str, list[Crossing]]]:
    """Each criterion's crossings, seed by seed, at loads up to `most_qps`, else HEADROOM times the fluid bound.

    The first starts at `guess_qps`, else below the bound; the next ones at the last answer's number called `near`.
    """
    top = max(2, math.ceil((most_qps or HEADROOM * bound) / search.step_qps))

    def step_at(qps: float) -> int:
        return min(top, max(1, round(qps / search.step_qps)))

    guess = step_at(guess_qps or 0.7 * bound)
    for criterion in criteria:
        found = []
        for seed in range(seeds):
            found.append(search.crossing(seed, criterion, guess, top))
            if (qps := getattr(found[-1], near)) is not None:
                guess = step_at(qps)
        yield criterion, found


def in_turn(
    specs: Iterable[RunSpec],
    find: Callable[[RunSpec, float | None], list[Row]],
    near: Mapping[str, float | None] | None = None,
) -> Iterator[list[Row]]:
    """The rows of one search after the other; each starts at its system's answer in `near`, else at the last one's."""
    guess = None
    for spec in specs:
        found = find(spec, (near or {}).get(spec.system, guess))
        guess = found[0]["capacity_qps"] or guess
        yield found


def find_capacity(
    spec: RunSpec,
    seeds: int,
    step_qps: float,
    guess_qps: float | None = None,
    on_run: Callable[[RunSpec], None] | None = None,
    most_qps: float | None = None,
) -> list[Row]:
    """One row per criterion: capacity_qps (mean over seeds) with interval, bracket, bound and the seeds' values.

    The loads are those offered to the whole system, up to `most_qps`; null when a seed saw no crossing.
    """
    source = trace_of(spec)
    system = build_system(spec.system, spec.classes, spec.replicas, spec.routing, spec.policy)
    bound = system.replicas * fluid_bound_qps(load_card(spec.latency), source.prompt_tokens, source.output_tokens)
    # the authors' criterion first: its crossings are near the guess
    found = crossings(Search(spec, step_qps, on_run), reversed(CRITERIA), seeds, bound, guess_qps, most_qps)
    return [capacity_row(spec, name, own, bound, system.replicas, source.name) for name, own in found]


def capacity_row(
    spec: RunSpec, criterion: str, found: list[Crossing], bound: float, replicas: int, trace_name: str
) -> Row:
    """What the seeds' crossings come to; `bound`: the fluid bound of all replicas."""
    lows, highs = [c.passes_qps for c in found], [c.fails_qps for c in found]
    return {
        "trace": trace_name,
        "system": spec.system,
        "latency": spec.latency_name,
        "predictor": spec.predictor_label,
        "requests": spec.requests,
        "seeds": len(found),
        "criterion": criterion,
        **_statistics([c.capacity_qps for c in found], replicas),
        "passes_qps": None if None in lows else min(lows),
        "fails_qps": None if None in highs else max(highs),
        "fluid_bound_qps": bound,
        "replicas": replicas,
    }


def _statistics(values: list[float | None], replicas: int) -> dict[str, object]:
    """Mean over seeds and its interval; null unless every seed has a value."""
    found = estimate(values)
    return {
        "capacity_qps": found and found.mean,
        "capacity_qps_per_replica": found and found.mean / replicas,
        "interval_low_qps": found and found.low,
        "interval_high_qps": found and found.high,
        "seed_capacity_qps": values,
    }


def silo_capacity(spec: RunSpec, seeds: int, step_qps: float, guess_qps: float | None = None, **more) -> list[dict]:
    """Goodput per GPU of a silo whose pools are sized exactly: each class's pool alone, combined by its share.

    Fractional GPUs are allowed, so a real fleet does no better. A pool counts for at most its own fluid bound: a
    short run's batch pool can exceed it unpunished, but could not go on. Rows as in `find_capacity`.
    """
    shares = {c.name: c.share for c in spec.classes}
    bounds = {c.name: _pool_bound(spec, c) for c in spec.classes}
    per_class = {}
    for c in spec.classes:
        alone = {"classes": (c.model_copy(update={"share": 1.0}),), "requests": max(1, round(spec.requests * c.share))}
        pool = spec.model_copy(update={**alone, "replicas": None})
        per_class[c.name] = find_capacity(pool, seeds, step_qps, guess_qps, most_qps=bounds[c.name], **more)
    rows = []
    for parts in zip(*per_class.values(), strict=True):
        by_name = dict(zip(per_class, parts, strict=True))
        values = [
            _combine({name: row["seed_capacity_qps"][seed] for name, row in by_name.items()}, bounds, shares)
            for seed in range(seeds)
        ]
        rows.append(
            {
                **parts[0],
                "requests": spec.requests,
                **_statistics(values, 1),
                "passes_qps": _combine({n: r["passes_qps"] for n, r in by_name.items()}, bounds, shares),
                "fails_qps": _combine({n: r["fails_qps"] for n, r in by_name.items()}, bounds, shares),
            }
        )
    return rows


def _pool_bound(spec: RunSpec, qos: ClassSpec) -> float:
    """The fluid bound of the silo's pool for one class, with that pool's chunk."""
    source, chunk = trace_of(spec), silo_pool(qos, 1, spec.policy).policy.max_chunk_tokens
    return fluid_bound_qps(load_card(spec.latency), source.prompt_tokens, source.output_tokens, chunk, True)


def _combine(per_class: dict[str, float | None], bounds: dict[str, float], shares: dict[str, float]) -> float:
    """Requests/s per GPU of pools of these capacities per GPU (None: beyond their bound), sized by the shares."""
    limited = {name: bounds[name] if qps is None else min(qps, bounds[name]) for name, qps in per_class.items()}
    return 1.0 / sum(share / limited[name] for name, share in shares.items())
