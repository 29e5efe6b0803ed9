"""Latency models: the artifact's numbers, the formulas, and inverses that equal a search over every chunk size."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import BUILT_IN
from niyama.latency import Batch, empty_batch, fit_tokens, load_card, model_names, seconds, with_prefill
from niyama.scheduler import Scheduler, Timing
from tests.helpers.reference_formulas import (
    ALL_KINDS,
    CARDS,
    FOREST,
    LINEAR,
    MONOTONE,
    RISING,
    ROOFLINE,
    SCIKIT_LEARN,
    plain_fit,
    plain_seconds,
)

both_models = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.kind)
every_kind = pytest.mark.parametrize("card", ALL_KINDS, ids=lambda card: card.kind)
rising_kinds = pytest.mark.parametrize("card", RISING, ids=lambda card: card.kind)


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


@every_kind
@settings(max_examples=60)
@given(batch=batches(), prefix=st.integers(0, 20_000), tokens=st.integers(1, 5000))
def test_seconds_follow_the_formula(card, batch, prefix, tokens):
    expected = plain_seconds(card, batch, prefix, tokens)
    assert seconds(card.build(), with_prefill(batch, prefix, tokens)) == pytest.approx(float(expected), rel=1e-12)


@every_kind
@given(batch=batches())
def test_an_engine_stretches_a_model_by_what_it_measured(card, batch):
    scheduler = Scheduler(BUILT_IN["niyama"], card, kv_tokens=160_000, apps=1)
    for scale in (1.3, 0.8):
        scheduler.step(Timing(0.0, 0.0, 0.0, 0, scale))
        assert seconds(scheduler.model, batch) == pytest.approx(scale * seconds(card.build(), batch), rel=1e-12)


def test_a_forest_says_what_scikit_learn_says():
    """Its own forest, written in our layout, walked by the kernel: the same numbers."""
    model = FOREST.build()
    found = [seconds(model, Batch(int(d), int(c), int(p), w, int(x))) for d, c, p, w, x in SCIKIT_LEARN["batches"]]
    assert found == pytest.approx(SCIKIT_LEARN["seconds"], rel=1e-7)


@rising_kinds
@settings(max_examples=60)
@given(batch=batches(), prefix=st.integers(0, 20_000), tokens=st.integers(1, 5000), more=st.integers(1, 500))
def test_time_falls_in_no_argument(card, batch, prefix, tokens, more):
    """More tokens, prefix, decodes or context never make a step faster."""
    model = card.build()
    base_s = seconds(model, with_prefill(batch, prefix, tokens))
    assert seconds(model, with_prefill(batch, prefix, tokens + more)) > base_s
    assert seconds(model, with_prefill(batch, prefix + more, tokens)) > base_s
    assert seconds(model, with_prefill(batch._replace(decodes=batch.decodes + more), prefix, tokens)) >= base_s
    context = batch.decode_context + more
    assert seconds(model, with_prefill(batch._replace(decode_context=context), prefix, tokens)) > base_s


@every_kind
def test_no_step_takes_negative_time(card):
    """1,000 decodes without context: the linear model's decode coefficient would take the time below zero."""
    assert seconds(card.build(), empty_batch(1000, 1000)) > 0.001


@pytest.mark.parametrize("card", (LINEAR, *RISING), ids=lambda card: card.kind)
@settings(max_examples=150)
@given(
    batch=batches(),
    prefix=st.integers(0, 20_000),
    slack_s=st.one_of(st.floats(-1.0, 0.6), st.floats(0.0, 0.1)),
    limit=st.integers(1, 3000),
)
def test_fit_tokens_equals_trying_every_chunk_size(card, batch, prefix, slack_s, limit):
    """Closed form and bisection give the search's answer, up to rounding of the last digit of a step time."""
    tokens = fit_tokens(card.build(), batch, prefix, slack_s, limit)
    assert plain_fit(card, batch, prefix, slack_s - 1e-12, limit) <= tokens
    assert tokens <= plain_fit(card, batch, prefix, slack_s + 1e-12, limit)


