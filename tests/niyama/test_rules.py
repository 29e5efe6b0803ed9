"""The three mechanisms in worked numbers: rank, prefill budget, doomed."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import rules
from niyama.latency import empty_batch, seconds, with_prefill
from niyama.rules import Forecast, Job, Limits
from tests.helpers.reference_formulas import CARDS, ROOFLINE, plain_fit, plain_seconds, source_of

CHAT = Job(10.0, 16.0, prompt_tokens=700, prefill_left=500, decode_left=100.0, interactive=True, decode_s=0.1)
BATCH = CHAT._replace(deadline_s=610.0, interactive=False)
LIMITS = Limits(
    max_chunk_tokens=2500,
    min_chunk_tokens=128,
    margin=1.2,
    kv_free_tokens=400_000,
    kv_low_tokens=32_000,
    kv_low_chunk_tokens=512,
)
GRID, LOW_KV_GRID = (128, *range(256, 2049, 256), 2552), (128, 256, 384, 512)
both_models = pytest.mark.parametrize("card", CARDS, ids=lambda card: card.kind)


@pytest.mark.parametrize(
    ("rule", "chat", "batch"),
    [
        (rules.hybrid, 16 + 0.008 * 500, 610 + 0.008 * (500 + 100)),  # Eq 4, Eq 5
        (rules.latest_start, 16 + 0.008 * 500, 610 - 0.1 * 100 + 0.008 * 500),
        (rules.hybrid_prefill_only, 16 + 0.008 * 500, 610 - 0.4 * 100 + 0.008 * 500),  # the artifact
        (rules.earliest_deadline, 16.0, 610.0),
        (rules.first_come, 10.0, 10.0),
        (rules.shortest_job, 800.0, 800.0),
        (rules.shortest_remaining_prompt, 500.0, 500.0),
    ],
)
def test_ranks_in_worked_numbers(rule, chat, batch):
    """Alpha is 8 ms per token."""
    assert source_of(rule)(CHAT, 0.008) == pytest.approx(chat)
    assert source_of(rule)(BATCH, 0.008) == pytest.approx(batch)


def test_a_fixed_chunk_is_shared_with_the_decodes():
    """256 tokens: 40 decodes and 100 placed prefill tokens leave 116; 300 decodes leave nothing."""
    budget, limits = source_of(rules.fixed_chunk), LIMITS._replace(max_chunk_tokens=256)
    model, batch = ROOFLINE.build(), with_prefill(empty_batch(40, 4000), 0, 100)
    assert budget(model, batch, limits, 0, 0.0) == 116
    assert budget(model, empty_batch(300, 4000), limits, 0, 0.0) == 0


def dynamic(batch, slack_s, limits=LIMITS, prefix=0, card=ROOFLINE):
    return source_of(rules.dynamic_chunk)(card.build(), batch, limits, prefix, slack_s)


@both_models
@settings(max_examples=60)
@given(st.integers(0, 200), st.integers(0, 8000), st.integers(0, 1000), st.floats(-0.1, 0.5))
def test_a_dynamic_chunk_is_the_largest_that_fits_the_slack_with_margin(card, decodes, prefix, placed, slack_s):
    """Against a search; never below what is left of the minimum chunk."""
    batch = empty_batch(decodes, 1000 * decodes)
    batch = with_prefill(batch, 0, placed) if placed else batch
    low, high = (
        max(plain_fit(card, batch, prefix, slack_s / 1.2 + off, 2500 - placed), 128 - placed) for off in (-1e-12, 1e-12)
    )
    assert low <= dynamic(batch, slack_s, prefix=prefix, card=card) <= high


def test_a_dynamic_chunk_has_bounds():
    """The maximum without decodes, 512 when KV is low, the minimum without slack, nothing once it is used up."""
    decodes = empty_batch(10, 10_000)
    assert dynamic(decodes, np.inf) == 2500
    assert dynamic(decodes, np.inf, LIMITS._replace(kv_free_tokens=31_999)) == 512
    assert dynamic(decodes, -3.0) == 128
    assert dynamic(with_prefill(decodes, 0, 100), -3.0) == 28
    assert dynamic(with_prefill(decodes, 0, 2500), np.inf) == 0


TBT = LIMITS._replace(
    margin=1.5,
    kv_total_tokens=400_000,
    tbt_s=0.05,
    steady_tbts=0.9,
    longest_tbts=2.5,
    urgent_tbts=4.0,
    long_step_kv_free=0.4,
)


def tbt_step_s(slack_s=np.inf, **limits):
    """How long the step with `tbt_chunk`'s prefill is, in ms, beside 10 decodes."""
    model, batch = ROOFLINE.build(), empty_batch(10, 10_000)
    tokens = source_of(rules.tbt_chunk)(model, batch, TBT._replace(**limits), 0, slack_s)
    return 1000 * seconds(model, with_prefill(batch, 0, tokens))


