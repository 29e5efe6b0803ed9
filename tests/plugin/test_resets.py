"""Pauses, sleeps and new weights: vLLM drops the KV of running requests between two steps, or waits until they end."""

from __future__ import annotations

from collections.abc import Iterator
from types import MethodType

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.v1.core.sched.interface import PauseState
from vllm.v1.engine.core import EngineCoreProc

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK
from niyama.vllm.qos import CLASS
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
# With vLLM alone, the tests say what it does.
SCHEDULERS = ("niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler", ASYNC_STOCK, SYNC_STOCK)
MIXES = {
    "one": [(5000, 3)],
    "two": [(5000, 5), (5000, 2)],
    "decodes": [(20, 12), (30, 9), (40, 1)],
    "mixed": [(5000, 3), (30, 14), (700, 6), (1, 1), (2500, 4)],
}


@pytest.fixture(scope="module", params=SCHEDULERS)
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """One engine for all the tests; each leaves it idle."""
    model_dir = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    log = {"decision_log": str(model_dir / "decisions.jsonl")}
    with driven(model_dir, request.param, niyama=log, max_num_batched_tokens=1024) as one:
        yield one


def ends_well(engine: Driven) -> None:
    """Let it serve what it has, and look at everything."""
    engine.drain()
    engine.check_idle()
    engine.check_outputs()
    assert getattr(engine.scheduler, "planner", True) is not None, "the plug-in switched itself off"


@pytest.mark.parametrize("mix", MIXES)
def test_after_a_reset_at_any_step_every_request_ends(engine: Driven, mix: str) -> None:
    for after in range(1, 12):
        for i, (prompt, outputs) in enumerate(MIXES[mix]):
            engine.add(f"{mix}-{after}-{i}", prompt, outputs)
        for _ in range(after):
            engine.step()
        engine.reset()
        engine.check()
        engine.step()
        engine.check()
        if after % 2:  # again, while what was lost is on its way back
            engine.reset()
        ends_well(engine)


def test_a_pause_that_keeps_requests_loses_none(engine: Driven) -> None:
    """Twice, under load, with arrivals and an abort while paused."""
    for i in range(24):
        engine.add(f"kept-{i}", 3000, 8)
    for pause in range(2):
        for _ in range(10):
            engine.step()
        engine.core.pause_scheduler("keep")
        engine.add(f"late-{pause}", 300, 4)
        engine.abort(f"kept-{23 - pause}")
        for _ in range(3):
            engine.step()
        engine.core.resume_scheduler()
        engine.check()
    ends_well(engine)
    assert len(engine.aborted) == 2


def ahead(engine: Driven, name: str) -> int:
    """How many more tokens of the request the kernel counts than vLLM has put out."""
    mirror, request = engine.scheduler.planner.mirror, engine.scheduler.requests[name]
    return int(mirror.scheduler.table.emitted_tokens[mirror.lives[name].row]) - request.num_output_tokens


def test_after_resets_the_kernel_counts_the_tokens_that_are_out(engine: Driven) -> None:
    """Else every reset would make the deadlines of the tokens to come one token's time too lax."""
    if getattr(engine.scheduler, "planner", None) is None:
        pytest.skip("vLLM alone counts nothing")
    engine.add("counted", 60, 60)
    for _ in range(5):
        engine.step()
    before = ahead(engine, "counted")
    for _ in range(3):
        engine.reset()
        for _ in range(5):
            engine.step()
        assert ahead(engine, "counted") == before
    ends_well(engine)


def one_has_begun(engine: Driven, begun: str, waits: str) -> None:
    """A prompt, a part of it computed, and one that ranks before it."""
    engine.add(begun, 6000, 4, extra_args={CLASS: "Q3"})
    while not engine.scheduler.requests[begun].num_computed_tokens:
        engine.step()
    engine.add(waits, 6000, 4, extra_args={CLASS: "Q2"})


@pytest.mark.parametrize("late_s", [0.0, 3000.0], ids=["in-time", "doomed"])
def test_a_pause_that_waits_ends_when_those_that_have_begun_end(engine: Driven, late_s: float) -> None:
    """Nobody begins in it, and nobody loses KV for being late."""
    begun, waits = f"begun-{late_s}", f"waits-{late_s}"
    one_has_begun(engine, begun, waits)
    engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)
    engine.clock.sleep(late_s)
    engine.drain(20)
    assert set(engine.scheduler.requests) == {waits} and not engine.tokens[waits]
    engine.core.resume_scheduler()
    ends_well(engine)


def test_a_sleep_that_waits_comes_when_those_that_have_begun_have_ended(
    engine: Driven, monkeypatch: pytest.MonkeyPatch
) -> None:
    core = engine.core  # in a process of its own an engine can wait; here it is lent what for
    for name in ("pause_scheduler", "_pause_complete", "has_work", "_notify_idle_state_callbacks"):
        monkeypatch.setattr(core, name, MethodType(getattr(EngineCoreProc, name), core), raising=False)
    monkeypatch.setattr(core, "engines_running", False, raising=False)
    one_has_begun(engine, "awake", "later")
    asleep = core.sleep(1, "wait")
    engine.drain(20)
    assert not asleep.done()
    core._notify_idle_state_callbacks()
    assert asleep.done() and asleep.exception() is None and set(engine.scheduler.requests) == {"later"}
    core.wake_up()
    ends_well(engine)


def test_tokens_that_a_reset_drops_do_not_count_as_out(engine: Driven) -> None:
    """The first token was in flight when its KV went: the request still waits for its first token."""
    planner = getattr(engine.scheduler, "planner", None)
    if planner is None:
        pytest.skip("vLLM alone counts nothing")
    engine.add("dropped", 600, 2)
    while engine.scheduler.requests["dropped"].num_computed_tokens < 600:
        engine.step()
    row = planner.mirror.lives["dropped"].row
    engine.reset()
    assert all(row not in rows for rows in planner._producing)
    ends_well(engine)


def test_the_log_of_all_the_above_replays(engine: Driven) -> None:
    """The engine's first step too, where this test runs by itself."""
    planner = getattr(engine.scheduler, "planner", None)
    if planner is None:
        pytest.skip("vLLM alone writes none")
    planner.close()
    found = replay(planner._log.path)
    assert (found.divergence, found.cut_short) == (None, None)
