"""The capacity search, against a violation curve known beforehand, and the truth conditions on real runs."""

import math

import numpy as np
import pytest

from artifact.experiments import capacity
from artifact.experiments.capacity import CRITERIA, Search, find_capacity, silo_capacity
from artifact.results import metrics
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.run import run
from artifact.runs.sources import trace
from artifact.runs.spec import RunSpec
from niyama import load_card

LINEAR, ROOFLINE = "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
TRACE = "azure-code-2023-synth"


class KnownCurve(Search):
    """Violation rate 0 up to `knee` requests/s, then growing by 0.1 per request/s."""

    knee = 2.03

    def rate(self, k, seed, criterion):
        rate = max(0.0, 0.1 * (self.load(k) - self.knee))
        return self.points.setdefault((k, seed), dict.fromkeys(CRITERIA, rate))[criterion]


def search(knee: float) -> KnownCurve:
    known = KnownCurve(RunSpec(trace=TRACE, system="niyama", load_qps=1.0, requests=1), 0.1)
    known.knee = knee
    return known


@pytest.mark.parametrize("guess", [1, 5, 20, 21, 22, 60])
def test_crossing_is_found_from_any_guess_and_carries_its_bracket(guess):
    found = search(2.03).crossing(0, CRITERIA[0], guess, 60)
    assert (found.passes_qps, found.fails_qps) == (2.1, 2.2)
    assert found.capacity_qps == pytest.approx(2.13)  # 1 % is reached 0.1 above the knee


def test_no_crossing_is_null_with_what_was_seen():
    above = search(99.0).crossing(0, CRITERIA[0], 20, 60)
    assert above.capacity_qps is None and above.fails_qps is None and above.passes_qps == 6.0
    below = search(-99.0).crossing(0, CRITERIA[0], 20, 60)
    assert below.capacity_qps is None and below.passes_qps is None and below.fails_qps == 0.1


def test_interval_is_students_t():
    assert capacity._statistics([1.0], 1)["interval_low_qps"] is None
    found = capacity._statistics([1.0, 2.0, 3.0], 1)
    half = 4.302653 / math.sqrt(3)
    assert [found[f"interval_{end}_qps"] for end in ("low", "high")] == pytest.approx([2 - half, 2 + half], rel=1e-5)


def test_seeds_without_a_crossing_make_the_capacity_null():
    assert capacity._statistics([1.0, None], 1)["capacity_qps"] is None


def test_capacity_row_is_inside_its_bracket_and_says_how_it_was_found():
    spec = RunSpec(trace=TRACE, system="sarathi-edf", load_qps=1.0, requests=2000)
    by_criterion = {row["criterion"]: row for row in find_capacity(spec, 2, 0.2)}
    assert set(by_criterion) == set(CRITERIA)
    row = by_criterion["violation_rate"]
    assert row["passes_qps"] <= row["capacity_qps"] <= row["fails_qps"]
    assert row["requests"] == 2000 and row["seeds"] == 2 and len(row["seed_capacity_qps"]) == 2
    assert row["predictor"].endswith("(oracle)")


def test_silo_counts_no_pool_beyond_its_fluid_bound():
    spec = RunSpec(trace=TRACE, system="sarathi-silo", load_qps=1.0, requests=1500)
    row = silo_capacity(spec, 1, 0.2)[0]
    assert 0 < row["capacity_qps"] < row["fluid_bound_qps"]


@pytest.mark.parametrize("latency", [LINEAR, ROOFLINE])
@pytest.mark.parametrize("system", ["niyama", "sarathi-edf"])
def test_no_system_finishes_requests_faster_than_the_fluid_bound(system, latency):
    """Far above capacity the rate of finishing is the capacity of the replica; the bound must not be beaten."""
    done = run(RunSpec(trace=TRACE, system=system, load_qps=20.0, requests=30_000, latency=latency))
    source = trace(TRACE)
    bound = fluid_bound_qps(load_card(latency), source.prompt_tokens, source.output_tokens)
    finished_s = metrics.run_metrics(done.requests, done.run)["duration_s"]
    assert done.spec.requests / finished_s <= bound


def test_fluid_bound_of_one_fixed_request_by_hand():
    """Prompts of 1000 and outputs of 1 leave no decodes: the best is the best rate of prefill alone."""
    card = load_card(LINEAR)
    c = card.coefficients
    best = max(
        chunk / (c[b] + (c[b + 1] + c[b + 2]) * chunk) for chunk in range(1, 2553) for b in (0 if chunk <= 512 else 6,)
    )
    bound = fluid_bound_qps(card, np.full(5, 1000), np.full(5, 1))
    assert bound == pytest.approx(best / 1000)


def test_fluid_bound_shares_the_chunk_with_decodes_when_told():
    card, source = load_card(LINEAR), trace(TRACE)
    lengths = source.prompt_tokens, source.output_tokens
    assert (
        fluid_bound_qps(card, *lengths, 256, True)
        < fluid_bound_qps(card, *lengths, 256)
        < fluid_bound_qps(card, *lengths)
    )


@pytest.mark.parametrize("latency", [LINEAR, ROOFLINE])
def test_no_iteration_is_faster_than_the_hardware(latency):
    """312 TFLOP/s and 2.04 TB/s: 2 FLOP per parameter and token, and the weights read once per iteration."""
    done = run(RunSpec(trace=TRACE, system="niyama", load_qps=4.0, requests=500, latency=latency), log=True)
    _, _, duration_s, _, decodes, context, prefill, *_ = done.run.log.T
    compute_s = 2 * 6.98e9 * (decodes + prefill) / 312e12
    memory_s = (2 * 6.98e9 + 131072 * context) / 2.04e12
    assert (duration_s >= np.maximum(compute_s, memory_s)).all()
