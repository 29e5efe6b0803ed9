"""What measured steps teach: the factor is that of the time the engine is busy, whatever short steps are in between."""

from __future__ import annotations

import math

import numpy as np
import pytest

from niyama.latency.correction import SURPRISE, WEIGHT, Correction

DECODES_S, CHUNK_S = 0.003, 0.15


def taught(steps):
    """A correction after (predicted, measured) steps, and the sum of both over the second half of them."""
    correction, sums = Correction(True), np.zeros(2)
    for at, (predicted_s, measured_s) in enumerate(steps):
        if 2 * at >= len(steps):
            sums += predicted_s * correction.scale, measured_s
        correction.learn(measured_s, predicted_s * correction.scale, correction.scale)
    return correction, *sums


def test_steps_of_one_length_are_followed_whatever_the_length():
    for step_s in (DECODES_S, CHUNK_S):
        correction, *_ = taught([(step_s, 1.4 * step_s)] * 300)
        assert correction.scale == pytest.approx(1.4, rel=0.01)


@pytest.mark.parametrize("overhead_s", [0.0, 0.0025])
def test_short_steps_that_are_slow_do_not_stretch_the_long_ones(overhead_s):
    """Four decodes to a chunk, on an engine that takes 2.5 ms more than its profile says for any step."""
    stream = np.random.default_rng(0)
    predicted = np.where(stream.random(4000) < 0.8, DECODES_S, CHUNK_S)
    measured = 0.9 * predicted * np.exp(stream.normal(0.0, 0.05, 4000)) + overhead_s
    _, predicted_s, measured_s = taught(list(zip(predicted, measured, strict=True)))
    assert predicted_s == pytest.approx(measured_s, rel=0.03)


def test_when_only_short_steps_are_left_they_decide():
    correction, *_ = taught([(CHUNK_S, CHUNK_S)] * 200 + [(DECODES_S, 1.5 * DECODES_S)] * 5000)
    assert correction.scale == pytest.approx(1.5, rel=0.02)


def test_a_pause_moves_it_no_more_than_a_surprise():
    correction, *_ = taught([(CHUNK_S, CHUNK_S)] * 100)
    before = correction.scale
    correction.learn(60.0, DECODES_S, 1.0)
    assert math.log(correction.scale / before) <= WEIGHT * SURPRISE * DECODES_S / CHUNK_S * 1.001
