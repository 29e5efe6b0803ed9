"""The same input gives the same bits: per seed, shifted in time, without the future, with the shortcut, interpreted."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers.workloads import COLUMN, POLICIES, assert_same_run, cases, kv_for, last_token_s

ROOT = Path(__file__).parents[2]

every_policy = pytest.mark.parametrize("name", POLICIES)
TIMES = ("first_scheduled_s", "token_s")
DECISIONS = ("replica", "token_start", "relegations", "still_relegated", "preemptions", "iterations", "un_relegations")
SHIFT_S = 2.0**20


@every_policy
@settings(max_examples=15)
@given(case=cases())
def test_a_seed_gives_the_same_bytes_again(name, case):
    policy = case.policy(name)
    assert_same_run(case.run(policy), case.run(policy))


@every_policy
@settings(max_examples=30)
@given(case=cases())
def test_the_decode_only_shortcut_gives_what_the_long_way_gives(name, case):
    """Without a log, iterations of decodes alone skip the plan; every raw time is the same to the last bit."""
    policy = case.policy(name)
    assert_same_run(case.run(policy, log=True), case.run(policy, log=False), skip=("log",))


@every_policy
@settings(max_examples=30)
@given(case=cases(classes=("paper", "tight", "mixed")))
def test_shifting_all_arrivals_shifts_all_times(name, case):
    """Decisions do not depend on when the clock started. (Arrivals are multiples of 1/16 s: the shift is exact.)"""
    policy, requests = case.policy(name), case.requests
    later = replace(case, requests=replace(requests, arrival_s=requests.arrival_s + SHIFT_S))
    first, second = case.run(policy), later.run(policy)
    for field in DECISIONS:
        np.testing.assert_array_equal(getattr(first, field), getattr(second, field), err_msg=field)
    for field in TIMES:
        np.testing.assert_allclose(getattr(second, field) - SHIFT_S, getattr(first, field), rtol=0, atol=1e-6)
    counts = [COLUMN[c] for c in ("decodes", "decode_context_tokens", "prefill_tokens", "prefill_requests", "queued")]
    np.testing.assert_array_equal(first.log[:, counts], second.log[:, counts])


@every_policy
@settings(max_examples=40)
@given(case=cases(), share=st.floats(0.0, 1.0), draw=st.integers(0, 99))
def test_decisions_do_not_know_outputs_that_have_not_ended(name, case, share, draw):
    """No oracle: change the outputs of requests unfinished at time T, and the log up to T stays the same."""
    policy, requests = case.policy(name), case.requests
    roomy = replace(case, executor=replace(case.executor, kv_tokens=kv_for(requests, 300)))
    first = roomy.run(policy)
    cut_s = share * first.token_s.max()
    owner = np.repeat(np.arange(len(requests)), requests.output_tokens)
    by_then = np.bincount(owner, weights=first.token_s <= cut_s, minlength=len(requests)).astype(int)
    other = np.random.default_rng(draw).integers(1, 250, len(requests))
    outputs = np.where(last_token_s(first) > cut_s, by_then + other, requests.output_tokens)
    outputs = np.minimum(outputs, requests.output_tokens + 300)  # still within the KV, still unfinished at T
    second = replace(roomy, requests=replace(requests, output_tokens=outputs)).run(policy)
    rows = first.log[:, COLUMN["start_s"]] <= cut_s
    np.testing.assert_array_equal(first.log[rows], second.log[: rows.sum()])
    np.testing.assert_array_equal(
        np.where(first.first_scheduled_s <= cut_s, first.first_scheduled_s, 0.0),
        np.where(second.first_scheduled_s <= cut_s, second.first_scheduled_s, 0.0),
    )


def test_compiled_and_interpreted_code_decide_alike(tmp_path):
    """With NUMBA_DISABLE_JIT=1 the same source is plain Python; whole results, log included, agree byte for byte."""
    results = []
    for disabled in ("0", "1"):
        out = tmp_path / f"{disabled}.npz"
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled}
        subprocess.run([sys.executable, "-m", "tests.helpers.fixed_cases", out], check=True, env=environment, cwd=ROOT)
        results.append(np.load(out))
    compiled, interpreted = results
    assert sorted(compiled) == sorted(interpreted)
    for key in compiled:
        np.testing.assert_array_equal(compiled[key], interpreted[key], err_msg=key, strict=True)
