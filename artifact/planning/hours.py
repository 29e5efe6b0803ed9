"""Replicas over time: what each bin of the trace needs, and what starting and stopping replicas by it would save.

Rule: a pool needs its planned replicas in the busiest bin, and in others as many as the bin's work is of that, rounded
up, at least one. Two of these numbers are tried by simulation, the least and the middle one; where one does not hold,
one more is taken. A replica is started `cold_start_s` before it is needed and paid from then on: this knows the load
beforehand; an autoscaler that follows it saves less.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import ceil

import numpy as np

from artifact.planning.sizing import Sized, Sizing
from artifact.results.metrics import THRESHOLD

TRIED_SHARE = 4  # a tried bin is simulated with at most a run's requests over that
GRID_S = 5.0  # of times when what is paid for is asked
MOST_POINTS = 200_000


@dataclass(frozen=True)
class Hours:
    """Replicas needed in each bin, all pools together. tried: bin, replicas and whether they held, in a simulation.

    scaled: mean replicas that are paid for when they follow the bins; fixed: when they do not.
    """

    replicas: tuple[int, ...]
    tried: tuple[tuple[int, int, bool], ...]
    scaled: float
    fixed: int

    @property
    def saved(self) -> float:
        """Share of the GPU-hours."""
        return 1.0 - self.scaled / self.fixed


def hours_of(sizing: Sizing, sized: Sized) -> Hours:
    """What a planned fleet needs bin by bin."""
    demand = sizing.workloads.demand
    assert demand is not None
    share = demand.work / demand.work[demand.peak]
    need = np.array([[min(n, max(1, ceil(n * s - 1e-9))) for n in sized.sizes] for s in share])
    tried = []
    for total in _to_try(need.sum(axis=1), sum(sized.sizes)):
        alike = np.flatnonzero(need.sum(axis=1) == total)
        b = int(alike[np.argmax(demand.work[alike])])
        held = _holds(sizing, sized.system, tuple(int(n) for n in need[b]), b)
        tried.append((b, int(total), held))
        if not held:
            need[alike] = np.minimum(need[alike] + 1, sized.sizes)
    paid = sum(_paid(need[:, i], demand.bin_s, sizing.question.cold_start_s) for i in range(need.shape[1]))
    return Hours(tuple(int(n) for n in need.sum(axis=1)), tuple(tried), float(paid), sum(sized.sizes))


def _to_try(totals: np.ndarray, planned: int) -> list[int]:
    """The least and the middle number of replicas below the planned one, the larger first."""
    below = sorted({int(n) for n in totals if n < planned})
    return sorted({below[0], below[len(below) // 2]}, reverse=True) if below else []


def _holds(sizing: Sizing, system: str, sizes: tuple[int, ...], b: int) -> bool:
    demand = sizing.workloads.demand
    assert demand is not None
    window = demand.window_of(b, max(1, sizing.question.most_requests // TRIED_SHARE))
    done = sizing.served(system, sizes, 0, sizing.planned, window=window)
    return bool(np.nanmax(done.rates(sizing.question.with_tbt)) <= THRESHOLD)


def _paid(need: np.ndarray, bin_s: float, cold_start_s: float) -> float:
    """Mean replicas that are paid for: at any time the most that is needed until a cold start later."""
    span_s = bin_s * len(need)
    grid_s = max(GRID_S, span_s / MOST_POINTS)
    at = np.minimum((np.arange(0.0, span_s, grid_s) / bin_s).astype(int), len(need) - 1)
    paid, ahead_s = need[at].copy(), 0.0
    while ahead_s < cold_start_s:
        ahead_s = min(ahead_s + bin_s / 2, cold_start_s)
        later = np.minimum(((np.arange(len(at)) * grid_s + ahead_s) / bin_s).astype(int), len(need) - 1)
        paid = np.maximum(paid, need[later])
    return float(paid.mean())
