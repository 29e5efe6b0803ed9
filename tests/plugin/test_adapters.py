"""Which LoRA adapters the kernel's requests need is counted, and nobody goes through all requests to know it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from copy import copy
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.lora.request import LoRARequest

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.vllm import admission
from niyama.vllm.admission import Adapters, adapter_of, must_wait
from niyama.vllm.mirror import Mirror
from niyama.vllm.records import Live
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine


@pytest.fixture(scope="module", params=["niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """One engine for all the tests; each leaves it idle."""
    model_dir = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    log = {"policy": "niyama", "decision_log": str(model_dir / "decisions.jsonl")}
    with driven(model_dir, request.param, niyama=log, max_num_batched_tokens=1024, max_num_seqs=64) as one:
        yield one


@pytest.fixture
def allow(engine: Driven, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Lets that many adapters run at a time."""

    def allowed(most: int) -> None:
        monkeypatch.setattr(engine.scheduler, "lora_config", SimpleNamespace(max_loras=most))
        planner, adapters = engine.scheduler.planner, Adapters(engine.scheduler)
        for its in (planner, planner._entry):
            monkeypatch.setattr(its, "_adapters", adapters)

    return allowed


def lora(adapter: int) -> LoRARequest | None:
    """The adapter of that number; None for 0."""
    return LoRARequest(f"a{adapter}", adapter, "nowhere") if adapter else None


def counted(mirror: Mirror) -> dict[int, int]:
    """How many requests need each adapter, counted one by one."""
    needing = [
        live.request
        for live in mirror.by_row.values()
        if live.held
        or not (mirror.scheduler.table.relegated[live.row] or live.request.request_id in mirror.passed_over)
    ]
    return Counter(adapter_of(request) for request in needing if adapter_of(request))


def ends_well(engine: Driven) -> None:
    """Let it serve what it has, and look at everything."""
    engine.drain()
    engine.check_idle()
    engine.check_outputs()
    assert engine.scheduler.planner is not None, "the plug-in switched itself off"
    assert not engine.scheduler.planner.mirror.adapters


def test_adapters_are_counted_whatever_becomes_of_their_requests(engine: Driven, allow: Callable) -> None:
    """Late requests that are relegated, resets, aborts: after every step the counts are right."""
    allow(2)
    random, seen, mirror, i = np.random.default_rng(3), set(), engine.scheduler.planner.mirror, 0
    while i < 60 or engine.busy:
        if i < 60:
            adapter = int(random.integers(0, 5))
            engine.add(f"counted-{i}", int(random.integers(20, 3000)), 4, lora_request=lora(adapter))
            if i % 20 == 7:
                engine.reset()
            if i % 10 == 9:
                engine.clock.sleep(4.0)
                engine.abort(f"counted-{i - 1}")
        i += 1
        engine.step()
        assert mirror.adapters == counted(mirror)
        seen |= {"relegated"} if any(live.relegated for live in mirror.by_row.values()) else set()
        seen |= {"not yet"} if mirror.not_yet else set()
    assert seen == {"relegated", "not yet"}
    ends_well(engine)


def test_one_that_is_planned_and_left_out_for_its_adapter_is_planned_again(engine: Driven, allow: Callable) -> None:
    """Relegated before it began, it frees its adapter's place for another; its turn comes while that one runs."""
    allow(1)
    mirror = engine.scheduler.planner.mirror
    engine.add("missed", 50, 3, lora_request=lora(1))
    engine.clock.sleep(20.0)
    engine.add("before", 3000, 2)
    engine.add("instead", 900, 40, lora_request=lora(2))
    for _ in range(20):
        engine.step()
        assert mirror.adapters == counted(mirror)
    assert mirror.lives["missed"].relegated and [*mirror.passed_over] == ["missed"]
    ends_well(engine)
    assert len(engine.tokens["missed"]) == 3


def test_a_newcomer_takes_no_adapter_s_place_from_one_that_waits(engine: Driven, allow: Callable) -> None:
    """The place came free since the last plan."""
    allow(1)
    engine.add("ends", 50, 30, lora_request=lora(1))
    engine.step()
    engine.add("waits", 50, 2, lora_request=lora(2))
    engine.step()
    engine.abort("ends")
    engine.add("newcomer", 50, 2, lora_request=lora(3))
    engine.step()
    assert [*engine.scheduler.planner.mirror.not_yet] == ["newcomer"]
    ends_well(engine)


