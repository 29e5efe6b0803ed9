"""Relegation: only on a predicted miss, low importance first, never without deadlines, and never for ever."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import BUILT_IN, QoSClass
from niyama.latency import empty_batch, seconds, with_prefill
from niyama.queues import LOW
from niyama.requests import QUEUED
from niyama.sim import Requests
from tests.helpers.stepping import plans
from tests.helpers.workloads import POLICIES, RELEGATING, ROOFLINE, Case, cases, last_token_s, steps

CONTENDED = ("contended", "mixed", "tight")


@pytest.mark.parametrize("name", POLICIES)
@settings(max_examples=25)
@given(case=cases(classes=("loose", "absurd")))
def test_nothing_is_relegated_when_all_deadlines_are_far(name, case):
    run = case.run(case.policy(name), log=False)
    assert run.relegations.sum() == run.un_relegations == 0


class Forecast:
    """The forecast of `niyama.plan.forecast` in plain numbers, from the state before a plan.

    During a plan backlogs only shrink, so that what is no miss here is none there either.
    """

    def __init__(self, planned, policy):
        self.t, self.totals, self.now_s, self.policy = planned.before, planned.totals_before, planned.now_s, policy
        self.model = planned.predictor
        self.decodes = empty_batch(int(self.totals["running"]), int(self.totals["running_context"]))
        self.full_s = seconds(self.model, with_prefill(self.decodes, 0, policy.max_chunk_tokens))

    def left(self, r):
        return int(self.t.target_tokens[r] - self.t.computed_tokens[r])

    def full_chunks_s(self, tokens):
        return tokens * self.full_s / self.policy.max_chunk_tokens

    def prefill_s(self, r):
        if self.left(r) > self.policy.max_chunk_tokens:
            return self.full_chunks_s(self.left(r))
        return seconds(self.model, with_prefill(self.decodes, int(self.t.computed_tokens[r]), self.left(r)))

    def decode_s(self, r):
        tokens = max(0.0, self.t.decode_estimate[r] - self.t.emitted_tokens[r] - 1.0)
        context = int(self.totals["running_context"] + self.t.target_tokens[r])
        step_s = seconds(self.model, empty_batch(int(self.totals["running"]) + 1, context))
        queued_s, share = self.full_chunks_s(self.totals["queued_prefill_tokens"]), self.policy.queued_prefill_share
        return tokens * step_s + share * min(queued_s, tokens * max(0.0, self.full_s - step_s))

    def misses(self, r, after_s=0.0):
        t = self.t
        earliest_s = self.now_s + after_s + self.prefill_s(r) + (0.0 if t.interactive[r] else self.decode_s(r))
        due_s = t.deadline_s[r] + (t.emitted_tokens[r] * t.tbt_s[r] if t.interactive[r] else 0.0)
        return earliest_s > due_s - 1e-9

    def misses_behind(self, i, low):
        """Whether important request i misses if `low`, and the important interactive prompts, go first."""
        ahead = self.left(low)
        if self.t.interactive[i]:
            ahead += self.totals["important_interactive_tokens"] - self.left(i)
        return self.misses(i, self.full_chunks_s(ahead))


@pytest.mark.parametrize("name", RELEGATING)
@settings(max_examples=25)
@given(case=cases(most=20, classes=CONTENDED), share=st.sampled_from((0.5, 0.0, 1.0)))
def test_a_request_is_relegated_only_on_a_predicted_miss(name, case, share):
    """Its own, or, of low importance, that of an important one which it would delay or which misses already."""
    policy = replace(case.policy(name), queued_prefill_share=share)
    for planned in plans(case, policy):
        t, before = planned.table, planned.before
        relegated = np.flatnonzero(t.relegations > before.relegations)
        if len(relegated) == 0:
            continue
        forecast = Forecast(planned, policy)
        important = np.flatnonzero((before.state == QUEUED) & before.important & ~before.relegated)
        for r in relegated:
            assert t.relegations[r] == before.relegations[r] + 1
            for_others = policy.make_room and not t.important[r]
            assert forecast.misses(r) or (
                for_others and any(forecast.misses(i) or forecast.misses_behind(i, r) for i in important)
            )


@pytest.mark.parametrize("name", [name for name in RELEGATING if POLICIES[name].make_room])
@settings(max_examples=25)
@given(case=cases(most=20, classes=CONTENDED))
def test_no_important_request_is_relegated_while_a_low_one_waits_unrelegated(name, case):
    """Hints (section 3.4): when an important request is relegated, every low-importance one in line went before it."""
    for planned in plans(case, case.policy(name)):
        t, before = planned.table, planned.before
        if np.any(t.important & (t.relegations > before.relegations)):
            returned = t.relegations > before.relegations  # relegated, and un-relegated later in the same plan
            assert not np.any((t.queue == LOW) & ~returned & (before.state == QUEUED) & ~before.relegated)


# Constructed cases: full chunks of 2,500 tokens take some 0.24 s on the roofline model.
HUGE_KV = replace(ROOFLINE, kv_tokens=1_000_000)
NIYAMA = BUILT_IN["niyama"]


def constructed(*rows):
    """A case of rows (class, arrival_s, prompt, output, important), each class its own."""
    classes, arrivals, prompts, outputs, important = zip(*rows, strict=True)
    requests = Requests(
        classes, np.arange(len(rows)), np.array(arrivals), np.array(prompts), np.array(outputs), np.array(important)
    )
    return Case(requests, HUGE_KV, HUGE_KV, 0.0, 0, ())


def chat(ttft_s):
    return QoSClass(f"{ttft_s}", ttft_s=ttft_s, tbt_s=10.0)


STARTED_AND_URGENT = constructed((chat(0.55), 0.0, 5000, 1, True), (chat(0.4), 0.1, 2500, 1, True))


def test_a_started_prompt_that_one_more_iteration_would_doom_is_kept():
    """Selective preemption, rule 2: the second request ranks higher, and waits."""
    run = STARTED_AND_URGENT.run(NIYAMA)
    first_s, second_s = last_token_s(run)
    assert first_s < 0.55 < second_s
    assert list(run.relegations) == [0, 1]


def test_without_protection_the_started_prompt_is_the_one_to_miss():
    run = STARTED_AND_URGENT.run(replace(NIYAMA, protect_started=False))
    first_s, second_s = last_token_s(run)
    assert second_s < 0.5 and 0.55 < first_s
    assert list(run.relegations) == [1, 0]


def test_a_started_prompt_that_can_wait_is_passed_over_and_keeps_its_kv():
    """Preemption of a prefill is a delay: its tokens stay in KV, nothing is computed again."""
    case = constructed((chat(2.0), 0.0, 5000, 1, True), (chat(0.4), 0.1, 2500, 1, True))
    states = [(table.computed_tokens[0], table.emitted_tokens[1]) for _, table, _ in steps(case, NIYAMA)]
    assert states[:2] == [(2500, 0), (2500, 1)]
    run = case.run(NIYAMA)
    assert run.preemptions.sum() == run.relegations.sum() == 0
    assert last_token_s(run)[1] < 0.5 and last_token_s(run)[0] < 2.0


def test_a_relegated_started_prompt_gives_up_its_kv_and_may_take_it_back_at_once():
    """Its second chunk takes longer than foreseen, it is doomed, and alone on the replica: no plan is empty."""
    case = constructed((chat(0.495), 0.0, 5000, 1, True))
    case, policy = replace(case, executor=replace(HUGE_KV, kv_tokens=5008)), replace(NIYAMA, kv_low_tokens=0)
    chunks = [planned.chunks for planned in plans(case, policy)]
    assert chunks == [[(0, 2500)]] * 3  # the first chunk is lost
    assert list(case.run(policy).preemptions) == [1]
    slots = replace(policy, max_running=1)
    assert [planned.chunks for planned in plans(replace(case, executor=HUGE_KV), slots)] == chunks


IN_THE_WAY = constructed((chat(0.3), 0.0, 2500, 1, False), (chat(0.4), 0.0, 2500, 1, True))


def test_a_low_request_in_the_way_of_an_important_one_steps_aside():
    """make_room: both are feasible alone, one of them must miss, and it is the one of low importance."""
    low_s, important_s = last_token_s(IN_THE_WAY.run(NIYAMA))
    assert important_s < 0.3 < low_s
    low_s, important_s = last_token_s(IN_THE_WAY.run(replace(NIYAMA, make_room=False)))
    assert low_s < 0.3 and important_s > 0.4


def test_a_low_request_that_is_not_in_the_way_keeps_its_turn():
    """make_room relegates nobody when the important request has time for both."""
    case = constructed((chat(0.3), 0.0, 2500, 1, False), (chat(0.6), 0.0, 2500, 1, True))
    run = case.run(NIYAMA)
    assert run.relegations.sum() == 0
    assert last_token_s(run)[0] < 0.3 and last_token_s(run)[1] < 0.6


ASIDE_FOR_A_WHILE = constructed((chat(1.0), 0.0, 1250, 2, False), (chat(0.3), 0.0, 2500, 1, True))


def test_a_relegated_request_that_can_still_make_it_returns():
    """Un-relegation: it stepped aside for an important one, and is an ordinary request again when its turn comes."""
    run = ASIDE_FOR_A_WHILE.run(NIYAMA)
    assert list(run.relegations) == [1, 0]
    assert run.un_relegations == 1
    assert not run.still_relegated.any()
    assert last_token_s(run)[0] < 1.0 and last_token_s(run)[1] < 0.3


def test_without_un_relegation_a_relegated_request_stays_so_and_finishes():
    run = ASIDE_FOR_A_WHILE.run(replace(NIYAMA, un_relegate=False))
    assert list(run.still_relegated) == [True, False]
    assert run.un_relegations == 0
    assert np.all(np.isfinite(run.token_s))
