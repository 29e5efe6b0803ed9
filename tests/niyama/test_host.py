"""The scheduler as an object: what hosts report is taken in, rows come back, and room grows with the queue."""

from __future__ import annotations

import numpy as np
import pytest
from numba.core.config import DISABLE_JIT

from niyama import BUILT_IN, load_card
from niyama.host import FIRST_ROWS, Arrival, Host, Timing
from niyama.scheduler import KV_FREE_BLOCKS, KV_HELD_TOKENS, KV_TOTAL_BLOCKS, QUEUED, QUEUED_PREFILL_TOKENS, RUNNING
from niyama.turn import ALL_DECODED, CHUNK, DECODED, ENDED, LEFT, LOST, NO_ROOM, SIZED, SLOTTED

CARD = load_card("a100-llama3-8b-roofline")


def new_host(**sizes: int) -> Host:
    return Host(BUILT_IN["niyama"], CARD, **{"kv_tokens": 160_000, "apps": 2, **sizes})


def chat(arrival_s: float, prompt_tokens: int) -> Arrival:
    return Arrival(arrival_s, prompt_tokens, 6.0, 0.05, True, True, 0)


def batch(arrival_s: float, prompt_tokens: int) -> Arrival:
    return Arrival(arrival_s, prompt_tokens, 600.0, 0.0, False, True, 1)


def grant_all(host: Host, now_s: float, steps: int = 1):
    """Take turns in which all that is planned is granted; returns the last plan."""
    plan = None
    for _ in range(steps):
        plan = host.turn(Timing(now_s, now_s - 0.01, now_s, 0))
        host.report(ALL_DECODED, 0)
        for row, tokens in zip(plan.rows, plan.tokens, strict=True):
            host.report(CHUNK, row, tokens)
        now_s += 0.01
    return plan


def nothing_left(host: Host) -> bool:
    count = host.scheduler.count
    idle = not count[[RUNNING, QUEUED, KV_HELD_TOKENS, QUEUED_PREFILL_TOKENS]].any()
    return bool(idle and count[KV_FREE_BLOCKS] == count[KV_TOTAL_BLOCKS])


def test_more_requests_than_rows_keep_their_order() -> None:
    host = new_host()
    rows = [host.arrive(batch(0.001 * i, 100 + i)) for i in range(3 * FIRST_ROWS)]
    assert len(set(rows)) == len(rows)
    urgent = host.arrive(chat(1.0, 50))
    assert len(host.table.state) == 4 * FIRST_ROWS
    plan = host.turn(Timing(1.0, 1.0, 1.0, 0))
    assert plan.rows[:4] == [urgent, *rows[:3]]
    assert host.scheduler.count[QUEUED] == 3 * FIRST_ROWS + 1


def test_a_row_comes_back_the_turn_after_its_request_is_gone() -> None:
    host = new_host()
    row = host.arrive(chat(0.0, 20))
    grant_all(host, 0.0, 2)
    host.report(ENDED, row, 2)
    assert host.arrive(chat(0.1, 20)) != row
    host.turn(Timing(0.1, 0.1, 0.1, 0))
    assert host.arrive(chat(0.2, 30)) == row
    assert host.table.target_tokens[row] == 30 and host.table.emitted_tokens[row] == 0


@pytest.mark.parametrize("steps", [0, 1, 3], ids=["queued", "planned", "decoding"])
@pytest.mark.parametrize("kind", [ENDED, LEFT])
def test_leaving_frees_everything_whatever_it_was_doing(steps: int, kind: int) -> None:
    host = new_host()
    row = host.arrive(chat(0.0, 4000))  # two chunks: after one turn part of it is in KV
    grant_all(host, 0.0, steps)
    host.report(kind, row, 5 if kind == ENDED else 0)
    host.turn(Timing(1.0, 1.0, 1.0, 0))
    assert nothing_left(host)
    assert host.scheduler.history[0, 0] == (kind == ENDED)  # an aborted output is no example of an output length


def test_one_report_for_all_decodes_is_that_of_each() -> None:
    each, together = new_host(), new_host()
    for host in (each, together):
        rows = [host.arrive(chat(0.0, 15)) for _ in range(5)]
        grant_all(host, 0.0)
        host.turn(Timing(0.01, 0.0, 0.01, 75))
    for step in range(40):
        for row in rows:
            each.report(DECODED, row)
        together.report(ALL_DECODED, 0)
        timing = Timing(0.02 + 0.01 * step, 0.01, 0.02, 0)
        assert each.turn(timing) == together.turn(timing)
    for one, other in zip(each.table, together.table, strict=True):
        assert np.array_equal(one, other)
    assert np.array_equal(each.scheduler.count, together.scheduler.count)


def test_a_prompt_found_in_a_prefix_cache_is_shorter() -> None:
    host = new_host()
    row = host.arrive(batch(0.0, 900))  # the host's guess: 100 of 1,000 are cached
    plan = host.turn(Timing(0.0, 0.0, 0.0, 0))
    assert (plan.rows, plan.tokens) == ([row], [900])
    host.report(SIZED, row, 1000)
    host.report(CHUNK, row, 700 + 200)  # 700 were cached after all, 200 were granted
    plan = host.turn(Timing(0.1, 0.0, 0.1, 200))
    assert (plan.rows, plan.tokens) == ([row], [100])
    assert host.scheduler.count[QUEUED_PREFILL_TOKENS] == 100


def test_a_request_that_lost_its_kv_is_prefilled_with_its_output() -> None:
    host = new_host()
    row = host.arrive(chat(0.0, 100))
    grant_all(host, 0.0, 4)
    host.report(LOST, row)
    plan = host.turn(Timing(0.05, 0.04, 0.05, 0))
    assert (plan.rows, plan.tokens) == ([row], [104])
    assert plan.preemptions == 1