@pytest.mark.parametrize(
    ("limits", "tbts"),
    [
        ({}, 0.9),
        ({"batch_demand": 0.02, "interactive_demand": 0.2}, 0.9),
        ({"batch_demand": 0.06}, 0.9 + 0.5 * 1.6),
        ({"interactive_demand": 0.25}, 0.9 + 0.25 * 3.1),
        ({"batch_demand": 0.06, "interactive_demand": 0.25}, 0.9 + 0.5 * 1.6),
        ({"batch_demand": 3.0}, 2.5),
        ({"interactive_demand": np.inf}, 4.0),
        ({"batch_demand": 3.0, "kv_free_tokens": 159_999}, 0.9),
        ({"step_spread": 0.08}, 0.9 / np.exp(2 * 0.08)),
        ({"step_spread": 0.08, "batch_demand": 3.0}, 2.5),
        ({"slack_s": 6.0}, 0.9),
        ({"slack_s": 1.5 * 0.035, "batch_demand": 3.0}, 0.7),
    ],
    ids=str,
)
def test_steps_are_steady_and_grow_with_what_is_queued(limits, tbts):
    """0.9 TBT; up to 2.5 at 2 to 10 % demand (batch), up to 4 at 20 to 40 % (interactive), unless KV is short."""
    assert tbt_step_s(**{"slack_s": 6.0, **limits}) == pytest.approx(50 * tbts, abs=0.2)


def test_without_interactive_decodes_a_step_has_the_slack_or_the_longest_chunk():
    """Batch requests' own token deadlines still count."""
    assert tbt_step_s(1.5 * 0.06, tbt_s=np.inf) == pytest.approx(60, abs=0.2)
    assert tbt_step_s(np.inf) == tbt_step_s(np.inf, tbt_s=np.inf) > 200


STEADY = LIMITS._replace(step_s=0.05)


def steady(batch, slack_s, prefix=0, card=ROOFLINE, limits=STEADY):
    return source_of(rules.steady_chunk)(card.build(), batch, limits, prefix, slack_s)


@both_models
@settings(max_examples=60)
@given(st.integers(0, 200), st.integers(0, 12_000), st.integers(0, 300), st.floats(0.03, 0.3))
def test_a_steady_chunk_is_the_largest_that_fits_the_step_whatever_the_slack(card, decodes, prefix, placed, step_s):
    """Against a search; never below what is left of the minimum chunk."""
    batch = empty_batch(decodes, 1000 * decodes)
    batch = with_prefill(batch, 0, placed) if placed else batch
    limits = LIMITS._replace(step_s=step_s)
    low, high = (
        max(plain_fit(card, batch, prefix, step_s / 1.2 + off, 2500 - placed), 128 - placed, 0)
        for off in (-1e-12, 1e-12)
    )
    for slack_s in (-1.0, 0.2, np.inf):
        assert low <= steady(batch, slack_s, prefix, card, limits) <= high


def test_a_steady_chunk_shrinks_with_the_prefix():
    """The same step, more of it for attention; the most and the least are the policy's."""
    decodes = empty_batch(8, 80_000)
    chunks = [steady(decodes, 6.0, prefix) for prefix in (0, 5_000, 10_000, 20_000)]
    assert chunks == sorted(chunks, reverse=True) and len(set(chunks)) == 4
    assert steady(empty_batch(200, 10**6), 6.0) == 128
    assert steady(decodes, 6.0, limits=STEADY._replace(step_s=10.0)) == 2500
    assert steady(with_prefill(decodes, 0, 2500), 6.0) == 0


def grid(decodes, slack_s, limits=LIMITS, placed=0):
    batch = empty_batch(decodes, 1000 * decodes)
    batch = with_prefill(batch, 0, placed) if placed else batch
    return source_of(rules.grid_chunk)(ROOFLINE.build(), batch, limits, 0, slack_s)


@settings(max_examples=80)
@given(st.integers(1, 256), st.floats(-0.1, 0.5), st.booleans())
def test_the_artifact_grid_is_searched_to_its_largest_point_that_fits(decodes, slack_s, low_kv):
    """Total tokens 128, 256, 512, ..., 2048, 2552 (128, ..., 512 with little KV); 128 in all when nothing fits."""
    totals = np.array(LOW_KV_GRID if low_kv else GRID)
    prefill = np.maximum(0, totals - decodes)
    fits = 1.2 * plain_seconds(ROOFLINE, empty_batch(decodes, 1000 * decodes), 0, prefill) <= slack_s
    best = totals[fits].max() if fits.any() and slack_s > 0 else 128
    limits = LIMITS._replace(kv_free_tokens=31_999 if low_kv else 32_000)
    assert grid(decodes, slack_s, limits) == max(0, best - decodes)


def test_the_artifact_grid_has_fixed_ends():
    """No decodes: 2552 tokens, or 512; no slack: 128 in all; placed tokens count."""
    assert grid(0, np.inf) == 2552
    assert grid(0, np.inf, LIMITS._replace(kv_free_tokens=31_999)) == 512
    assert grid(100, 0.0) == 28
    assert grid(0, np.inf, placed=552) == 2000


@pytest.mark.parametrize(("earliest_s", "doomed"), [(16.0, False), (16.001, True)])
def test_a_predicted_miss_is_later_than_the_deadline(earliest_s, doomed):
    forecast = Forecast(10.0, earliest_s, 16.0, 500, True, 8500.0)
    assert source_of(rules.predicted_miss)(forecast) == doomed
    assert not source_of(rules.never)(forecast)
    assert rules.Outlook is Forecast  # its earlier name, which files of users may import


@pytest.mark.parametrize(
    ("now_s", "left", "started", "doomed"),
    [(10.0, 50_000, False, False), (10.0, 52_000, False, True), (10.0, 52_000, True, False), (16.1, 1, False, True)],
)
def test_the_artifact_relegates_by_prefill_rate_and_only_before_the_start(now_s, left, started, doomed):
    """Deadline in 6 s at 8,500 tokens/s: 51,000 tokens fit, whatever the predictor says."""
    forecast = Forecast(now_s, 1e9, 16.0, left, started, 8500.0)
    assert source_of(rules.rate_miss_before_start)(forecast) == doomed
