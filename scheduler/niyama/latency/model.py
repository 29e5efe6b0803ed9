"""Four families of latency models over one description of a batch, each with its inverse.

`TWO_BIN_LINEAR` (the authors' artifact): t = c0 + c1*total + c2*prefill + c3*decodes + c4*decode_context
+ c5*top_prefix, with one set of coefficients up to 512 tokens in total and another above.
`ROOFLINE` (ours): t = overhead + max(c_token*total, floor) + c_attention*prefill_work + c_context*decode_context;
continuous and monotone in every argument.
`FOREST` (the paper's): a random forest (`niyama.latency.forest`). `MONOTONE` (ours): a rising broken line over tokens
(`niyama.latency.curve`). The first two have inverses in closed form; those of the others are found by bisection.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niyama.jit import compiled, compiled_apart, tuple_type
from niyama.latency.curve import curve_seconds
from niyama.latency.forest import forest_seconds

TWO_BIN_LINEAR = 0
ROOFLINE = 1
FOREST = 2
MONOTONE = 3
BIN_EDGE_TOKENS = 512

MOST_NOISE = 10.0  # standard deviation of the log of step times: a factor of 20,000 either way


class LatencyModel(NamedTuple):
    """kind: TWO_BIN_LINEAR, ROOFLINE, FOREST or MONOTONE; coef: float64, what the kind's formula takes."""

    kind: int
    coef: np.ndarray


class Batch(NamedTuple):
    """The shape of one iteration: all that a latency model may see."""

    decodes: int  # requests that get one token each, and drafted tokens of theirs that are verified
    decode_context: int  # tokens of KV they attend to, summed
    prefill_tokens: int
    prefill_work: float  # sum over chunks of c * (prefix + c / 2): token pairs of attention
    top_prefix: int  # prefix, in tokens, of the first prefill chunk


BATCH_TYPE, MODEL_TYPE = tuple_type(Batch), tuple_type(LatencyModel)


@compiled
def empty_batch(decodes, decode_context):
    """A batch of decodes only."""
    return Batch(decodes, decode_context, 0, 0.0, 0)


@compiled
def with_prefill(batch, prefix, tokens):
    """`batch` plus a prefill chunk of `tokens` tokens behind `prefix` tokens already in KV."""
    top_prefix = prefix if batch.prefill_tokens == 0 else batch.top_prefix
    work = batch.prefill_work + tokens * (prefix + 0.5 * tokens)
    return Batch(batch.decodes, batch.decode_context, batch.prefill_tokens + tokens, work, top_prefix)


@compiled
def seconds(model, batch):
    """Duration of one iteration in seconds, above 0; an empty batch costs nothing only to those who never run it.

    The two-bin model never goes below its bin's intercept: from some 360 decodes on, its negative decode coefficient
    above 512 tokens would let time run backwards.
    """
    c = model.coef
    total = batch.decodes + batch.prefill_tokens
    if model.kind == ROOFLINE:
        return c[0] + max(c[1] * total, c[2]) + c[3] * batch.prefill_work + c[4] * batch.decode_context
    if model.kind != TWO_BIN_LINEAR:
        return _fitted_seconds(model, batch)
    b = 0 if total <= BIN_EDGE_TOKENS else 6
    variable_s = (
        c[b + 1] * total
        + c[b + 2] * batch.prefill_tokens
        + c[b + 3] * batch.decodes
        + c[b + 4] * batch.decode_context
        + c[b + 5] * batch.top_prefix
    )
    return c[b] + max(0.0, variable_s)


@compiled_apart
def _fitted_seconds(model, batch):
    """Seconds by the kinds that loop over their numbers."""
    if model.kind == FOREST:
        return forest_seconds(model.coef, batch)
    return curve_seconds(model.coef, batch)


@compiled
def fit_tokens(model, batch, prefix, slack_s, limit):
    """Most prefill tokens (0..limit) a request at `prefix` can add so that the step lasts at most `slack_s`.

    Conservative: no smaller chunk may be slower than `slack_s` either, so the dip of the two-bin model
    above 512 tokens is not exploited. Only a forest, which may dip anywhere, is not searched that far: its answer fits,
    and one token more does not.
    """
    if model.kind > ROOFLINE:
        return _bisected_tokens(model, batch, prefix, slack_s, limit)
    if limit <= 0 or (model.kind == ROOFLINE and seconds(model, with_prefill(batch, prefix, limit)) <= slack_s):
        return max(limit, 0)
    if model.kind == ROOFLINE:
        tokens = _fit_roofline(model.coef, batch, prefix, slack_s)
    else:
        tokens = _fit_two_bins(model.coef, batch, prefix, slack_s)
    return int(max(0.0, min(float(limit), tokens)))  # bounded first: a huge slack is more tokens than an int64 holds


@compiled_apart
def _bisected_tokens(model, batch, prefix, slack_s, limit):
    """The chunk from 0 to `limit` at which bisection sees the time cross `slack_s`."""
    if limit <= 0 or _fitted_seconds(model, with_prefill(batch, prefix, limit)) <= slack_s:
        return max(limit, 0)
    fits, slow = 0, limit
    while slow - fits > 1:
        middle = (fits + slow) // 2
        if _fitted_seconds(model, with_prefill(batch, prefix, middle)) <= slack_s:
            fits = middle
        else:
            slow = middle
    return fits


@compiled
def _fit_roofline(c, batch, prefix, slack_s):
    """Inverse of max(linear, floor) + quadratic attention, rounded down: the smaller of the two branches' inverses."""
    left_s = slack_s - c[0] - c[3] * batch.prefill_work - c[4] * batch.decode_context
    total = batch.decodes + batch.prefill_tokens
    by_floor = _positive_root(0.5 * c[3], c[3] * prefix, left_s - c[2])
    by_compute = _positive_root(0.5 * c[3], c[3] * prefix + c[1], left_s - c[1] * total)
    return np.floor(min(by_floor, by_compute) + 1e-9)


@compiled
def _positive_root(a, b, y):
    """Largest x with a*x^2 + b*x <= y for a, b >= 0; 0 when there is none."""
    if y <= 0.0:
        return 0.0
    # the form with y on top keeps its digits when a is tiny
    below = b + np.sqrt(b * b + 4.0 * a * y)
    return 2.0 * y / below if below > 0.0 else np.inf


@compiled
def _fit_two_bins(c, batch, prefix, slack_s):
    """Inverse of the two lines, rounded down: the second counts only when the whole first bin fits."""
    total = batch.decodes + batch.prefill_tokens
    top_prefix = prefix if batch.prefill_tokens == 0 else batch.top_prefix
    small = max(0, BIN_EDGE_TOKENS - total)
    if small > 0:
        tokens = _fit_line(c[:6], batch, total, top_prefix, slack_s)
        if tokens < small:
            return tokens
    return max(float(small), _fit_line(c[6:], batch, total, top_prefix, slack_s))


@compiled
def _fit_line(c, batch, total, top_prefix, slack_s):
    """Most whole tokens beside `batch` in one bin of the two-bin model, were the bin without an end."""
    if slack_s < c[0]:
        return 0.0
    base_s = c[1] * total + c[2] * batch.prefill_tokens + c[3] * batch.decodes
    base_s += c[0] + c[4] * batch.decode_context + c[5] * top_prefix
    return np.floor((slack_s - base_s) / (c[1] + c[2]) + 1e-9)
