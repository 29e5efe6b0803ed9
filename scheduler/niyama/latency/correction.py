"""How measured step times differ from predicted ones, learned step by step: by what factor, and how widely."""

from __future__ import annotations

import math

from niyama.jit import compiled

WEIGHT = 0.05  # of a new measurement; some 50 steps of the usual length to follow a change
SURPRISE = 1.0  # a single step moves both by no more than WEIGHT times this, in log units: pauses are not speed


@compiled
def learned(log_scale, spread, usual_s, steps, log_ratio, step_s):
    """The first three after one more step, which was predicted to take `step_s`, uncorrected.

    log_ratio: logarithm of measured over predicted time; log_scale: its running mean; spread: that of its absolute
    deviation from there; usual_s: that of `step_s`; steps: how many, this one included. A step counts by its predicted
    time, up to `usual_s`: when 200 steps of decodes take 3 ms each and 10 chunks 150 ms each, the chunks keep the
    engine busy and decide whether deadlines hold.
    """
    if steps == 1:
        usual_s = step_s
    surprise = max(-SURPRISE, min(SURPRISE, log_ratio - log_scale))
    weight = max(WEIGHT, 1.0 / (steps + 9)) * min(1.0, step_s / usual_s)
    return (
        log_scale + weight * surprise,
        spread + weight * (abs(surprise) - spread),
        usual_s + weight * (step_s - usual_s),
    )


class Correction:
    """What has been learned of one engine's steps, changed by `learn`."""

    def __init__(self, correct: bool) -> None:
        self.correct, self.steps = correct, 0
        self.log_scale = self.spread = self.usual_s = 0.0

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
        step_s = predicted_s / scale
        before = self.log_scale, self.spread, self.usual_s, self.steps
        self.log_scale, self.spread, self.usual_s = learned(*before, math.log(measured_s / step_s), step_s)
