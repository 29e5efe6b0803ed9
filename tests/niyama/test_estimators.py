"""Decode-length estimates against numpy."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama.estimators import CONSTANT, HISTORY, HISTORY_COLUMNS, QUANTILE, estimate, learn

lengths = st.lists(st.integers(1, 60_000), min_size=1, max_size=80)


def history_of(outputs, app=1):
    history = np.zeros((3, HISTORY_COLUMNS))
    for tokens in outputs:
        learn(history, app, tokens)
    return history


@settings(max_examples=60)
@given(outputs=lengths, deviations=st.sampled_from((0.0, 1.0, 2.0)))
def test_history_is_mean_plus_standard_deviations(outputs, deviations):
    """Section 3.4: mean + 2 sigma of the application's outputs so far."""
    expected = max(1.0, np.mean(outputs) + deviations * np.std(outputs))
    assert estimate(history_of(outputs), 1, HISTORY, deviations, 256.0) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=60)
@given(outputs=lengths, q=st.sampled_from((0.125, 0.5, 0.75, 0.9375)))
def test_a_quantile_is_never_below_the_true_one_and_at_most_19_percent_above(outputs, q):
    """The upper edge of the logarithmic bin that holds it."""
    exact = np.quantile(outputs, q, method="inverted_cdf")
    answer = estimate(history_of(outputs), 1, QUANTILE, q, 256.0)
    assert exact <= answer <= exact * 2**0.25 * (1 + 1e-12)


@pytest.mark.parametrize("kind", [HISTORY, QUANTILE])
def test_an_application_without_history_gets_the_prior(kind):
    """Histories are kept apart by application; no estimate is below one token."""
    history = history_of([500, 600], app=1)
    assert estimate(history, 0, kind, 0.5, 256.0) == 256.0
    assert estimate(history, 0, kind, 0.5, 0.0) == 1.0
    assert estimate(history, 1, kind, 0.5, 256.0) > 500.0


def test_a_constant_ignores_history():
    assert estimate(history_of([500, 600]), 1, CONSTANT, 15.0, 256.0) == 15.0
    assert estimate(history_of([500, 600]), 1, CONSTANT, 0.0, 256.0) == 1.0
