"""Latency models: the artifact's numbers, the formulas, and inverses that equal a search over every chunk size."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from plain import CARDS, LINEAR, ROOFLINE, plain_fit, plain_seconds

from niyama.latency import empty_batch, fit_tokens, model_names, seconds, with_prefill

both_models = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.kind)


@st.composite
def batches(draw):
    """Decodes, perhaps with a first prefill chunk."""
    decodes = draw(st.integers(0, 256))
    batch = empty_batch(decodes, decodes * draw(st.integers(1, 4000)))
    if draw(st.booleans()):
        batch = with_prefill(batch, draw(st.integers(0, 20_000)), draw(st.integers(1, 2000)))
    return batch


def milliseconds(card, decodes, context, prefix, tokens):
    return 1000 * seconds(card.build(), with_prefill(empty_batch(decodes, context), prefix, tokens))


def test_the_linear_model_gives_the_artifact_numbers():
    """Hand-computed from the published coefficients: 256 tokens 36 ms, 330 tokens 42 ms, ten decodes alone 16 ms."""
    assert milliseconds(LINEAR, 0, 0, 0, 256) == pytest.approx(14.936 + 256 * (0.05882475 + 0.02247956), rel=1e-12)
    assert [round(milliseconds(LINEAR, 0, 0, 0, n)) for n in (256, 330)] == [36, 42]
    assert milliseconds(LINEAR, 0, 0, 0, 2552) == pytest.approx(5.004 + 2552 * (0.0271905 + 0.06863043), rel=1e-12)
    decodes_ms = 14.936 + 10 * (0.05882475 + 0.03634519) + 20_000 * 1.111258e-4
    assert milliseconds(LINEAR, 10, 20_000, 0, 0) == pytest.approx(decodes_ms, rel=1e-12)


def test_the_linear_model_dips_between_512_and_513_tokens():
    """A defect of the published coefficients, kept: 513 tokens are predicted 2.4 ms faster than 512."""
    dip_ms = milliseconds(LINEAR, 0, 0, 0, 512) - milliseconds(LINEAR, 0, 0, 0, 513)
    assert dip_ms == pytest.approx(56.564 - 54.160, abs=1e-3)


@both_models
@settings(max_examples=60)
@given(batch=batches(), prefix=st.integers(0, 20_000), tokens=st.integers(1, 5000))
def test_seconds_follow_the_formula(card, batch, prefix, tokens):
    expected = plain_seconds(card, batch, prefix, tokens)
    assert seconds(card.build(), with_prefill(batch, prefix, tokens)) == pytest.approx(float(expected), rel=1e-12)


@settings(max_examples=60)
@given(batch=batches(), prefix=st.integers(0, 20_000), tokens=st.integers(1, 5000), more=st.integers(1, 500))
def test_the_roofline_is_monotone_in_every_argument(batch, prefix, tokens, more):
    """More tokens, prefix, decodes or context never make a step faster."""
    model = ROOFLINE.build()
    base_s = seconds(model, with_prefill(batch, prefix, tokens))
    assert seconds(model, with_prefill(batch, prefix, tokens + more)) > base_s
    assert seconds(model, with_prefill(batch, prefix + more, tokens)) > base_s
    assert seconds(model, with_prefill(batch._replace(decodes=batch.decodes + more), prefix, tokens)) >= base_s
    context = batch.decode_context + more
    assert seconds(model, with_prefill(batch._replace(decode_context=context), prefix, tokens)) > base_s


@both_models
def test_no_step_takes_negative_time(card):
    """1,000 decodes without context: the linear model's decode coefficient would take the time below zero."""
    assert seconds(card.build(), empty_batch(1000, 1000)) > 0.001


@both_models
@settings(max_examples=150)
@given(
    batch=batches(),
    prefix=st.integers(0, 20_000),
    slack_s=st.one_of(st.floats(-1.0, 0.6), st.floats(0.0, 0.1)),
    limit=st.integers(1, 3000),
)
def test_fit_tokens_equals_trying_every_chunk_size(card, batch, prefix, slack_s, limit):
    """The closed form is the search's answer, up to rounding of the last digit of a step time."""
    tokens = fit_tokens(card.build(), batch, prefix, slack_s, limit)
    assert plain_fit(card, batch, prefix, slack_s - 1e-12, limit) <= tokens
    assert tokens <= plain_fit(card, batch, prefix, slack_s + 1e-12, limit)


def test_fit_tokens_does_not_exploit_the_dip():
    """At 55 ms 513 to 521 tokens would fit, but 493 to 512 would not: the answer is 492."""
    model = LINEAR.build()
    assert milliseconds(LINEAR, 0, 0, 0, 521) < 55 < milliseconds(LINEAR, 0, 0, 0, 493)
    assert fit_tokens(model, empty_batch(0, 0), 0, 0.055, 2500) == 492
    assert fit_tokens(model, empty_batch(0, 0), 0, 0.0566, 2500) == 538


@both_models
def test_fit_tokens_bears_any_slack_and_limit(card):
    """A slack that more tokens fit than an int64 holds gives the limit; no room or no time gives 0."""
    model, batch = card.build(), empty_batch(3, 300)
    assert fit_tokens(model, batch, 0, 1e300, 2500) == 2500
    assert fit_tokens(model, batch, 0, np.inf, 2500) == 2500
    assert fit_tokens(model, batch, 0, -1e300, 2500) == 0
    assert fit_tokens(model, batch, 0, 1.0, 0) == fit_tokens(model, batch, 0, 1.0, -5) == 0


def test_a_roofline_without_attention_cost_still_has_an_inverse():
    """c_attention 0 makes the quadratic a line."""
    overhead_s, token_s, *_ = ROOFLINE.coefficients
    model = replace(ROOFLINE, coefficients=(overhead_s, token_s, 0.0, 0.0, 0.0)).build()
    assert fit_tokens(model, empty_batch(0, 0), 0, overhead_s + 100.5 * token_s, 2500) == 100


def test_instances_of_a_card_share_nothing():
    """Executor and predictor are separate even when they come from one card."""
    first, second = ROOFLINE.build(), ROOFLINE.build()
    first.coef[0] = 7.0
    assert second.coef[0] == ROOFLINE.coefficients[0]
    assert {"a100-llama3-8b-linear", "a100-llama3-8b-roofline"} <= set(model_names())
