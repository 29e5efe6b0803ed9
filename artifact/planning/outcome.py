"""What one system needs: its fleet, what it holds beyond the planned load, and how its classes fare at the peak."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.capacity import CRITERIA, Search, crossings
from artifact.experiments.planner import Sizes
from artifact.planning.feasibility import impossible
from artifact.planning.hours import Hours, hours_of
from artifact.planning.question import HOURS_A_MONTH, Question
from artifact.planning.sizing import Sized, Sizing
from artifact.runs.spec import RunSpec
from figures.estimates import Estimate, estimate

LOAD_STEP = 0.05  # of the load that is planned for: where the first class breaks is looked for on such a grid
MOST_LOAD = 3.0  # times the planned load: nothing breaks is what is said beyond


@dataclass(frozen=True)
class Outcome:
    """An answer for a system; reason: why no number of GPUs does, and then nothing else is there.

    breaks: times the load, without headroom, at which the first class crosses the threshold. attained: share of each
    class's requests within all SLOs, at the load itself.
    """

    system: str
    gpus_per_replica: int
    sized: Sized | None = None
    breaks: Estimate | None = None
    first_class: str | None = None
    attained: dict[str, float] | None = None
    hours: Hours | None = None
    reason: str | None = None

    @property
    def gpus(self) -> int | None:
        return None if self.sized is None else sum(self.sized.sizes) * self.gpus_per_replica

    @property
    def gpus_by_seed(self) -> tuple[int, ...]:
        return () if self.sized is None else tuple(n * self.gpus_per_replica for n in self.sized.by_seed)


def outcome(question: Question, system: str) -> Outcome:
    """Plan one system."""
    sizing, gpus = Sizing(question), question.card.gpus
    try:
        if found := impossible(sizing, system):
            return Outcome(system, gpus, reason="; ".join(found))
        sized = sizing.size(system)
    except ConfigError as error:
        return Outcome(system, gpus, reason=str(error))
    breaks, first = first_break(sizing, sized)
    hours = None if sizing.workloads.demand is None else hours_of(sizing, sized)
    return Outcome(system, gpus, sized, breaks, first, attained(sizing, system, sized.sizes), hours)


def first_break(sizing: Sizing, sized: Sized) -> tuple[Estimate | None, str | None]:
    """Times the load at which the planned fleet's first class crosses the threshold, over seeds, and that class.

    Or from which on more work arrives than the fleet can do: then what piles up, in place of the class.
    """
    question = sizing.question
    mean, criterion = question.mean_qps, CRITERIA[0 if question.with_tbt else 1]

    def rates(spec: RunSpec) -> dict[str, float]:
        times = spec.load_qps / mean
        if sizing.falls_behind(sized.system, sized.sizes, times) is not None:
            return {criterion: 1.0}
        return {criterion: float(np.nanmax(sizing.rates(sized.system, sized.sizes, spec.seed, times)))}

    search = Search(question.spec(sized.system), LOAD_STEP * mean, measure=rates)
    ((_, found),) = crossings(search, [criterion], question.seeds, mean, sizing.planned * mean, MOST_LOAD * mean)
    over = found[0].fails_qps
    if over is None:
        return None, None
    breaks = estimate([crossing.capacity_qps for crossing in found])
    first = sizing.falls_behind(sized.system, sized.sizes, over / mean)
    if first is None:
        worst = np.nan_to_num(sizing.rates(sized.system, sized.sizes, 0, over / mean))
        first = question.names[int(np.argmax(worst))]
    return breaks and breaks.scaled(1.0 / mean), first


def attained(sizing: Sizing, system: str, sizes: Sizes) -> dict[str, float]:
    """Share of each class's requests within its SLOs at the load itself, as `Sizing.rates` counts; mean over seeds."""
    question = sizing.question
    means = 1.0 - np.mean([sizing.rates(system, sizes, seed, 1.0) for seed in range(question.seeds)], axis=0)
    return {name: float(mean) for name, mean in zip(question.names, means, strict=True) if not np.isnan(mean)}


def usd_a_month(gpus: float, gpu_hour_usd: float) -> float:
    """Of GPUs that are always on."""
    return gpus * gpu_hour_usd * HOURS_A_MONTH
