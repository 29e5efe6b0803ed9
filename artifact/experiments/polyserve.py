"""Fig 15b by planning: fewest GPUs that hold one load of two interactive classes, as their mix changes.

A fleet holds when its worst class's violation rate, averaged over seeds and token deadlines (Eq 2) included, is within
the threshold: two classes that differ in their TBT alone cannot be told apart without it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from artifact.experiments.alone import Growth
from artifact.experiments.panel_config import Fleets
from artifact.results import metrics
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.rows import identity
from artifact.runs.run import run, trace
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system
from niyama import load_card

Sizes = tuple[int, ...]


@dataclass
class Planner:
    """Runs of one system on one mix, each done once."""

    spec: RunSpec  # its replicas are replaced by each fleet's
    seeds: int
    rates: dict[tuple[Sizes, int], np.ndarray] = field(default_factory=dict)
    about: dict[str, object] = field(default_factory=dict)

    def rate(self, sizes: Sizes, seed: int) -> np.ndarray:
        """float64[classes]: violation rates of one run; a class that nobody was in has none."""
        if (sizes, seed) not in self.rates:
            spec = self.spec.model_copy(update={"replicas": sizes, "seed": seed})
            done = run(spec)
            columns = metrics.request_columns(done.requests, done.run)
            self.rates[sizes, seed] = np.nan_to_num(metrics.violation_rates(done.requests, columns)[0])
            self.about = {name: value for name, value in identity(done).items() if name not in ("seed", "replicas")}
        return self.rates[sizes, seed]

    def mean(self, sizes: Sizes) -> np.ndarray:
        """The rates, averaged over seeds."""
        return np.mean([self.rate(sizes, seed) for seed in range(self.seeds)], axis=0)

    def holds(self, sizes: Sizes) -> bool:
        """Whether the worst class is within the threshold; stops at the first seed that settles it."""
        total = np.zeros(len(self.spec.classes))
        for seed in range(self.seeds):
            total += self.rate(sizes, seed)
            if total.max() > metrics.THRESHOLD * self.seeds:
                return False
        return True

    def plan(self, start: Sizes) -> Sizes:
        """From `start`, up by one replica at a time until it holds, then down while a smaller fleet does.

        With several pools, up where the class with most violations is at home, down wherever one less still holds:
        a fleet of which no pool can spare a replica. Smaller ones that trade replicas between pools are tried too.
        ConfigError when a class cannot be met by any number.
        """
        sizes, growth = start, Growth(self.spec, self.seeds, sum(start), with_tbt=True)
        while not self.holds(sizes):
            worst = int(np.argmax(self.rate(sizes, 0))) if len(sizes) > 1 else 0
            sizes = _changed(sizes, {worst: growth.after(sum(sizes), sizes[worst])})
        while (smaller := next((s for s in _smaller(sizes) if self.holds(s)), None)) is not None:
            sizes = smaller
        return sizes


def _changed(sizes: Sizes, by: dict[int, int]) -> Sizes:
    return tuple(n + by.get(i, 0) for i, n in enumerate(sizes))


def _smaller(sizes: Sizes) -> Iterator[Sizes]:
    """Fleets with one replica less: one pool loses it, or loses two of which another gets one."""
    pools = range(len(sizes))
    steps = [{i: -1} for i in pools] + [{i: -2, j: 1} for i in pools for j in pools if i != j]
    return (fleet for fleet in (_changed(sizes, step) for step in steps) if min(fleet) >= 1)


def polyserve_fleets(panel: Fleets, latency: str) -> list[dict[str, object]]:
    """A row per system and share of the first class: the planned fleet, its GPUs and its violation rates."""
    source = trace(panel.trace)
    bound = fluid_bound_qps(load_card(latency), source.prompt_tokens, source.output_tokens)
    rows = []
    for share in panel.shares:
        mix = panel.mix(share)
        for system in panel.systems:
            pools = build_system(system, mix).pools
            spec = RunSpec(
                trace=panel.trace,
                system=system,
                load_qps=float(panel.load_qps),
                requests=panel.requests,
                latency=latency,
                classes=mix,
            )
            planner = Planner(spec, panel.seeds)
            own = [sum(c.share for c in mix if p.classes is None or c.name in p.classes) for p in pools]
            sizes = planner.plan(tuple(max(1, int(panel.load_qps * part / bound)) for part in own))
            rows.append(
                {
                    **planner.about,
                    "seeds": panel.seeds,
                    "share": float(share),
                    "fleet": "-".join(map(str, sizes)),
                    "gpus": sum(sizes),
                    **{f"violation_rate_{c.name}": float(r) for c, r in zip(mix, planner.mean(sizes), strict=True)},
                }
            )
    return rows
