"""KV that comes from elsewhere, as the kernel is told of it: less to compute, KV held while it waits, KV taken."""

from __future__ import annotations

import pytest

from niyama.scheduler import Plan, Scheduler, Timing
from niyama.step import CHUNK, ENDED, HELD, LEFT, LOADABLE, LOADED, LOADING, LOST, STORED, TAKEN
from tests.niyama.test_step import batch, chat, grant_all, new_scheduler, nothing_left

NOW = Timing(0.0, 0.0, 0.0, 0)


def plan(scheduler: Scheduler) -> Plan:
    return scheduler.step(NOW)


def chunks(scheduler: Scheduler) -> dict[int, int]:
    made = plan(scheduler)
    return dict(zip(made.rows, made.tokens, strict=True))


def loading(scheduler: Scheduler, prompt_tokens: int, tokens: int) -> int:
    """A prompt of which so many tokens are on their way."""
    row = scheduler.arrive(chat(0.0, prompt_tokens))
    scheduler.report(LOADABLE, row, tokens)
    assert chunks(scheduler) == {row: 0}
    scheduler.report(LOADING, row, tokens)
    return row


def test_what_lies_elsewhere_is_not_prefill() -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(chat(0.0, 3000))
    scheduler.report(STORED, row, 2900)
    assert chunks(scheduler) == {row: 100}
    assert scheduler.state.totals["queued_prefill_tokens"] == 100
    scheduler.report(STORED, row, 0)  # it turned out not to
    scheduler.report(CHUNK, row, 100)
    plan(scheduler)
    assert scheduler.state.totals["kv_held_tokens"] == 100
    scheduler.report(LEFT, row)
    plan(scheduler)
    assert nothing_left(scheduler)


def test_it_may_decide_who_meets_the_deadline() -> None:
    """Of two prompts that are too long, the one that lies elsewhere is not relegated."""
    scheduler = new_scheduler()
    rows = [scheduler.arrive(chat(0.0, 100_000)) for _ in range(2)]
    scheduler.report(STORED, rows[0], 99_000)
    plan(scheduler)
    assert scheduler.table.relegated[rows].tolist() == [False, True]


@pytest.mark.parametrize("kind", [ENDED, LEFT, LOST])
@pytest.mark.parametrize("stage", ["stored", "loadable", "loading", "loaded"])
def test_whatever_ends_it_all_comes_back(kind: int, stage: str) -> None:
    scheduler = new_scheduler()
    row = scheduler.arrive(batch(0.0, 1000))
    if stage in ("stored", "loadable"):
        scheduler.report(STORED if stage == "stored" else LOADABLE, row, 600)
    else:
        scheduler.report(LEFT, row)
        row = loading(scheduler, 1000, 600)
    plan(scheduler)
    if stage == "loaded":
        scheduler.report(LOADED, row, 600)
        assert chunks(scheduler) == {row: 400}
    scheduler.report(kind, row)
    if kind == LOST:
        plan(scheduler)
        assert scheduler.table.computed_tokens[row] == 0 and scheduler.state.totals["queued"] == 1
        scheduler.report(LEFT, row)
    plan(scheduler)
    assert nothing_left(scheduler)
    assert scheduler.state.totals["loading"] == scheduler.state.totals["prefilling"] == 0


def test_a_load_holds_the_kv_of_the_whole_prompt_and_a_slot_and_no_part_of_the_step() -> None:
    scheduler = new_scheduler(kv_tokens=1600)
    row = loading(scheduler, 1000, 600)
    other = scheduler.arrive(chat(0.0, 1000))
    assert chunks(scheduler) == {}, "the other has no room"
    assert scheduler.state.totals["kv_free_blocks"] <= 100 - 63
    small = scheduler.arrive(chat(0.0, 200))
    assert small in chunks(scheduler)
    scheduler.report(CHUNK, small, 200)
    scheduler.report(LOADED, row, 500)  # some have not come
    assert chunks(scheduler)[row] == 500
    assert scheduler.table.kv_blocks[other] == 0


def test_loads_start_beside_a_full_step() -> None:
    scheduler = new_scheduler(step_tokens=512)
    loads = [scheduler.arrive(chat(0.0, 900)) for _ in range(3)]
    for row in loads:
        scheduler.report(LOADABLE, row, 800)
    late = scheduler.arrive(chat(0.01, 2000))
    planned = chunks(scheduler)
    assert [planned[row] for row in loads] == [0, 0, 0] and planned[late] == 512


def test_only_what_needs_one_token_runs_while_prefills_are_held_back() -> None:
    scheduler = new_scheduler()
    whole, part = loading(scheduler, 1000, 1000), loading(scheduler, 1000, 600)
    scheduler.report(LOADED, whole, 999)
    scheduler.report(LOADED, part, 600)
    scheduler.report(HELD, 0)
    assert chunks(scheduler) == {whole: 1}


def test_loaded_kv_is_not_lost_to_relegation_before_it_was_of_use() -> None:
    scheduler = new_scheduler()
    row = loading(scheduler, 1000, 999)
    scheduler.report(LOADED, row, 999)
    made = scheduler.step(Timing(100.0, 100.0, 100.0, 0))  # its TTFT is 6 s
    assert made.rows == [row] and made.relegations == 0


def test_taken_blocks_are_nobodys_to_give() -> None:
    scheduler = new_scheduler(kv_tokens=1600)
    scheduler.report(TAKEN, 0, 60)
    running = scheduler.arrive(chat(0.0, 100))
    grant_all(scheduler, 0.0)
    big = scheduler.arrive(chat(0.0, 700))
    assert big not in chunks(scheduler)
    scheduler.report(TAKEN, 0, 0)
    assert big in chunks(scheduler)
    scheduler.report(LEFT, big)
    scheduler.report(LEFT, running)
    plan(scheduler)
    assert nothing_left(scheduler)
