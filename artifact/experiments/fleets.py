"""GPUs needed at one load (Fig 1, Table 4): the silo planned pool by pool, shared fleets, and fleets of given size.

A fleet holds when its worst class's violation rate, averaged over seeds, is within the threshold.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.config import ClusterExperiment
from artifact.experiments.planner import Planner, at_fluid_bound
from artifact.runs.recorded import trace_says_classes
from artifact.runs.rows import summary_rows
from artifact.runs.run import run
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.systems import SILO

PLANNED, GIVEN = "planned", "given"


@dataclass
class Fleets:
    """Runs of fleets, each done once: planning and reporting ask for the same ones."""

    seeds: int
    on_run: Callable[[RunSpec], None] | None = None
    done: dict[str, list[dict[str, object]]] = field(default_factory=dict)

    def rows(self, spec: RunSpec, seed: int) -> list[dict[str, object]]:
        """The summary rows of one run."""
        trial = spec.model_copy(update={"seed": seed})
        key = trial.model_dump_json()
        if key not in self.done:
            if self.on_run is not None:
                self.on_run(trial)
            self.done[key] = summary_rows(run(trial))
        return self.done[key]

    def worst(self, spec: RunSpec, seed: int) -> float:
        """The worst class's violation rate, TTFT and TTLT only, as the authors planned."""
        names = {c.name for c in spec.classes}
        return max(r["violation_rate_without_tbt"] for r in self.rows(spec, seed) if r["group"] in names)

    def plan(self, spec: RunSpec) -> int:
        """Fewest replicas of a one-pool system that hold at `spec.load_qps`. ConfigError when no number does.

        Seed 0 finds the neighbourhood: runs of fleets are long.
        """

        def rates(sizes: tuple[int, ...], seed: int) -> np.ndarray:
            return np.array([self.worst(spec.model_copy(update={"replicas": sizes}), seed)])

        if len(start := at_fluid_bound(spec)) > 1:
            raise ConfigError(f"cluster.shared has {spec.system!r} with {len(start)} pools; name systems of one pool")
        planner = Planner(spec, self.seeds, rates, with_tbt=False, near_seed_0=True)
        return planner.plan(start)[0]

    def plan_pools(self, spec: RunSpec) -> tuple[int, ...]:
        """Fewest replicas of each pool of a silo, planned together: where a class cannot be run without the others."""

        def rates(sizes: tuple[int, ...], seed: int) -> np.ndarray:
            rows = self.rows(spec.model_copy(update={"replicas": sizes}), seed)
            by_class = {row["group"]: row["violation_rate_without_tbt"] for row in rows}
            return np.array([by_class.get(c.name, 0.0) for c in spec.classes], float)

        return Planner(spec, self.seeds, rates, with_tbt=False, near_seed_0=True).plan(at_fluid_bound(spec))

    def report(self, spec: RunSpec, sizing: str) -> list[dict[str, object]]:
        """The summary of a fleet, per seed and group, with its size and how that was found."""
        fleet = "-".join(str(n) for n in spec.replicas)
        return [
            {"fleet": fleet, "sizing": sizing, **row} for seed in range(self.seeds) for row in self.rows(spec, seed)
        ]


def cluster(
    experiment: ClusterExperiment, trace_name: str, latency: str, on_run: Callable[[RunSpec], None] | None = None
) -> list[dict[str, object]]:
    """All fleets of the experiment on one trace and latency model."""
    base = experiment.spec(trace_name, latency, SILO)
    fleets = Fleets(experiment.seeds, on_run)
    if trace_says_classes(base):
        sizes = fleets.plan_pools(base)
    else:
        sizes = tuple(fleets.plan(silo_share(base, c)) for c in base.classes)
    rows = fleets.report(base.model_copy(update={"replicas": sizes}), PLANNED)
    for name in experiment.shared:
        spec = base.model_copy(update={"system": name})
        rows += fleets.report(spec.model_copy(update={"replicas": (fleets.plan(spec),)}), PLANNED)
    for name, given in experiment.fleets.items():
        for fleet in given:
            rows += fleets.report(base.model_copy(update={"system": name, "replicas": tuple(fleet)}), GIVEN)
    return rows


def silo_share(base: RunSpec, qos: ClassSpec) -> RunSpec:
    """What the silo's pool for one class sees: that class's share of the load and the requests, alone."""
    return base.model_copy(
        update={
            "classes": (qos.model_copy(update={"share": 1.0}),),
            "load_qps": base.load_qps * qos.share,
            "requests": max(1, round(base.requests * qos.share)),
        }
    )
