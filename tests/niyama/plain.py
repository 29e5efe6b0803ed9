"""Plain versions that the compiled code is held against."""

from __future__ import annotations

import numpy as np

from niyama import load_card

LINEAR, ROOFLINE = load_card("a100-llama3-8b-linear"), load_card("a100-llama3-8b-roofline")
CARDS = (LINEAR, ROOFLINE)


def source_of(rule):
    """The Python function behind a rule, compiled or not."""
    return getattr(rule, "__wrapped__", rule)


def plain_seconds(card, batch, prefix, tokens):
    """Seconds of `batch` plus chunks of `tokens` (an array) behind `prefix`, as the model's formula is written."""
    c, tokens = card.coefficients, np.asarray(tokens, float)
    prefill = batch.prefill_tokens + tokens
    total = batch.decodes + prefill
    if card.kind == "roofline":
        work = batch.prefill_work + tokens * (prefix + tokens / 2)
        return c[0] + np.maximum(c[1] * total, c[2]) + c[3] * work + c[4] * batch.decode_context
    top = batch.top_prefix if batch.prefill_tokens else prefix
    low, high = (
        b[0]
        + np.maximum(0, np.dot(b[1:], np.broadcast_arrays(total, prefill, batch.decodes, batch.decode_context, top)))
        for b in (np.array(c[:6]), np.array(c[6:]))
    )
    return np.where(total <= 512, low, high)


def plain_fit(card, batch, prefix, slack_s, limit):
    """Most tokens up to `limit` such that neither they nor any fewer take longer than `slack_s`, by trying them all."""
    fits = plain_seconds(card, batch, prefix, np.arange(1, limit + 1)) <= slack_s
    return limit if fits.all() else int(np.argmin(fits))
