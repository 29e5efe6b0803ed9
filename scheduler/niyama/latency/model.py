"""Two families of latency models over one description of a batch, each with its inverse in closed form.

`TWO_BIN_LINEAR` (the authors' artifact): t = c0 + c1*total + c2*prefill + c3*decodes + c4*decode_context
+ c5*top_prefix, with one set of coefficients up to 512 tokens in total and another above.
`ROOFLINE` (ours): t = overhead + max(c_token*total, floor) + c_attention*prefill_work + c_context*decode_context;
continuous and monotone in every argument.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from niyama.compiled import compiled

TWO_BIN_LINEAR = 0
ROOFLINE = 1
BIN_EDGE_TOKENS = 512
COEFFICIENTS = {TWO_BIN_LINEAR: 12, ROOFLINE: 5}


class LatencyModel(NamedTuple):
    """kind: TWO_BIN_LINEAR or ROOFLINE; coef: float64[COEFFICIENTS[kind]] in seconds per unit."""

    kind: int
    coef: np.ndarray


class Batch(NamedTuple):
    """The shape of one iteration: all that a latency model may see."""

    decodes: int  # requests that get one token each
    decode_context: int  # tokens of KV they attend to, summed
    prefill_tokens: int
    prefill_work: float  # sum over chunks of c * (prefix + c / 2): token pairs of attention
    top_prefix: int  # prefix, in tokens, of the first prefill chunk


BATCH_TYPE = types.NamedTuple([types.int64, types.int64, types.int64, types.float64, types.int64], Batch)
MODEL_TYPE = types.NamedTuple([types.int64, types.float64[::1]], LatencyModel)


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
    """Duration of one iteration in seconds; an empty batch costs nothing only to those who never run it."""
    c = model.coef
    total = batch.decodes + batch.prefill_tokens
    if model.kind == ROOFLINE:
        return c[0] + max(c[1] * total, c[2]) + c[3] * batch.prefill_work + c[4] * batch.decode_context
    b = 0 if total <= BIN_EDGE_TOKENS else 6
    return (
        c[b]
        + c[b + 1] * total
        + c[b + 2] * batch.prefill_tokens
        + c[b + 3] * batch.decodes
        + c[b + 4] * batch.decode_context
        + c[b + 5] * batch.top_prefix
    )


@compiled
def fit_tokens(model, batch, prefix, slack_s, limit):
    """Most prefill tokens (0..limit) a request at `prefix` can add so that the step lasts at most `slack_s`.

    Conservative: no smaller chunk may be slower than `slack_s` either, so the dip of the two-bin model
    above 512 tokens is not exploited.
    """
    if limit <= 0 or (seconds(model, with_prefill(batch, prefix, limit)) <= slack_s and model.kind == ROOFLINE):
        return max(limit, 0)
    if model.kind == ROOFLINE:
        tokens = _fit_roofline(model.coef, batch, prefix, slack_s)
    else:
        tokens = _fit_two_bins(model, batch, prefix, slack_s)
    return max(0, min(limit, tokens))


@compiled
def _fit_roofline(c, batch, prefix, slack_s):
    """Inverse of max(linear, floor) + quadratic attention: the smaller of the two branches' inverses."""
    left_s = slack_s - c[0] - c[3] * batch.prefill_work - c[4] * batch.decode_context
    total = batch.decodes + batch.prefill_tokens
    by_floor = _positive_root(0.5 * c[3], c[3] * prefix, left_s - c[2])
    by_compute = _positive_root(0.5 * c[3], c[3] * prefix + c[1], left_s - c[1] * total)
    return int(np.floor(min(by_floor, by_compute) + 1e-9))


@compiled
def _positive_root(a, b, y):
    """Largest x with a*x^2 + b*x <= y for a > 0, b >= 0; 0 when there is none."""
    if y <= 0.0:
        return 0.0
    # the form with y on top keeps its digits when a is tiny
    return 2.0 * y / (b + np.sqrt(b * b + 4.0 * a * y))


@compiled
def _fit_two_bins(model, batch, prefix, slack_s):
    c = model.coef
    total = batch.decodes + batch.prefill_tokens
    top_prefix = prefix if batch.prefill_tokens == 0 else batch.top_prefix
    small = max(0, BIN_EDGE_TOKENS - total)
    tokens = 0
    if small > 0:
        base_s = seconds(model, Batch(batch.decodes, batch.decode_context, batch.prefill_tokens, 0.0, top_prefix))
        tokens = int(np.floor((slack_s - base_s) / (c[1] + c[2]) + 1e-9))
        if tokens < small:
            return tokens
    # seconds() of the bin above 512 tokens, extended down to no added token
    base_s = (
        c[6]
        + c[7] * total
        + c[8] * batch.prefill_tokens
        + c[9] * batch.decodes
        + c[10] * batch.decode_context
        + c[11] * top_prefix
    )
    above = int(np.floor((slack_s - base_s) / (c[7] + c[8]) + 1e-9))
    return max(small, above)
