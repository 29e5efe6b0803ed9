"""The policies of `policies/`, each against an example worked out by hand from its source's rule."""

import math

import numpy as np
import pytest

from niyama import Policy
from niyama.inputs import Decode, Forecast, Job, Limits, Step
from niyama.latency.model import Batch, LatencyModel, empty_batch, seconds, with_prefill
from niyama.own_rules import source_of
from tests.helpers.peers import FOLDER, LEAVING_OUT, PEERS

#: A step takes 10 ms and 0.1 ms a token.
MODEL = LatencyModel(1, np.array([0.01, 0.0001, 0.0, 0.0, 0.0]))
LIMITS = Limits(2500, 128, 1.0, 10**6, 0, 512)
STEP = Step(now_s=100.0, step_s=0.25, mean_step_s=0.02, kv_used=0.5, decodes=8, queued_prefill_tokens=5000,
            tightest_interval_s=0.05)  # fmt: skip
DECODE = Decode(slack_s=1.0, interval_s=0.2, emitted_tokens=5, left_out=0, credit=0.5, interactive=True, important=True)
JOB = Job(arrival_s=90.0, deadline_s=106.0, prompt_tokens=1000, prefill_left=1000, decode_left=10.0, interactive=True,
          now_s=100.0, step_s=0.25, queued_prefill_tokens=20_000)  # fmt: skip


def asked(name, rule):
    """The rule as plain Python."""
    return source_of(getattr(PEERS[name], rule))


def test_every_file_holds_one_policy_of_its_name_with_its_source():
    files = sorted(FOLDER.glob("*.py"))
    assert len(files) == len(PEERS)
    assert LEAVING_OUT == tuple(name for name, policy in PEERS.items() if policy.leaves_out)
    for path in files:
        text = path.read_text()
        assert "Source:" in text.split('"""')[1] or "arXiv" in text.split('"""')[1], path
        assert PEERS[path.stem.replace("_", "-")].name == path.stem.replace("_", "-")
        assert len(text.splitlines()) <= 80, path


def budget(name, batch, slack_s=np.inf, prefix=0, **limits):
    return asked(name, "prefill_budget")(MODEL, batch, LIMITS._replace(**limits), prefix, slack_s)


@pytest.mark.parametrize(
    ("prompts", "decodes", "placed", "tokens"),
    [(1, 4, 0, 16_380), (2, 0, 0, 16_384), (2, 4, 0, 2048), (2, 4, 2000, 48), (3, 4, 2048, 0)],
)
def test_ppas_prefills_2048_tokens_where_prompts_contend_beside_decodes(prompts, decodes, placed, tokens):
    batch = Batch(decodes, 1000 * decodes, placed, 0.0, 0)
    assert budget("ppas", batch, max_chunk_tokens=16_384, prompts=prompts, decodes=decodes) == tokens


def test_preflow_ranks_by_work_that_doubles_in_urgency_every_10_s():
    """ln(500500) twice for 1000 tokens; 10 s later is worth ln 2; half done leaves W(1000) - W(500)."""
    rank = asked("preflow", "rank")
    new = rank(JOB, 0.0)
    assert new == pytest.approx(2 * math.log(500_500) + 9.0 * math.log(2.0))
    assert rank(JOB._replace(arrival_s=100.0), 0.0) - new == pytest.approx(math.log(2.0))
    half = rank(JOB._replace(prefill_left=500), 0.0)
    assert half - new == pytest.approx(math.log((500_500 - 125_250) / 500_500))


@pytest.mark.parametrize(
    ("left_out", "kv_used", "queued", "due"),
    [(4, 0.5, 5000, False), (5, 0.5, 5000, True), (0, 0.96, 5000, True), (0, 0.5, 504, True), (0, 0.5, 505, False)],
)
def test_slai_runs_a_decode_from_its_last_start_time_on(left_out, kv_used, queued, due):
    """TBT 0.2 s is 10 mean steps: due 5 of them early, or all 10 when KV is low; or when 512 tokens hold everybody."""
    decode, step = DECODE._replace(left_out=left_out), STEP._replace(kv_used=kv_used, queued_prefill_tokens=queued)
    assert asked("slai", "due")(decode, step) == due


def test_slai_serves_begun_prompts_and_then_the_shortest():
    rank = asked("slai", "rank")
    long, short, begun = JOB, JOB._replace(prompt_tokens=10, prefill_left=10), JOB._replace(prefill_left=1)
    assert rank(begun, 0.0) < rank(short, 0.0) < rank(long, 0.0)


@pytest.mark.parametrize(("slack_s", "queued", "due"), [(0.49, 1, True), (0.51, 1, False), (9.0, 0, True)])
def test_fair_batching_runs_who_would_be_late_in_the_step_after_next(slack_s, queued, due):
    step = STEP._replace(queued_prefill_tokens=queued)
    assert asked("fair-batching", "due")(DECODE._replace(slack_s=slack_s), step) == due


def test_slide_batching_ranks_urgent_prompts_by_density_before_the_others_by_deadline():
    """20,000 queued tokens at 0.1 ms are 2 s: due in 6 s is not urgent, in 1.9 s is, and then the shorter one leads."""
    rank = asked("slide-batching", "rank")
    assert rank(JOB, 0.0) == 106.0
    urgent = rank(JOB._replace(deadline_s=101.9), 0.0)
    assert urgent == pytest.approx(-1e6 - 1.0 / 0.1)
    assert rank(JOB._replace(deadline_s=101.9, prefill_left=500), 0.0) == pytest.approx(urgent - 10.0)
    assert rank(JOB._replace(deadline_s=101.9, weight=0.5), 0.0) == pytest.approx(urgent + 5.0)