@settings(max_examples=150)
@given(batch=batches(), prefix=st.integers(0, 20_000), slack_s=st.floats(0.0, 0.4), limit=st.integers(1, 3000))
def test_a_forests_answer_fits_and_one_token_more_does_not(batch, prefix, slack_s, limit):
    """A forest may dip anywhere; bisection ends at a crossing, and its forward and inverse agree there."""
    model = FOREST.build()
    tokens = fit_tokens(model, batch, prefix, slack_s, limit)
    assert 0 <= tokens <= limit
    assert tokens == 0 or seconds(model, with_prefill(batch, prefix, tokens)) <= slack_s
    assert tokens == limit or seconds(model, with_prefill(batch, prefix, tokens + 1)) > slack_s


def test_fit_tokens_does_not_exploit_the_dip():
    """At 55 ms 513 to 521 tokens would fit, but 493 to 512 would not: the answer is 492."""
    model = LINEAR.build()
    assert milliseconds(LINEAR, 0, 0, 0, 521) < 55 < milliseconds(LINEAR, 0, 0, 0, 493)
    assert fit_tokens(model, empty_batch(0, 0), 0, 0.055, 2500) == 492
    assert fit_tokens(model, empty_batch(0, 0), 0, 0.0566, 2500) == 538


@every_kind
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


@pytest.mark.parametrize(
    ("card", "change", "words"),
    [
        (MONOTONE, lambda c: c[:-1], "no curve"),
        (MONOTONE, lambda c: (0.0, *c[1:]), "must be positive"),
        (MONOTONE, lambda c: (*c[:3], -1e-9, *c[4:]), "none may be negative"),
        (MONOTONE, lambda c: (*c[:8], c[6], *c[9:]), "must rise"),
        (FOREST, lambda c: c[:-1], "no forest"),
        (FOREST, lambda c: (), "no forest"),
        (FOREST, lambda c: (1e9, *c[1:]), "no forest"),
        (FOREST, lambda c: (c[0], 1e7, *c[2:]), "must be rows"),
        (FOREST, lambda c: (*c[:5], 6.0, *c[6:]), "feature must be"),
        (FOREST, lambda c: (*c[:7], 1.0, *c[8:]), "left child is the next row"),
        (FOREST, lambda c: (*c[:-2], -1.0, c[-1]), "time must be positive"),
        (FOREST, lambda c: (*c[:-1], c[-1] - 1), "a child after its parent"),
    ],
)
def test_numbers_that_are_no_model_are_refused(card, change, words):
    """The kernel checks no bounds: what could send it astray never becomes a card."""
    with pytest.raises(ValueError, match=words):
        replace(card, coefficients=change(card.coefficients))


def test_a_card_in_a_file_is_loaded_by_its_path(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(asdict(MONOTONE) | {"name": "mine", "error_p95": 1.07}))
    assert load_card(str(path)).error_p95 == 1.07
    for wrong in (0, -1.0, "1"):
        path.write_text(json.dumps(asdict(MONOTONE) | {"error_p95": wrong}))
        with pytest.raises(ValueError, match="error_p95 is"):
            load_card(str(path))
    with pytest.raises(ValueError, match="cannot be read"):
        load_card(str(tmp_path / "none.json"))


def test_a_card_that_calls_its_error_margin_is_read(tmp_path):
    """As cards did once."""
    path, values = tmp_path / "old.json", asdict(MONOTONE)
    del values["error_p95"]
    path.write_text(json.dumps(values | {"margin": 1.07}))
    assert load_card(str(path)).error_p95 == 1.07
    path.write_text(json.dumps(values | {"margin": 1.07, "error_p95": 1.5}))
    with pytest.raises(ValueError, match="give it exactly the fields"):
        load_card(str(path))


def test_every_card_that_ships_is_named_as_its_file_and_says_where_it_is_from():
    for name in model_names():
        card = load_card(name)
        assert card.name == name
        assert card.kv_tokens > 100_000
        assert all(len(text) > 3 for text in (card.hardware, card.model, card.engine, card.source, card.error))
