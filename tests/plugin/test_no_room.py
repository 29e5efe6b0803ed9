"""Requests that vLLM has no room for: those that have begun go on, and all end."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.step import NO_ROOM, SIZED, SLOTTED
from niyama.vllm.qos import CLASS
from niyama.vllm.room import Room
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
SCHEDULERS = ("niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler")
STEPS = {"max_num_batched_tokens": 2756, "max_model_len": 7000}


@pytest.fixture(params=SCHEDULERS)
def scheduler(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def add(engine: Driven, name: str, of: str, prompt: int | list[int], outputs: int, **params: Any) -> None:
    engine.add(name, prompt, outputs, extra_args={CLASS: of}, **params)


def start(engine: Driven, name: str, of: str, prompt: int) -> Any:
    """A prompt of which a chunk is computed."""
    add(engine, name, of, prompt, 4)
    while not engine.scheduler.requests[name].num_computed_tokens:
        engine.step()
    return engine.scheduler.requests[name]


def ends_well(engine: Driven) -> None:
    engine.drain(300)
    engine.check_idle()
    engine.check_outputs()
    assert engine.scheduler.planner is not None, "the plug-in switched itself off"


def events(path: Path, kind: int) -> bool:
    """Whether the log has an event of that kind."""
    steps = (json.loads(line).get("events", []) for line in path.read_text().splitlines())
    return any(kind in step[::3] for step in steps)


def test_a_prompt_that_vllm_refuses_for_its_kv_stops_nobody(model_dir: Path, scheduler: str, tmp_path: Path) -> None:
    """Half of it is cached and free: the plan has room for the other half, vLLM wants room for the whole."""
    path = tmp_path / "decisions.jsonl"
    niyama = {"policy": "sarathi-edf", "decision_log": str(path)}
    with driven(model_dir, scheduler, kv_blocks=500, niyama=niyama, enable_prefix_caching=True, **STEPS) as engine:
        prefix = [i % 251 for i in range(3000)]
        add(engine, "first", "Q2", prefix, 1)
        engine.drain(40)
        begun = start(engine, "begun", "Q3", 4500)
        while begun.num_computed_tokens < 2000:
            engine.step()
        add(engine, "refused", "Q2", prefix + [i % 249 for i in range(3000)], 4)
        add(engine, "behind", "Q3", 100, 2)
        refused = engine.scheduler.requests["refused"]
        before = engine.steps
        while begun.num_computed_tokens < 4500:
            engine.step()
            assert engine.steps - before < 15 and not refused.num_computed_tokens
        assert not engine.scheduler.requests["behind"].num_computed_tokens, "one behind it takes its room"
        ends_well(engine)
        engine.scheduler.planner.close()
    found = replay(path)
    assert (found.divergence, found.cut_short) == (None, None)
    assert events(path, NO_ROOM)


def test_slots_that_streaming_inputs_hold_are_not_planned(model_dir: Path, scheduler: str, tmp_path: Path) -> None:
    """A prompt that has begun holds one, an idle stream the other: one that ranks before the prompt waits."""
    path = tmp_path / "decisions.jsonl"
    niyama = {"decision_log": str(path)}
    with driven(model_dir, scheduler, niyama=niyama, max_num_seqs=2, **STEPS) as engine:
        engine.add("stream", 300, 3, resumable=True)
        while len(engine.tokens["stream"]) < 3:
            engine.step()
        begun = start(engine, "begun", "Q3", 6000)
        add(engine, "urgent", "Q1", 6000, 2)
        while begun.num_computed_tokens < 6000:
            before = begun.num_computed_tokens
            engine.step()
            assert begun.num_computed_tokens > before
        while engine.scheduler.requests.keys() - {"stream"}:
            engine.step()
        engine.add_piece("stream", 1, 1, last=True)
        ends_well(engine)
        engine.scheduler.planner.close()
    assert replay(path).divergence is None and events(path, SLOTTED)


def test_kv_that_streaming_inputs_hold_stops_nobody_who_has_begun(model_dir: Path, scheduler: str) -> None:
    """An idle stream holds 190 of 500 blocks, of which the kernel knows nothing."""
    with driven(model_dir, scheduler, kv_blocks=500, niyama={"policy": "sarathi-edf"}, **STEPS) as engine:
        engine.add("stream", 3000, 1, resumable=True)
        while not engine.tokens["stream"]:
            engine.step()
        begun = start(engine, "begun", "Q3", 2500)
        add(engine, "refused", "Q2", 5000, 2)
        before = engine.steps
        while begun.num_computed_tokens < 2500:
            engine.step()
            assert engine.steps - before < 15
        for _ in range(10):  # alone beside the stream it is tried again and again, and fits when that has ended
            engine.step()
        assert set(engine.scheduler.requests) == {"stream", "refused"} and not engine.tokens["refused"]
        engine.add_piece("stream", 1, 1, last=True)
        ends_well(engine)


def test_waiting_for_nothing_but_slots_of_streams_switches_nothing_off(model_dir: Path, scheduler: str) -> None:
    with driven(model_dir, scheduler, max_num_seqs=1, **STEPS) as engine:
        engine.add("stream", 30, 1, resumable=True)
        for _ in range(5):
            engine.step()
        add(engine, "waits", "Q1", 60, 2)
        for _ in range(1200):
            engine.step()
        assert engine.scheduler.planner is not None and not engine.tokens["waits"]
        engine.add_piece("stream", 1, 1, last=True)
        ends_well(engine)


class Asked:
    """Three requests in line, as `Room` sees them: vLLM takes the first and stops; what the kernel is told."""

    def __init__(self) -> None:
        self.free, self.told, self.names = 10, [], ("taken", "refused", "behind")
        waiting = [SimpleNamespace(request_id=name, num_tokens=50) for name in self.names]
        lives = {r.request_id: SimpleNamespace(request=r, row=i, held=False) for i, r in enumerate(waiting)}
        self.room, self.orders = Room(8, 100), SimpleNamespace(waiting=waiting, budget_tokens=90)
        pool = SimpleNamespace(get_num_free_blocks=lambda: self.free)
        cache = SimpleNamespace(enable_caching=False, block_pool=pool)
        self.scheduler = SimpleNamespace(pause_state=0, kv_cache_manager=cache)
        scheduler = SimpleNamespace(report=lambda *event: self.told.append(event))
        scheduler.table = SimpleNamespace(target_tokens=[50, 40, 50], kv_blocks=[0] * 3, computed_tokens=[0] * 3)
        self.mirror = SimpleNamespace(lives=lives, by_row={v.row: v for v in lives.values()}, scheduler=scheduler)
        self.mirror.running, self.mirror.outside = [1], SimpleNamespace(slots=lambda: 0)
        self.mirror.loads = SimpleNamespace(loading={})

    def step(self, tokens: int = 30, preempted: tuple = (), must_wait: tuple = ()) -> list[tuple]:
        """What is told of this step and of the plan after it."""
        self.told.clear()
        output = SimpleNamespace(num_scheduled_tokens={"taken": tokens}, total_num_scheduled_tokens=tokens)
        output.preempted_req_ids = {*preempted}
        self.room.note(self.scheduler, self.mirror, self.orders, output, lambda r: r.request_id in must_wait)
        self.room.tell(self.scheduler, self.mirror)
        return [*self.told]


@pytest.mark.parametrize(
    ("step", "told"),
    [
        ({}, [(SIZED, 1, 50), (NO_ROOM, 1)]),
        ({"must_wait": ("refused",)}, [(NO_ROOM, 2)]),
        ({"preempted": ("other",)}, []),
        ({"tokens": 90}, []),
    ],
    ids=["refused", "passed over", "preempting", "used up"],
)
def test_vllm_stops_at_the_first_that_it_need_not_pass_over(step: dict[str, Any], told: list[tuple]) -> None:
    """Not where it preempts, as it then admits nobody, nor where the step is used up. Its prefix is looked up again."""
    assert Asked().step(**step) == told


@pytest.mark.parametrize("change", ["room", "idle", "begun", "gone"])
def test_a_refused_request_is_kept_out_until_something_has_changed(change: str) -> None:
    asked = Asked()
    asked.step()
    asked.free -= 5
    asked.told.clear()
    asked.room.tell(asked.scheduler, asked.mirror)
    assert asked.told == [(NO_ROOM, 1)]
    asked.free += 6 if change == "room" else 0
    asked.mirror.running = [0 if change == "idle" else 1]
    asked.mirror.lives["refused"].held = change == "begun"
    if change == "gone":
        del asked.mirror.by_row[1]
    for _ in range(2):
        asked.room.tell(asked.scheduler, asked.mirror)
        asked.free = 10
    assert asked.told == [(NO_ROOM, 1)]
