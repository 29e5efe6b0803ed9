"""When the step in flight will end, how far measured step times are from predicted ones, and what the encoder takes."""

from __future__ import annotations

import math
from collections import deque
from dataclasses import dataclass

from niyama.latency.correction import Correction

MIN_STEP_S = 1e-4
SURE_AFTER = 200  # steps
FITS_WITHIN = math.log(1.25)
ENCODER_STEPS = 31  # steps with encoder inputs that are remembered


@dataclass(slots=True)
class Step:
    """A step in flight, in seconds; predicted_s is the latency model's time, stretched by `scale`, and extra_s, what
    the encoder takes for `embeds` embeddings and the KV connector for `loaded` tokens.
    """

    scheduled_s: float
    began_s: float
    predicted_s: float
    scale: float
    prefill_tokens: int
    decodes: int
    embeds: int = 0
    loaded: int = 0
    extra_s: float = 0.0

    @property
    def ends_s(self) -> float:
        """Predicted end."""
        return self.began_s + self.predicted_s


class ExtraTime:
    """Seconds per embedding that the encoder of images, video and audio takes, or per token of KV that is loaded within
    a step: as given, else as lately measured.
    """

    def __init__(self, given: float | None, *, learn: bool) -> None:
        self.each_s = given or 0.0
        self._learn = learn and given is None
        self._seen: deque[tuple[float, int]] = deque(maxlen=ENCODER_STEPS)

    def learn(self, extra_s: float, count: int) -> None:
        """A step with so many of them took that much longer than the latency model says for the rest of it.

        The median over embeddings: a pause or a few small images, whose steps' other errors weigh most, count little.
        """
        if not self._learn:
            return
        self._seen.append((max(0.0, extra_s) / count, count))
        left = sum(n for _, n in self._seen) / 2
        for each_s, n in sorted(self._seen):
            left -= n
            if left <= 0:
                self.each_s = each_s
                return


class StepClock:
    """Follows the steps of one engine, in the order they were scheduled."""

    def __init__(self, correct: bool, encoder_s_per_embed: float | None = None) -> None:
        self.correction, self.encoder = Correction(correct), ExtraTime(encoder_s_per_embed, learn=correct)
        self.store = ExtraTime(None, learn=correct)
        self.flying: deque[Step] = deque()
        self.last: Step | None = None
        self._last_end_s = 0.0

    def next_begin_s(self, now_s: float) -> float:
        """When a step scheduled now would begin: after all that are in flight."""
        return max(now_s, self.flying[-1].ends_s) if self.flying else now_s

    def scheduled(
        self,
        scheduled_s: float,
        begins_s: float,
        model_s: float,
        prefill_tokens: int,
        decodes: int,
        embeds: int = 0,
        loaded: int = 0,
    ) -> None:
        """A step went off; model_s: by the latency model as it is corrected now."""
        extra_s = embeds * self.encoder.each_s + loaded * self.store.each_s
        counts, scale = (prefill_tokens, decodes), self.correction.scale
        self.last = Step(scheduled_s, begins_s, model_s + extra_s, scale, *counts, embeds, loaded, extra_s)
        self.flying.append(self.last)

    def ended(self, now_s: float) -> tuple[float, float, Step]:
        """The oldest step in flight has ended: seconds it was predicted to take, seconds it took, and the step."""
        step = self.flying.popleft()
        step.began_s = max(step.scheduled_s, self._last_end_s)
        measured_s = now_s - step.began_s
        self._last_end_s = now_s
        if step.prefill_tokens + step.decodes > 0 and measured_s > MIN_STEP_S:
            self._learn(step, measured_s)
        predicted_s, step.predicted_s = step.predicted_s, measured_s  # now it is known
        begins_s = now_s
        for later in self.flying:
            later.began_s = max(later.scheduled_s, begins_s)
            begins_s = later.ends_s
        return predicted_s, measured_s, step

    def _learn(self, step: Step, measured_s: float) -> None:
        """From a step with encoder inputs or loads their time alone: it is known less well than the rest."""
        rest_s = measured_s - (step.predicted_s - step.extra_s)
        if step.embeds:
            self.encoder.learn(rest_s - step.loaded * self.store.each_s, step.embeds)
        elif step.loaded:
            self.store.learn(rest_s, step.loaded)
        else:
            self.correction.learn(measured_s, step.predicted_s, step.scale)

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
