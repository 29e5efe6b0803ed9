"""How measured step times differ from predicted ones, learned step by step: by what factor, and how widely."""

from __future__ import annotations

import math

from niyama.jit import compiled

WEIGHT = 0.05  # of a new measurement; some 50 steps to follow a change
SURPRISE = 1.0  # a single step moves both by no more than WEIGHT times this, in log units: pauses are not speed


@compiled
def learned(log_scale, spread, steps, log_ratio):
    """Both after one more step, the logarithm of whose time over that of the uncorrected prediction is `log_ratio`.

    log_scale: running mean of that; spread: of its absolute deviation from there; steps: this one included.
    """
    surprise = max(-SURPRISE, min(SURPRISE, log_ratio - log_scale))
    weight = max(WEIGHT, 1.0 / (steps + 9))
    return log_scale + weight * surprise, spread + weight * (abs(surprise) - spread)


class Correction:
    """What has been learned of one engine's steps, changed by `learn`."""

    def __init__(self, correct: bool) -> None:
        self.correct, self.steps = correct, 0
        self.log_scale = self.spread = 0.0

    @property
    def scale(self) -> float:
        """By what predictions are stretched: measured over predicted step time, or 1 if nothing is to be corrected."""
        return math.exp(self.log_scale) if self.correct else 1.0

    @property
    def told(self) -> tuple[float, float]:
        """What the scheduler is told in its `Timing`: scale and spread."""
        return self.scale, self.spread

    def learn(self, measured_s: float, predicted_s: float, scale: float) -> None:
        """A step has ended. predicted_s: when the predictor was stretched by `scale`."""
        self.steps += 1
        log_ratio = math.log(measured_s * scale / predicted_s)
        self.log_scale, self.spread = learned(self.log_scale, self.spread, self.steps, log_ratio)
