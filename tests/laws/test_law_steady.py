"""What niyama-steady adds: time in hand that no bias uses up, slots for the urgent, a share for the late."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import BUILT_IN, QoSClass, load_card
from niyama.kv import _victim
from niyama.requests import new_table
from niyama.scheduler import Arrival, Scheduler, Timing
from niyama.sim import Requests, shared, simulate
from niyama.sim.replica import LOG_COLUMNS
from niyama.state import new_state
from niyama.step import CHUNK, LEFT
from niyama.waiting import RECENT
from tests.helpers.workloads import ROOFLINE, last_token_s, tokens_of

NIYAMA, STEADY = BUILT_IN["niyama"], BUILT_IN["niyama-steady"]
CHAT, BATCH = QoSClass("chat", ttft_s=6.0, tbt_s=0.05), QoSClass("batch", ttlt_s=36_000.0)
EXECUTOR = replace(ROOFLINE, kv_tokens=4_000_000)
SLACK, DURATION, PREFILL, START = (
    1 + LOG_COLUMNS.index(name) for name in ("min_slack_s", "duration_s", "prefill_tokens", "start_s")
)


def requests(*rows):
    """Rows of (class, arrival_s, prompt, output); all important."""
    classes = (CHAT, BATCH)
    which, arrival_s, prompt, output = (np.array(column) for column in zip(*rows, strict=True))
    return Requests(classes, which, arrival_s.astype(float), prompt, output, np.ones(len(rows), bool))


@settings(max_examples=12)
@given(st.floats(0.5, 2.0), st.floats(1.0, 2.0), st.sampled_from((0.0, 2.0, 4.0, 8.0)))
def test_slack_rests_at_the_reserve_and_the_margin_over_the_bias(bias, margin, reserve_tokens):
    """One answer decodes beside endless prompts: whatever the predictor's bias, steps come to last one TBT.

    A predictor that is `bias` times too fast gives a step of bias * slack / margin; slack changes by TBT less the step.
    So it comes to rest where the step is one TBT, and what is left then is reserve * TBT + margin / bias * TBT.
    """
    work = requests((0, 0.0, 100, 3000), *[(1, 0.0, 4000, 1)] * 700)
    wrong = replace(EXECUTOR, coefficients=tuple(c / bias for c in EXECUTOR.coefficients))
    policy = replace(NIYAMA, margin=margin, reserve_tokens=reserve_tokens)
    run = simulate(shared(policy), work, EXECUTOR, wrong, log=True)
    rows = run.log[np.isfinite(run.log[:, SLACK]) & (run.log[:, PREFILL] > 0)]
    assert len(rows) > 1500
    for row in rows[1000:1500]:
        assert row[DURATION] == pytest.approx(0.05, rel=0.01)
        assert row[SLACK] == pytest.approx(margin / bias * 0.05, rel=0.01)  # the reserve is not in it
    in_hand_s = 6.0 + 0.05 * np.arange(3000) - tokens_of(run, 0)
    assert in_hand_s[1400] == pytest.approx((reserve_tokens + margin / bias) * 0.05 - 0.05, rel=0.02)


# Four slots, all taken by batch requests that decode for minutes and have hours to do so; then somebody writes.
TAKEN = requests(*[(1, 0.0, 500, 3000)] * 4, (0, 2.0, 500, 20), (0, 40.0, 500, 20))


def test_an_urgent_request_gets_the_slot_of_one_that_has_time_to_spare():
    """Both chats meet their TTFT, each by one preemption in its second half; all batch requests meet their deadline."""
    run = simulate(shared(replace(STEADY, max_running=4)), TAKEN, EXECUTOR, EXECUTOR)
    ttft_s = np.array([tokens_of(run, r)[0] for r in (4, 5)]) - TAKEN.arrival_s[4:]
    assert np.all((ttft_s > 2.9) & (ttft_s < 3.5))
    assert run.preemptions.sum() == 2 and run.preemptions[4:].sum() == 0
    assert last_token_s(run).max() < 36_000


def test_without_it_the_urgent_request_waits_for_an_output_to_end():
    run = simulate(shared(replace(STEADY, max_running=4, take_slots=False)), TAKEN, EXECUTOR, EXECUTOR)
    assert tokens_of(run, 4)[0] - 2.0 > 30 and run.preemptions.sum() == 0


@pytest.mark.parametrize(
    ("holder", "ttlt_s", "preemptions"), [(1, 36_000.0, 1), (1, 300.0, 0), (0, 36_000.0, 0)], ids=str
)
def test_nobody_is_harmed_for_a_slot(holder, ttlt_s, preemptions):
    """Whose slot is taken would hardly meet its own deadline, or is interactive too: the urgent one waits."""
    work = requests(*[(holder, 0.0, 500, 3000)] * 4, (0, 2.0, 500, 20))
    work = replace(work, classes=(CHAT, QoSClass("batch", ttlt_s=ttlt_s)))
    policy = replace(STEADY, max_running=4, estimator="constant", estimator_value=3000.0)
    assert simulate(shared(policy), work, EXECUTOR, EXECUTOR).preemptions.sum() == preemptions


def overload(seconds, crowd):
    """8 batch requests/s of 1,500 tokens, more than a replica can serve, and `crowd` chats at once after a minute."""
    batch = [(1, i / 8, 1500, 20) for i in range(8 * seconds)]
    rows = sorted([*batch, *[(0, 60.0, 1500, 20)] * crowd], key=lambda row: row[1])
    return replace(requests(*rows), classes=(CHAT, QoSClass("batch", ttlt_s=600.0)))


@pytest.mark.parametrize("late_share", [0.05, 0.2])
def test_late_requests_have_a_share_of_the_prefill(late_share):
    """The last of them waits until their share has come to all their prompts, and not for the overload to end."""
    work = overload(1200, crowd=120)
    chats, longest_s, prompts = work.class_index == 0, {}, {}
    for share in (0.0, late_share):
        run = simulate(shared(replace(STEADY, late_share=share)), work, EXECUTOR, EXECUTOR, log=True)
        ttft_s = (run.token_s[run.token_start[:-1]] - work.arrival_s)[chats]
        late = ttft_s > 6.0
        assert late.any() and np.all(run.still_relegated[chats] == late)
        longest_s[share], prompts[share] = ttft_s.max(), 1500 * late.sum()
    busy = (run.log[:, START] > 60) & (run.log[:, START] < 600)
    rate = run.log[busy, PREFILL].sum() / 540
    assert longest_s[late_share] < 10 + prompts[late_share] / (late_share * rate) < 900 < longest_s[0.0]


def test_a_late_prompt_gets_its_share_of_the_kv_too():
    """Smaller newcomers would take what comes free for ever: a prompt of three quarters of the KV is late, 4.5 chats
    come a second. The bound is 9 s and 90 s, plus the time until that much KV has come free."""
    few, calm = replace(load_card("a100-llama3-8b-linear"), kv_tokens=16_000), QoSClass("calm", ttft_s=6.0, tbt_s=0.1)
    arrival_s = np.sort(np.random.default_rng(0).uniform(0.0, 300.0, 1350))
    rows = sorted([*[(0, float(s), 600, 200) for s in arrival_s], (1, 5.0, 12_000, 10)], key=lambda row: row[1])
    work = replace(requests(*rows), classes=(calm, QoSClass("hasty", ttft_s=0.2, tbt_s=0.1)))
    big = int(np.flatnonzero(work.class_index == 1)[0])
    wait_s = {}
    for share in (0.05, 0.5):
        run = simulate(shared(replace(STEADY, late_share=share)), work, few, few)
        wait_s[share] = tokens_of(run, big)[0] - 5.0
    assert wait_s[0.5] < 30 and wait_s[0.05] < 120, "the load ends after 300 s"


def test_whoever_is_served_late_is_not_made_to_start_again():
    """With KV full, a late request keeps what it was prefilled out of turn for; batch requests give up theirs."""
    tight, guesses = replace(EXECUTOR, kv_tokens=60_000), replace(STEADY, estimator="constant", estimator_value=2.0)
    work = overload(600, crowd=60)
    work = replace(work, output_tokens=np.full(len(work), 400))
    run = simulate(shared(guesses), work, tight, tight)
    late = (work.class_index == 0) & run.still_relegated
    assert late.sum() > 10 and run.preemptions.sum() > 100 and run.preemptions[late].max() <= 1


@pytest.mark.parametrize("important", [True, False])
def test_a_batch_request_at_the_head_of_the_line_does_not_keep_a_chat_from_its_slot(important):
    """Whoever is first in line and would be lost gets a slot; then the next one is first."""
    soon = QoSClass("soon", ttlt_s=60.0)
    rows = [*[(1, 0.0, 500, 3000)] * 4, (2, 0.5, 500, 20), (0, 40.0, 500, 20)]
    work = replace(requests(*rows), classes=(CHAT, BATCH, soon), important=np.array([True] * 5 + [important]))
    run = simulate(shared(replace(STEADY, max_running=4)), work, EXECUTOR, EXECUTOR)
    assert tokens_of(run, 5)[0] - 40.0 < 6.0 and last_token_s(run)[4] < 60.5


def arrive(scheduler, arrival_s, tbt_s=None, ttlt_s=600.0):
    """A request of 1,000 tokens; its row."""
    slo_s = ttlt_s if tbt_s is None else 6.0
    return scheduler.arrive(Arrival(arrival_s, 1000, slo_s, tbt_s or 0.0, tbt_s is not None, True, 0))


def test_one_request_with_a_tiny_tbt_does_not_order_batch_requests_for_ever():
    scheduler = Scheduler(STEADY, EXECUTOR, kv_tokens=1_000_000, apps=1)
    for tbt_s, count in ((0.001, 1), (0.05, 2 * RECENT)):
        for _ in range(count):
            scheduler.report(LEFT, arrive(scheduler, 0.0, tbt_s=tbt_s), 0)
        scheduler.step(Timing(0.0, 0.0, 0.0, 0))
        assert scheduler.state.totals["tightest_tbt_s"] == tbt_s


def test_batch_requests_that_differ_by_arrival_alone_are_ranked_by_it():
    """Also when the first came before any plan, and when the longest step has become another in between."""
    scheduler = Scheduler(STEADY, EXECUTOR, kv_tokens=1_000_000, apps=1)
    first = arrive(scheduler, 0.0)
    scheduler.step(Timing(0.0, 0.0, 0.0, 0))
    arrive(scheduler, 0.5, tbt_s=0.05)  # a longest step of 2.5 TBT instead of a full chunk
    second = arrive(scheduler, 1.0)
    scheduler.report(CHUNK, first, 0)
    scheduler.step(Timing(1.0, 1.0, 1.0, 0))
    scheduler.report(CHUNK, first, 0)
    keys = scheduler.table.key
    assert keys[second] - keys[first] == pytest.approx(1.0)


def test_vllm_and_the_kernel_take_kv_from_the_same_request():
    """vLLM takes that of the highest priority number."""
    pytest.importorskip("vllm")
    from niyama.vllm.records import vllm_priority

    random = np.random.default_rng(0)
    for _ in range(100):
        table, state = new_table(8), new_state(8, 8, 1, 16_000, 0.008)
        table.important[:], table.relegated[:] = random.random((2, 8)) < 0.5
        table.late[:] = table.relegated & table.important & (random.random(8) < 0.5)
        table.key[:] = random.permutation(8)
        state.running[:8], state.totals["running"] = np.arange(8), 8
        assert _victim(state, table) == max(range(8), key=lambda row: vllm_priority(table, row))
