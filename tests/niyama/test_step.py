"""The scheduler as an object: what engines report is taken in, rows come back, and room grows with the queue."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numba.core.config import DISABLE_JIT

from niyama import BUILT_IN, load_card
from niyama.latency import empty_batch, seconds
from niyama.scheduler import FIRST_ROWS, Arrival, Scheduler, Timing
from niyama.step import ALL_DECODED, CHUNK, DECODED, DRAFTED, ENDED, LEFT, LOST, NO_ROOM, PACED, SIZED, SLOTTED

CARD = load_card("a100-llama3-8b-roofline")


def new_scheduler(**sizes: int) -> Scheduler:
    return Scheduler(BUILT_IN["niyama"], CARD, **{"kv_tokens": 160_000, "apps": 2, **sizes})


def chat(arrival_s: float, prompt_tokens: int) -> Arrival:
    return Arrival(arrival_s, prompt_tokens, 6.0, 0.05, True, True, 0)


def batch(arrival_s: float, prompt_tokens: int) -> Arrival:
    return Arrival(arrival_s, prompt_tokens, 600.0, 0.0, False, True, 1)


def grant_all(scheduler: Scheduler, now_s: float, steps: int = 1):
    """Take steps in which all that is planned is granted; returns the last plan."""
    plan = None
    for _ in range(steps):
        plan = scheduler.step(Timing(now_s, now_s - 0.01, now_s, 0))
        scheduler.report(ALL_DECODED, 0)
        for row, tokens in zip(plan.rows, plan.tokens, strict=True):
            scheduler.report(CHUNK, row, tokens)
        now_s += 0.01
    return plan


def nothing_left(scheduler: Scheduler) -> bool:
    totals = scheduler.state.totals
    idle = not any(totals[name] for name in ("running", "queued", "kv_held_tokens", "queued_prefill_tokens"))
    return bool(idle and totals["kv_free_blocks"] == totals["kv_total_blocks"])


def test_more_requests_than_rows_keep_their_order() -> None:
    scheduler = new_scheduler()
    rows = [scheduler.arrive(batch(0.001 * i, 100 + i)) for i in range(3 * FIRST_ROWS)]
    assert len(set(rows)) == len(rows)
    urgent = scheduler.arrive(chat(1.0, 50))
    assert len(scheduler.table.state) == 4 * FIRST_ROWS
    plan = scheduler.step(Timing(1.0, 1.0, 1.0, 0))
    assert plan.rows[:4] == [urgent, *rows[:3]]
    assert scheduler.state.totals["queued"] == 3 * FIRST_ROWS + 1


def test_a_row_comes_back_the_step_after_its_request_is_gone() -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 20))
    grant_all(scheduler, 0.0, 2)
    scheduler.report(ENDED, row, 2)
    assert scheduler.arrive(chat(0.1, 20)) != row
    scheduler.step(Timing(0.1, 0.1, 0.1, 0))
    assert scheduler.arrive(chat(0.2, 30)) == row
    assert scheduler.table.target_tokens[row] == 30 and scheduler.table.emitted_tokens[row] == 0


@pytest.mark.parametrize("steps", [0, 1, 3], ids=["queued", "planned", "decoding"])
@pytest.mark.parametrize("kind", [ENDED, LEFT])
def test_leaving_frees_everything_whatever_it_was_doing(steps: int, kind: int) -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 4000))  # two chunks: after one step part of it is in KV
    grant_all(scheduler, 0.0, steps)
    scheduler.report(kind, row, 5 if kind == ENDED else 0)
    scheduler.step(Timing(1.0, 1.0, 1.0, 0))
    assert nothing_left(scheduler)
    assert scheduler.state.history[0, 0] == (kind == ENDED)  # an aborted output is no example of an output length


def test_one_report_for_all_decodes_is_that_of_each() -> None:
    each, together = new_scheduler(), new_scheduler()
    for scheduler in (each, together):
        rows = [scheduler.arrive(chat(0.0, 15)) for _ in range(5)]
        grant_all(scheduler, 0.0)
        scheduler.step(Timing(0.01, 0.0, 0.01, 75))
    for step in range(40):
        for row in rows:
            each.report(DECODED, row)
        together.report(ALL_DECODED, 0)
        timing = Timing(0.02 + 0.01 * step, 0.01, 0.02, 0)
        assert each.step(timing) == together.step(timing)
    for one, other in zip(each.table, together.table, strict=True):
        assert np.array_equal(one, other)
    assert each.state.totals == together.state.totals


def test_a_prompt_found_in_a_prefix_cache_is_shorter() -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(batch(0.0, 900))  # the engine's guess: 100 of 1,000 are cached
    plan = scheduler.step(Timing(0.0, 0.0, 0.0, 0))
    assert (plan.rows, plan.tokens) == ([row], [900])
    scheduler.report(SIZED, row, 1000)
    scheduler.report(CHUNK, row, 700 + 200)  # 700 were cached after all, 200 were granted
    plan = scheduler.step(Timing(0.1, 0.0, 0.1, 200))
    assert (plan.rows, plan.tokens) == ([row], [100])
    assert scheduler.state.totals["queued_prefill_tokens"] == 100


def test_a_request_that_lost_its_kv_is_prefilled_with_its_output() -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 100))
    grant_all(scheduler, 0.0, 4)
    scheduler.report(LOST, row)
    plan = scheduler.step(Timing(0.05, 0.04, 0.05, 0))
    assert (plan.rows, plan.tokens) == ([row], [104])
    assert plan.preemptions == 1


@pytest.mark.parametrize(("steps", "unseen"), [(4, 1), (4, 2), (1, 1)])
def test_output_that_the_engine_drops_with_the_kv_is_not_out(steps: int, unseen: int) -> None:
    """It is made again, at its own deadline; a first token that was dropped sets the token deadlines anew."""
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 100))
    grant_all(scheduler, 0.0, steps)
    scheduler.report(LOST, row, unseen)
    plan = scheduler.step(Timing(7.0, 6.9, 7.0, 0))
    assert (plan.rows, plan.tokens) == ([row], [100 + steps - unseen])
    assert scheduler.table.emitted_tokens[row] == steps - unseen
    scheduler.report(CHUNK, row, plan.tokens[0])
    scheduler.step(Timing(7.1, 7.0, 7.1, plan.tokens[0]))
    assert scheduler.table.emitted_tokens[row] == steps - unseen + 1
    assert scheduler.table.tokens_due_from_s[row] == (6.0 if steps > unseen else np.inf)  # late: never due


def test_slower_steps_make_smaller_chunks() -> None:
    """The predictor is stretched by what the engine measured."""
    chunks = []
    for scale in (1.0, 2.0):
        scheduler = new_scheduler()
        late = scheduler.arrive(Arrival(0.0, 30, 0.5, 0.05, True, True, 0))
        grant_all(scheduler, 0.0)
        scheduler.step(Timing(0.3, 0.0, 0.3, 30))
        scheduler.arrive(batch(0.3, 5000))
        plan = scheduler.step(Timing(0.4, 0.3, 0.4, 0, scale))
        assert late not in plan.rows
        chunks.append(sum(plan.tokens))
    assert chunks[1] < 0.6 * chunks[0]


def test_kv_is_counted_in_the_engines_blocks() -> None:
    scheduler = new_scheduler(kv_tokens=1600, block_tokens=160)
    scheduler.arrive(batch(0.0, 161))
    grant_all(scheduler, 0.0)
    scheduler.step(Timing(0.1, 0.0, 0.1, 161))
    assert scheduler.state.totals["kv_total_blocks"] == 10
    assert scheduler.state.totals["kv_free_blocks"] == 10 - 2  # 161 tokens and 128 for half of the estimated output


def test_one_without_room_and_those_behind_it_wait_an_iteration() -> None:
    """A prompt that has begun goes on meanwhile, and so does one that ranks before it."""
    scheduler = new_scheduler()
    begun = scheduler.arrive(batch(0.0, 5000))
    grant_all(scheduler, 0.0)
    refused, behind = scheduler.arrive(chat(0.1, 2400)), scheduler.arrive(batch(0.1, 100))
    scheduler.report(NO_ROOM, refused)
    assert grant_all(scheduler, 0.1).rows == [begun]
    first = scheduler.arrive(chat(0.0, 50))
    scheduler.report(NO_ROOM, refused)
    assert grant_all(scheduler, 0.2).rows[0] == first
    assert scheduler.table.queue[[refused, behind]].tolist() == [0, 0]
    assert grant_all(scheduler, 0.3).rows[0] == refused


@pytest.mark.parametrize(("slots", "holders"), [(0, 1), (1, 1), (2, 2), (10**6, 3)])
def test_no_more_requests_hold_kv_than_there_are_slots(slots: int, holders: int) -> None:
    scheduler = new_scheduler()
    for prompt in (2000, 400, 400):
        scheduler.arrive(batch(0.0, prompt))
        grant_all(scheduler, 0.0)  # the first begins
        scheduler.report(SLOTTED, 0, slots)
    grant_all(scheduler, 0.1, 3)
    assert np.count_nonzero(scheduler.table.kv_blocks) == holders


def test_without_a_slot_nobody_loses_kv() -> None:
    """Late ones that have begun go on, and the decodes take blocks that others have reserved."""
    scheduler = new_scheduler(kv_tokens=1600, block_tokens=160)
    for _ in range(2):
        scheduler.arrive(chat(0.0, 600))
    grant_all(scheduler, 0.0, 3)
    late = scheduler.arrive(Arrival(0.1, 10, 0.1, 0.05, True, True, 0))
    scheduler.report(SLOTTED, 0, 0)
    plan = grant_all(scheduler, 50.0, 400)
    assert (plan.preemptions, plan.relegations, plan.batch.decodes) == (0, 0, 2)
    scheduler.report(SLOTTED, 0, 256)
    assert grant_all(scheduler, 60.0, 160).preemptions >= 1 and scheduler.table.relegated[late]


@pytest.mark.skipif(bool(DISABLE_JIT), reason="there are no addresses without compilation")
def test_a_step_by_addresses_decides_as_a_plain_one(monkeypatch: pytest.MonkeyPatch) -> None:
    by_address, by_rule = new_scheduler(), new_scheduler()

    def plainly(_layout, _events, _n, *rest):
        by_rule._step_plainly(*rest)

    random, now_s = np.random.default_rng(0), 0.0
    for _ in range(150):  # beyond the first rows, so that the arrays move
        kinds = [chat, batch] if random.random() < 0.5 else [batch]
        new = [make(now_s, int(random.integers(1, 3000))) for make in kinds]
        for scheduler in (by_address, by_rule):
            for arrival in new:
                scheduler.arrive(arrival)
        plans = [grant_all(by_address, now_s)]
        with monkeypatch.context() as patched:
            patched.setattr("niyama.scheduler.step_by_address", plainly)
            plans.append(grant_all(by_rule, now_s))
        assert plans[0] == plans[1]
        now_s += 0.05
    assert by_address.state.totals["running"] > 10
    for one, other in zip(by_address.table, by_rule.table, strict=True):
        assert np.array_equal(one, other)


def test_rows_of_their_own_are_never_used_again() -> None:
    scheduler = new_scheduler(reuse_rows=False)
    for number in range(2 * FIRST_ROWS):
        assert scheduler.arrive(chat(0.1 * number, 20)) == number
        scheduler.report(LEFT, number)
        scheduler.step(Timing(0.1 * number, 0.0, 0.0, 0))
    assert nothing_left(scheduler)


CAPPED_RUN = """
from niyama.scheduler import Timing
from niyama.step import CAPPED, HELD
from tests.niyama.test_step import batch, chat, grant_all, new_scheduler