def test_slide_batching_fills_the_least_time_in_hand_or_two_thirds_of_a_tbt():
    """50 ms hold 400 tokens beside nothing else; without time in hand 0.65 * 50 ms hold 225."""
    assert budget("slide-batching", empty_batch(0, 0), 0.05, tbt_s=0.05) == pytest.approx(400, abs=1)
    assert budget("slide-batching", empty_batch(0, 0), -1.0, tbt_s=0.05) == pytest.approx(225, abs=1)
    load_s = 5000 * 0.0001
    due = asked("slide-batching", "due")
    assert due(DECODE._replace(slack_s=load_s + 0.24), STEP) and not due(DECODE._replace(slack_s=load_s + 0.26), STEP)


def test_two_step_takes_the_chunk_that_makes_two_steps_cheapest():
    """600 tokens wait, of which 400 fit now. The constant 10 ms is paid twice anyhow: what counts is all 600 in two."""
    slack_s, next_slack_s, queued = 0.05, 0.1, 600
    cost = {}
    for part in range(1, 9):
        first = 400 * part // 8
        time_s = 0.01 + 0.0001 * first
        second = min(queued - first, int((next_slack_s - time_s - 0.01) / 0.0001 + 1e-6))
        cost[first] = (time_s + 0.01 + 0.0001 * second) / (first + second)
    best = max(first for first in cost if cost[first] <= min(cost.values()) + 1e-12)
    chosen = budget("two-step", empty_batch(0, 0), slack_s, queued_prefill_tokens=queued, next_slack_s=next_slack_s)
    assert chosen == pytest.approx(best, abs=1)
    assert budget("two-step", empty_batch(0, 0), -1.0, queued_prefill_tokens=queued) == 128
    assert budget("two-step", with_prefill(empty_batch(0, 0), 0, 2000)) == 500


def test_two_step_serves_who_has_least_time_for_its_work():
    """0.1 s of work in 6 s; a sixth of that in 1 s is as tight; who cannot make it goes last, the shortest first."""
    rank = asked("two-step", "rank")
    assert rank(JOB, 0.0) == pytest.approx(-0.1 / 6.0)
    assert rank(JOB._replace(deadline_s=101.0), 0.0) == pytest.approx(-0.1)
    assert rank(JOB._replace(deadline_s=100.05), 0.0) == pytest.approx(1.1)


@pytest.mark.parametrize(("earliest_s", "delayed"), [(15.994, False), (15.996, True), (17.0, True)])
def test_scorpio_delays_who_has_less_than_5_ms_to_spare(earliest_s, delayed):
    assert asked("scorpio", "doomed")(Forecast(10.0, earliest_s, 16.0, 500, False, 8500.0)) == delayed


def test_scorpio_runs_a_decode_of_four_times_the_tightest_tbt_in_every_fourth_step():
    """It earns a quarter a step and pays 1; the tightest earns 1 and always runs."""
    has_credit, ran = asked("scorpio", "due"), []
    for interval_s in (0.05, 0.2):
        credit, due = 0.0, []
        for _ in range(8):
            credit += STEP.tightest_interval_s / interval_s
            due.append(has_credit(DECODE._replace(credit=credit), STEP))
            credit -= due[-1]
        ran.append(due)
    assert ran == [[True] * 8, [False, False, False, True] * 2]


def test_slos_serve_packs_one_tpot_and_the_slack():
    """50 ms hold 400 tokens, 30 ms of slack 200, and without slack the least chunk goes on; due within two TPOTs."""
    for slack_s, tokens in ((np.inf, 400), (0.03, 200), (-1.0, 128)):
        assert budget("slos-serve-edf", empty_batch(0, 0), slack_s, step_s=0.05) == pytest.approx(tokens, abs=1)
    due = asked("slos-serve-edf", "due")
    assert due(DECODE._replace(slack_s=0.09), STEP) and not due(DECODE._replace(slack_s=0.11), STEP)


def test_vtc_serves_the_tenant_that_was_served_least():
    rank = asked("vtc", "rank")
    little, much = JOB._replace(tenant_virtual=100.0), JOB._replace(tenant_virtual=101.0, arrival_s=0.0)
    assert rank(little, 0.0) < rank(much, 0.0)
    assert rank(little._replace(arrival_s=89.0), 0.0) < rank(little, 0.0)


def test_vllm_priority_serves_the_important_first_and_cuts_long_prompts():
    rank = asked("vllm-priority", "rank")
    assert rank(JOB, 0.0) < rank(JOB._replace(weight=0.5, arrival_s=0.0), 0.0)
    batch = empty_batch(48, 48_000)
    assert budget("vllm-priority", batch, max_chunk_tokens=2048, prompts=1, decodes=48) == 512
    assert budget("vllm-priority", with_prefill(batch, 0, 1800), max_chunk_tokens=2048, prompts=2, decodes=48) == 200
    assert budget("vllm-priority", empty_batch(0, 0), max_chunk_tokens=2048, prompts=1, decodes=0) == 2048


def test_the_model_of_these_examples_is_what_they_say():
    assert seconds(MODEL, with_prefill(empty_batch(0, 0), 0, 400)) == pytest.approx(0.05)
    assert all(isinstance(policy, Policy) for policy in PEERS.values())
