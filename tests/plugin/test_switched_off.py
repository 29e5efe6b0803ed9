"""An error of our own, wherever and whenever it strikes: vLLM serves every request on its own from then on."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.connectors import Connector
from niyama.vllm.engine import Imposed
from niyama.vllm.entry import Entry
from niyama.vllm.mirror import Mirror
from niyama.vllm.outside import Outside
from niyama.vllm.planner import Planner
from tests.helpers.random_actions import Actions
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
HOOKS = (
    *((Planner, name) for name in ("arrived", "plan", "granted", "step_ended", "tell", "gone", "preempted")),
    *((Imposed, name) for name in ("impose", "_show", "withdraw")),
    (Entry, "let_in"),
    *((Connector, name) for name in ("before_plan", "granted", "gone", "note_kept")),
    (Outside, "beside"),
    *((Mirror, name) for name in ("plan", "granted", "lost", "_chunk", "_let_go")),
)
RARE = ("preempted", "lost", "_let_go", "beside")
LEAST_SEEDS, MOST_SEEDS = 3, 20  # as many as it takes for the moment to come
STEPS = 60


@pytest.fixture(scope="module", params=["niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """One engine for all the tests; each leaves it idle."""
    model_dir = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    with driven(model_dir, request.param, kv_blocks=600, max_num_batched_tokens=300, max_num_seqs=12) as one:
        yield one


def switched_on_again(engine: Driven) -> Planner:
    """The plug-in put back into an idle engine."""
    scheduler = engine.scheduler
    if scheduler.planner is None:
        scheduler.planner = Planner.start(scheduler, os.environ, (engine.clock.now_s, engine.clock.now_s))
        scheduler.imposed = Imposed(scheduler)
    return scheduler.planner


def failing_once(
    monkeypatch: pytest.MonkeyPatch, owner: type, name: str, call: int, before: bool
) -> Callable[[], bool]:
    """Make that call of the method fail, before or after its work; returns whether it has."""
    method, calls = getattr(owner, name), []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(0)
        if len(calls) == call and before:
            raise KeyError("made to fail")
        result = method(*args, **kwargs)
        if len(calls) == call:
            raise KeyError("made to fail")
        return result

    monkeypatch.setattr(owner, name, failing)
    return lambda: len(calls) >= call


@pytest.mark.parametrize("before", [True, False], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "name"), HOOKS, ids=[f"{o.__name__}.{n}" for o, n in HOOKS])
def test_every_request_is_served(
    engine: Driven, monkeypatch: pytest.MonkeyPatch, owner: type, name: str, before: bool
) -> None:
    struck = 0
    for seed in range(MOST_SEEDS):
        if struck and seed >= LEAST_SEEDS:
            break
        planner = switched_on_again(engine)
        counted: list[int] = []
        monkeypatch.setattr(planner.metrics, "fallback", lambda counted=counted: counted.append(0))
        call = int(np.random.default_rng([seed, len(name), before]).integers(1, 4 if name in RARE else 25))
        with monkeypatch.context() as patch:
            fired = failing_once(patch, owner, name, call, before)
            actions = Actions(engine, seed, f"{owner.__name__}.{name}-{before}-{seed}")
            for _ in range(STEPS):
                actions.act()
            actions.end()
            struck += fired()
            if fired():
                assert engine.scheduler.planner is None and counted == [0]
                assert engine.scheduler.max_num_scheduled_tokens == 300
                assert "_mamba_block_aligned_split" not in vars(engine.scheduler)
            else:
                assert engine.scheduler.planner is planner
    assert struck, "none of the moments came"
