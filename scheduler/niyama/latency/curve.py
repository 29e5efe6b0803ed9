"""The monotone model: a rising broken line over a step's tokens, plus what attention costs.

t = base + decode * decodes + context * decode_context + pair * prefill_work + prefix * top_prefix + line(total tokens),
all coefficients 0 or more, so that time falls in no argument and the largest chunk within a time is found exactly.
Layout: base, decode, context, pair, prefix, first slope; then for each bend its tokens and the slope from there on.
"""

from __future__ import annotations

import numpy as np

from niyama.jit import compiled

LINE = 5  # index of the first slope


@compiled
def curve_seconds(c, batch):
    """Seconds of one batch; `c` is the curve."""
    total = batch.decodes + batch.prefill_tokens
    t = c[0] + c[1] * batch.decodes + c[2] * batch.decode_context + c[3] * batch.prefill_work + c[4] * batch.top_prefix
    t += c[LINE] * total
    slope = c[LINE]
    for i in range(LINE + 1, len(c), 2):
        if total <= c[i]:
            break
        t += (c[i + 1] - slope) * (total - c[i])
        slope = c[i + 1]
    return t


def times(c: np.ndarray) -> np.ndarray:
    """Which of the numbers are seconds (bool): all but the bends' tokens."""
    index = np.arange(len(c))
    return (index <= LINE) | ((index - LINE) % 2 == 0)


def complaint(coefficients: tuple[float, ...]) -> str | None:
    """What keeps these numbers from being a monotone model, None if nothing does."""
    c = np.array(coefficients, dtype=np.float64)
    if len(c) <= LINE or (len(c) - LINE) % 2 == 0:
        return f"{len(c)} numbers are no curve: give six, and two for each bend"
    if c.min() < 0 or c[0] <= 0:
        return "none may be negative, and the first, the time of any step, must be positive"
    bends = c[LINE + 1 :: 2]
    return "the bends' tokens must rise" if (np.diff(bends, prepend=0.0) <= 0).any() else None