def test_an_arrival_asks_for_itself_alone_and_a_step_for_those_that_may_run(
    engine: Driven, allow: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Behind one adapter that runs, thousands may wait for others."""
    allow(1)
    asked: list[str] = []
    monkeypatch.setattr(admission, "must_wait", lambda r: (asked.append(r.request_id), must_wait(r))[1])
    engine.add("runs", 50, 30, lora_request=lora(1))
    for _ in range(3):
        engine.step()
    asked.clear()
    for i in range(10):
        engine.add(f"waits-{i}", 50, 2, lora_request=lora(2 + i))
    engine.add("beside", 50, 2, lora_request=lora(1))
    engine.step()
    assert asked == ["waits-0", "beside"]  # the first of them was alone
    ends_well(engine)


class Unwalked(dict):
    """A mapping that is asked for single entries and never gone through."""

    def walked(self, *_: object) -> None:
        """Refuse."""
        raise AssertionError("somebody went through all requests")

    __iter__ = values = items = keys = walked


def test_no_arrival_and_no_step_goes_through_all_requests(engine: Driven, monkeypatch: pytest.MonkeyPatch) -> None:
    """There may be ten thousand. Prompts are relegated here before and after they have begun."""
    mirror = engine.scheduler.planner.mirror
    monkeypatch.setattr(mirror, "lives", Unwalked())
    monkeypatch.setattr(mirror, "by_row", Unwalked())
    before = copy(mirror.scheduler.state.totals)
    for i in range(12):
        engine.add(f"long-{i}", 4000, 2)
        engine.step()
        engine.clock.sleep(7.0)
    ends_well(engine)
    totals = mirror.scheduler.state.totals
    assert all(totals[name] > before[name] for name in ("relegations", "preemptions"))


def test_a_relegation_is_noticed_once_whosever_row_it_was_before() -> None:
    """And of the rows that were relegated long ago none is looked at again."""
    table = SimpleNamespace(relegations=np.zeros(8, np.int32), relegated=np.zeros(8, bool))
    mirror, looked_up = Mirror(SimpleNamespace(table=table), 1, 0.0), []

    class Rows(dict):
        def get(self, row: int) -> Live | None:
            looked_up.append(row)
            return super().get(row)

    def live(row: int) -> Live:
        return Live(SimpleNamespace(request_id=str(row), lora_request=None), None, row, 0.0, 0)

    def noticed(relegations: int, restored: int) -> tuple[list[int], list[int]]:
        looked_up.clear()
        found = mirror.newly_relegated(SimpleNamespace(relegations=relegations, un_relegations=restored))
        return [one.row for one in found[0]], [one.row for one in found[1]]

    mirror.by_row = Rows({row: live(row) for row in (1, 2)})
    table.relegations[[1, 2]], table.relegated[[1, 2]] = 1, True
    assert noticed(2, 0) == ([1, 2], [])
    table.relegated[1] = False
    assert noticed(2, 1) == ([], [1]) and looked_up == [1]
    table.relegations[1] = 2  # relegated again, and restored again
    assert noticed(3, 2) == ([1], [1]) and looked_up == [1]
    mirror.scheduler.arrive = lambda new: 2  # the row of one that has ended
    table.relegations[2], table.relegated[2] = 0, False
    served = SimpleNamespace(
        deadline_slo_s=1.0, tbt_s=0.1, interactive=True, important=True, app=0, class_index=0, tenant=0
    )
    request = SimpleNamespace(request_id="new", lora_request=None, num_tokens=5, priority=0)
    mirror.ready(mirror.arrived(request, served, 0.0), 0)
    table.relegations[2], table.relegated[2] = 1, True
    assert noticed(4, 2) == ([2], []) and looked_up == [2]


def test_the_log_of_all_the_above_replays(engine: Driven) -> None:
    """The engine's first step too, where this test runs by itself."""
    planner = engine.scheduler.planner
    planner.close()
    found = replay(planner._log.path)
    assert (found.divergence, found.cut_short) == (None, None)