@pytest.mark.parametrize(("steps", "unseen"), [(4, 1), (4, 2), (1, 1)])
def test_output_that_the_host_drops_with_the_kv_is_not_out(steps: int, unseen: int) -> None:
    """It is made again, at its own deadline; a first token that was dropped sets the pace anew."""
    host = new_host()
    row = host.arrive(chat(0.0, 100))
    grant_all(host, 0.0, steps)
    host.report(LOST, row, unseen)
    plan = host.turn(Timing(7.0, 6.9, 7.0, 0))
    assert (plan.rows, plan.tokens) == ([row], [100 + steps - unseen])
    assert host.table.emitted_tokens[row] == steps - unseen
    host.report(CHUNK, row, plan.tokens[0])
    host.turn(Timing(7.1, 7.0, 7.1, plan.tokens[0]))
    assert host.table.emitted_tokens[row] == steps - unseen + 1
    assert host.table.pace_s[row] == (6.0 if steps > unseen else np.inf)  # a late first token leaves nothing to keep


def test_slower_steps_make_smaller_chunks() -> None:
    """The predictor is stretched by what the host measured."""
    chunks = []
    for scale in (1.0, 2.0):
        host = new_host()
        late = host.arrive(Arrival(0.0, 30, 0.5, 0.05, True, True, 0))
        grant_all(host, 0.0)
        host.turn(Timing(0.3, 0.0, 0.3, 30))
        host.arrive(batch(0.3, 5000))
        plan = host.turn(Timing(0.4, 0.3, 0.4, 0, scale))
        assert late not in plan.rows
        chunks.append(sum(plan.tokens))
    assert chunks[1] < 0.6 * chunks[0]


def test_kv_is_counted_in_the_hosts_blocks() -> None:
    host = new_host(kv_tokens=1600, block_tokens=160)
    host.arrive(batch(0.0, 161))
    grant_all(host, 0.0)
    host.turn(Timing(0.1, 0.0, 0.1, 161))
    assert host.scheduler.count[KV_TOTAL_BLOCKS] == 10
    assert host.scheduler.count[KV_FREE_BLOCKS] == 10 - 2  # 161 tokens and 128 for half of the estimated output


def test_one_without_room_and_those_behind_it_wait_an_iteration() -> None:
    """A prompt that has begun goes on meanwhile, and so does one that ranks before it."""
    host = new_host()
    begun = host.arrive(batch(0.0, 5000))
    grant_all(host, 0.0)
    refused, behind = host.arrive(chat(0.1, 2400)), host.arrive(batch(0.1, 100))
    host.report(NO_ROOM, refused)
    assert grant_all(host, 0.1).rows == [begun]
    first = host.arrive(chat(0.0, 50))
    host.report(NO_ROOM, refused)
    assert grant_all(host, 0.2).rows[0] == first
    assert host.table.queue[[refused, behind]].tolist() == [0, 0]
    assert grant_all(host, 0.3).rows[0] == refused


@pytest.mark.parametrize(("slots", "holders"), [(0, 1), (1, 1), (2, 2), (10**6, 3)])
def test_no_more_requests_hold_kv_than_there_are_slots(slots: int, holders: int) -> None:
    host = new_host()
    for prompt in (2000, 400, 400):
        host.arrive(batch(0.0, prompt))
        grant_all(host, 0.0)  # the first begins
        host.report(SLOTTED, 0, slots)
    grant_all(host, 0.1, 3)
    assert np.count_nonzero(host.table.kv_blocks) == holders


def test_without_a_slot_nobody_loses_kv() -> None:
    """Late ones that have begun go on, and the decodes take blocks that others have reserved."""
    host = new_host(kv_tokens=1600, block_tokens=160)
    for _ in range(2):
        host.arrive(chat(0.0, 600))
    grant_all(host, 0.0, 3)
    late = host.arrive(Arrival(0.1, 10, 0.1, 0.05, True, True, 0))
    host.report(SLOTTED, 0, 0)
    plan = grant_all(host, 50.0, 400)
    assert (plan.preemptions, plan.relegations, plan.batch.decodes) == (0, 0, 2)
    host.report(SLOTTED, 0, 256)
    assert grant_all(host, 60.0, 160).preemptions >= 1 and host.table.relegated[late]


@pytest.mark.skipif(bool(DISABLE_JIT), reason="there are no addresses without compilation")
def test_a_turn_by_addresses_decides_as_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    by_address, by_rule = new_host(), new_host()

    def plainly(_layout, _events, _n, *rest):
        by_rule._turn_plainly(*rest)

    random, now_s = np.random.default_rng(0), 0.0
    for _ in range(150):  # beyond the first rows, so that the arrays move
        kinds = [chat, batch] if random.random() < 0.5 else [batch]
        new = [make(now_s, int(random.integers(1, 3000))) for make in kinds]
        for host in (by_address, by_rule):
            for arrival in new:
                host.arrive(arrival)
        plans = [grant_all(by_address, now_s)]
        with monkeypatch.context() as patched:
            patched.setattr("niyama.host.turn_by_address", plainly)
            plans.append(grant_all(by_rule, now_s))
        assert plans[0] == plans[1]
        now_s += 0.05
    assert by_address.scheduler.count[RUNNING] > 10
    for one, other in zip(by_address.table, by_rule.table, strict=True):
        assert np.array_equal(one, other)


def test_rows_of_their_own_are_never_used_again() -> None:
    host = new_host(reuse_rows=False)
    for number in range(2 * FIRST_ROWS):
        assert host.arrive(chat(0.1 * number, 20)) == number
        host.report(LEFT, number)
        host.turn(Timing(0.1 * number, 0.0, 0.0, 0))
    assert nothing_left(host)
