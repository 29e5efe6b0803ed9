"""What a simulated engine learns of its predictor, as the vLLM plug-in does: `niyama.latency.correction`, compiled."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from niyama.jit import Numbers, compiled, record
from niyama.latency import ModelCard
from niyama.latency.correction import learned


@dataclass(slots=True)
class Learned(Numbers):
    """How step times differ from predicted ones: `niyama.latency.correction`."""

    scale: float = 1.0
    log_scale: float = 0.0
    spread: float = 0.0
    usual_s: float = 0.0
    steps: int = 0


class Learning(NamedTuple):
    """What a replica's engine learns of its predictor."""

    learned: Any  # Learned, as a record
    unscaled: np.ndarray  # float64; the predictor's coefficients as they were
    times: np.ndarray  # bool; which of them are stretched
    learns: bool  # predictions can be wrong at all
    correct: bool  # they are corrected


def nothing_learned(predictor: ModelCard, learns: bool, correct: bool) -> Learning:
    """At the start. learns: predictions can be wrong at all; correct: they are then corrected."""
    return Learning(record(Learned()), predictor.build().coef, predictor.times(), learns, correct)


@compiled
def learn_step(learning, k, predicted_s, scale, duration_s):
    """A step has ended that took `duration_s`; predicted_s: what it was predicted to take, stretched by `scale`."""
    c = learning.learned
    c.steps += 1
    step_s = predicted_s / scale
    log_ratio = math.log(duration_s / step_s)
    c.log_scale, c.spread, c.usual_s = learned(c.log_scale, c.spread, c.usual_s, c.steps, log_ratio, step_s)
    k.state.totals.step_spread = c.spread
    if learning.correct:
        c.scale = math.exp(c.log_scale)
        for i in range(len(learning.unscaled)):
            if learning.times[i]:
                k.model.coef[i] = learning.unscaled[i] * c.scale
