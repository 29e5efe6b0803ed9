"""When the step in flight will end, and how far measured step times are from predicted ones."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from niyama.latency.correction import Correction

MIN_STEP_S = 1e-4
SURE_AFTER = 200  # steps
FITS_WITHIN = math.log(1.25)


@dataclass(slots=True)
class Step:
    """A step in flight, in seconds; predicted_s is the latency model's time, stretched by `scale`."""

    scheduled_s: float
    began_s: float
    predicted_s: float
    scale: float
    prefill_tokens: int
    decodes: int

    @property
    def ends_s(self) -> float:
        """Predicted end."""
        return self.began_s + self.predicted_s


class StepClock:
    """Follows the steps of one engine, in the order they were scheduled."""

    def __init__(self, correct: bool) -> None:
        self.correction = Correction(correct)
        self.flying: deque[Step] = deque()
        self.last: Step | None = None
        self._last_end_s = 0.0

    def next_begin_s(self, now_s: float) -> float:
        """When a step scheduled now would begin: after all that are in flight."""
        return max(now_s, self.flying[-1].ends_s) if self.flying else now_s

    def scheduled(
        self, scheduled_s: float, begins_s: float, predicted_s: float, prefill_tokens: int, decodes: int
    ) -> None:
        """A step went off; predicted_s: by the latency model as it is corrected now."""
        self.last = Step(scheduled_s, begins_s, predicted_s, self.correction.scale, prefill_tokens, decodes)
        self.flying.append(self.last)

    def ended(self, now_s: float) -> tuple[float, float, Step]:
        """The oldest step in flight has ended: seconds it was predicted to take, seconds it took, and the step."""
        step = self.flying.popleft()
        step.began_s = max(step.scheduled_s, self._last_end_s)
        measured_s = now_s - step.began_s
        self._last_end_s = now_s
        if step.prefill_tokens + step.decodes > 0 and measured_s > MIN_STEP_S:
            self.correction.learn(measured_s, step.predicted_s, step.scale)
        predicted_s, step.predicted_s = step.predicted_s, measured_s  # now it is known
        begins_s = now_s
        for later in self.flying:
            later.began_s = max(later.scheduled_s, begins_s)
            begins_s = later.ends_s
        return predicted_s, measured_s, step

    def misfit(self) -> str | None:
        """What is wrong with the latency profile, once that is sure; None while it fits."""
        learned = self.correction
        if learned.steps < SURE_AFTER:
            return None
        if abs(learned.log_scale) > FITS_WITHIN:
            return f"steps take {math.exp(learned.log_scale):.2f} times as long as the profile says"
        if learned.spread > FITS_WITHIN:
            return f"step times are {math.exp(learned.spread) - 1:.0%} off the profile on average, in both directions"
        return None
