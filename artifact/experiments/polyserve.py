"""Fig 15b by planning: fewest GPUs that hold one load of two interactive classes, as their mix changes.

A fleet holds when its worst class's violation rate, averaged over seeds and token deadlines (Eq 2) included, is within
the threshold: two classes that differ in their TBT alone cannot be told apart without it.
"""

from __future__ import annotations

from functools import cache

import numpy as np

from artifact.experiments.alone import class_rates
from artifact.experiments.panel_config import Fleets
from artifact.experiments.planner import Planner, Sizes, at_fluid_bound
from artifact.runs.rows import identity_of
from artifact.runs.run import BACKEND, run, trace_of
from artifact.runs.spec import RunSpec


def polyserve_fleets(panel: Fleets, latency: str) -> list[dict[str, object]]:
    """A row per system and share of the first class: the planned fleet, its GPUs and its violation rates."""
    one = {"trace": panel.trace, "load_qps": float(panel.load_qps), "requests": panel.requests, "latency": latency}
    return [
        _row(RunSpec(**one, system=system, classes=panel.mix(share)), panel.seeds, float(share))
        for share in panel.shares
        for system in panel.systems
    ]


def _row(spec: RunSpec, seeds: int, share: float) -> dict[str, object]:
    @cache
    def rates(sizes: Sizes, seed: int) -> np.ndarray:
        return class_rates(run(spec.model_copy(update={"replicas": sizes, "seed": seed})), with_tbt=True)

    sizes = Planner(spec, seeds, rates, with_tbt=True).plan(at_fluid_bound(spec))
    about = identity_of(spec, BACKEND, trace_of(spec).name, sum(sizes))
    means = np.mean([rates(sizes, seed) for seed in range(seeds)], axis=0)
    return {
        **{name: value for name, value in about.items() if name not in ("seed", "replicas")},
        "seeds": seeds,
        "share": share,
        "fleet": "-".join(map(str, sizes)),
        "gpus": sum(sizes),
        **{f"violation_rate_{c.name}": float(rate) for c, rate in zip(spec.classes, means, strict=True)},
    }
