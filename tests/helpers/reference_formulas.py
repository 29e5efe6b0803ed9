"""Plain versions that the compiled code is held against."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from niyama import load_card

LINEAR, ROOFLINE = load_card("a100-llama3-8b-linear"), load_card("a100-llama3-8b-roofline")
MONOTONE = load_card("a100-tp2-qwen-7b-engine")
#: A forest grown by scikit-learn, with what it predicts for some batches.
SCIKIT_LEARN = json.loads(Path(__file__).with_name("scikit_learn.json").read_text())
FOREST = replace(LINEAR, name="scikit-learn's", kind="forest", coefficients=tuple(SCIKIT_LEARN["forest"]))
CARDS = (LINEAR, ROOFLINE)
RISING = (ROOFLINE, MONOTONE)
ALL_KINDS = (LINEAR, ROOFLINE, MONOTONE, FOREST)


def source_of(rule):
    """The Python function behind a rule, compiled or not."""
    return getattr(rule, "__wrapped__", rule)


def plain_seconds(card, batch, prefix, tokens):
    """Seconds of `batch` plus chunks of `tokens` (an array) behind `prefix`, as the model's formula is written."""
    c, tokens = card.coefficients, np.asarray(tokens, float)
    prefill = batch.prefill_tokens + tokens
    total = batch.decodes + prefill
    work = batch.prefill_work + tokens * (prefix + tokens / 2)
    if card.kind == "roofline":
        return c[0] + np.maximum(c[1] * total, c[2]) + c[3] * work + c[4] * batch.decode_context
    top = batch.top_prefix if batch.prefill_tokens else prefix
    if card.kind == "monotone":
        at, slopes = np.array([0.0, *c[6::2], np.inf]), np.array(c[5::2])
        parts = np.clip(total[..., None], at[:-1], at[1:]) - at[:-1]
        attention = c[2] * batch.decode_context + c[3] * work + c[4] * top
        return c[0] + c[1] * batch.decodes + attention + parts @ slopes
    if card.kind == "forest":
        columns = (total, batch.decodes, batch.decode_context, prefill, work, top)
        rows = np.stack(np.broadcast_arrays(*columns), axis=-1)
        return np.array([plain_forest(c, row) for row in rows.reshape(-1, 6)]).reshape(total.shape)
    low, high = (
        b[0]
        + np.maximum(0, np.dot(b[1:], np.broadcast_arrays(total, prefill, batch.decodes, batch.decode_context, top)))
        for b in (np.array(c[:6]), np.array(c[6:]))
    )
    return np.where(total <= 512, low, high)


def plain_forest(c, features):
    """The mean over the trees of a forest card, each walked by recursion."""
    trees = int(c[0])
    nodes = np.array(c[1 + trees :]).reshape(-1, 3)

    def leaf(row):
        feature, value, right = nodes[row]
        if right == row:
            return value
        return leaf(row + 1 if features[int(feature)] <= value else int(right))

    return np.mean([leaf(int(root)) for root in c[1 : 1 + trees]])


def plain_fit(card, batch, prefix, slack_s, limit):
    """Most tokens up to `limit` such that neither they nor any fewer take longer than `slack_s`, by trying them all."""
    fits = plain_seconds(card, batch, prefix, np.arange(1, limit + 1)) <= slack_s
    return limit if fits.all() else int(np.argmin(fits))
