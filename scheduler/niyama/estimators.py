"""Decode-length estimates from an application's own past outputs (paper section 3.4); never the true length.

HISTORY: mean + `value` standard deviations (the paper: 2). CONSTANT: `value` tokens (the artifact: 15).
QUANTILE: the `value` quantile of past lengths, from a histogram of 64 logarithmic bins (edges 19 % apart, to 65,536).
ORACLE: what the engine wrote into `decode_estimate` beforehand; named so wherever results are shown.
Until an application has finished a request, HISTORY and QUANTILE answer `prior` tokens.
"""

from __future__ import annotations

import math

from niyama.jit import compiled

HISTORY, CONSTANT, QUANTILE, ORACLE = 0, 1, 2, 3
BINS = 64
BINS_PER_DOUBLING = 4
_COUNT, _MEAN, _SQUARES, _FIRST_BIN = 0, 1, 2, 3
HISTORY_COLUMNS = _FIRST_BIN + BINS


@compiled
def learn(history, app, tokens):
    """Add one finished output of `tokens` tokens to the application's history (Welford's update)."""
    row = history[app]
    row[_COUNT] += 1.0
    delta = tokens - row[_MEAN]
    row[_MEAN] += delta / row[_COUNT]
    row[_SQUARES] += delta * (tokens - row[_MEAN])
    row[_FIRST_BIN + min(BINS - 1, int(BINS_PER_DOUBLING * math.log2(max(tokens, 1))))] += 1.0


@compiled
def estimate(history, app, kind, value, prior):
    """Estimated output length in tokens, at least 1."""
    row = history[app]
    if kind == CONSTANT:
        return max(1.0, value)
    if row[_COUNT] == 0.0:
        return max(1.0, prior)
    if kind == HISTORY:
        return max(1.0, row[_MEAN] + value * math.sqrt(row[_SQUARES] / row[_COUNT]))
    wanted = value * row[_COUNT]
    seen = 0.0
    for b in range(BINS):
        seen += row[_FIRST_BIN + b]
        if seen >= wanted:
            return 2.0 ** ((b + 1) / BINS_PER_DOUBLING)
    return 2.0 ** (BINS / BINS_PER_DOUBLING)