scheduler = new_scheduler()
for i in range(4):
    scheduler.arrive(chat(0.0, 900 + i))
    scheduler.arrive(batch(0.0, 2000 + i))
scheduler.report(CAPPED, 0, 256)
for i in range(8):
    if i == 3:
        scheduler.report(HELD, 0)
    print(grant_all(scheduler, 0.1 * i))
totals = scheduler.state.totals
print([(name, int(totals[name])) for name in ("queued_prefill_tokens", "running_context", "chunk_tokens")])
"""


def test_plain_python_counts_as_compiled_code_does() -> None:
    """A limit on chunks came as an int32, and so did the ids and tokens that are counted."""
    root = str(Path(__file__).parents[2])
    paths = os.pathsep.join([root, str(Path(root) / "scheduler"), os.environ.get("PYTHONPATH", "")])
    printed = []
    for disabled in ("0", "1"):
        environment = {**os.environ, "NUMBA_DISABLE_JIT": disabled, "PYTHONPATH": paths}
        command = [sys.executable, "-c", CAPPED_RUN]
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        assert done.returncode == 0, done.stderr
        printed.append(done.stdout)
    assert printed[0] == printed[1] and "256" in printed[0]


def test_drafted_tokens_take_room_and_time_of_one_iteration() -> None:
    scheduler = new_scheduler(step_tokens=600)
    for _ in range(4):
        scheduler.arrive(chat(0.0, 30))
    grant_all(scheduler, 0.0)
    scheduler.arrive(batch(0.0, 9000))
    scheduler.report(DRAFTED, 0, 12)
    drafted, plain = grant_all(scheduler, 0.1), grant_all(scheduler, 0.2)
    assert (drafted.batch.decodes, plain.batch.decodes) == (4 + 12, 4)
    assert (sum(drafted.tokens), sum(plain.tokens)) == (600 - 16, 600 - 4)


def test_each_token_of_a_step_is_one_of_the_deadlines_and_in_kv() -> None:
    """What was accepted beyond the first token is time in hand, and takes up KV like any other."""
    one, four = [], []
    for tokens, chunks in ((1, one), (4, four)):
        scheduler = new_scheduler()
        row = scheduler.arrive(Arrival(0.0, 100, 0.3, 0.02, True, True, 0))
        grant_all(scheduler, 0.0)
        scheduler.step(Timing(0.25, 0.2, 0.25, 0))
        scheduler.arrive(batch(0.0, 9000))
        for _ in range(tokens):
            scheduler.report(DECODED, row)
        plan = scheduler.step(Timing(0.27, 0.25, 0.27, 0))
        chunks += plan.tokens
        assert scheduler.table.emitted_tokens[row] == 1 + tokens
        assert scheduler.table.computed_tokens[row] == 100 + tokens
        assert scheduler.state.totals["kv_held_tokens"] == scheduler.state.totals["running_context"] == 100 + tokens
        assert scheduler.state.totals["min_slack_s"] == pytest.approx(0.3 + (1 + tokens) * 0.02 - 0.27)
    assert sum(four) > sum(one)


def test_a_token_on_its_way_reaches_a_request_that_has_lost_its_kv() -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 100))
    grant_all(scheduler, 0.0, 3)  # three tokens, as far as is known
    scheduler.report(LOST, row)
    scheduler.report(DECODED, row)  # a draft of that step was right as well
    plan = scheduler.step(Timing(0.1, 0.0, 0.1, 0))
    assert (scheduler.table.emitted_tokens[row], plan.tokens) == (4, [104])
    assert scheduler.state.totals["queued_prefill_tokens"] == 104
    scheduler.report(LEFT, row)
    scheduler.step(Timing(0.2, 0.1, 0.2, 0))
    assert nothing_left(scheduler)


@pytest.mark.parametrize(("pace", "relegations"), [(1000, 1), (3000, 0), (0, 1)])
def test_batch_requests_are_forecast_at_the_pace_of_their_decodes(pace: int, relegations: int) -> None:
    """Six tenths of the time that 256 steps take is enough where a step makes three tokens."""
    scheduler = new_scheduler()
    step_s = seconds(CARD.build(), empty_batch(1, 100))
    scheduler.report(PACED, 0, pace)
    scheduler.arrive(Arrival(0.0, 100, 0.6 * 256 * step_s, 0.0, False, True, 0))
    assert scheduler.step(Timing(0.0, 0.0, 0.0, 0)).relegations == relegations


def test_kv_that_the_engine_holds_ahead_is_counted() -> None:
    """The prompt and half of the estimated output are 153 tokens, in ten blocks; with eight ahead there are eleven."""
    free = []
    for ahead in (0, 7, 8):
        scheduler = new_scheduler(kv_tokens=1600, block_tokens=16, ahead_tokens=ahead)
        row = scheduler.arrive(Arrival(0.0, 25, 6.0, 0.05, True, True, 0))
        grant_all(scheduler, 0.0)
        scheduler.step(Timing(0.1, 0.0, 0.1, 25))
        free.append(scheduler.table.kv_room_tokens[row] + ahead)
        assert scheduler.table.kv_blocks[row] == free[-1] // 16
    assert free[0] == free[1] and free[2] == free[0] + 16
