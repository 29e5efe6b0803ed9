"""KV connectors: hits within a step, loads before it, answers that come later, prefill and decode instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.requests import DECODING
from niyama.step import LOST
from niyama.vllm.emulated import executor
from niyama.vllm.emulated.virtual import ASYNC_STOCK
from niyama.vllm.qos import CLASS
from tests.helpers import kv_connector
from tests.helpers.images import watched
from tests.helpers.kv_connector import CountedConnector
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
BOTH = pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
REMOTE = {"hits": 1.0, "beforehand": 1.0, "whole": 1.0}  # every prompt has been computed by another instance


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def device_with_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_refuse_what_is_not_emulated", lambda config: None)


@contextmanager
def connected(
    model_dir: Path, scheduler: str, *, role: str = "kv_both", shares: dict[str, float], **settings: Any
) -> Iterator[tuple[Driven, CountedConnector]]:
    settings = {"max_num_batched_tokens": 512, "max_num_seqs": 32, **settings}
    with driven(model_dir, scheduler, more=kv_connector.config(role, **shares), **settings) as engine:
        yield engine, kv_connector.connect(engine.core)


def ends_well(engine: Driven) -> None:
    engine.drain()
    engine.check_outputs()
    engine.check_idle()
    assert getattr(engine.scheduler, "planner", True) is not None, "the plug-in switched itself off"


def loads_in(connector: CountedConnector, steps: int) -> None:
    """Every load takes that many steps."""
    connector._random.randint = lambda low, high: steps


@BOTH
def test_a_prompt_on_its_way_holds_its_kv_and_stands_in_nobodys_way(model_dir: Path, scheduler: str) -> None:
    with connected(model_dir, scheduler, shares=REMOTE) as (engine, connector):
        loads_in(connector, 40)
        seen, ours = watched(engine), engine.scheduler.planner.mirror.scheduler
        connector.shares["hits"] = 0.0
        engine.add("decode", 100, 80)
        engine.step(), engine.step()
        free = int(ours.state.totals["kv_free_blocks"])
        connector.shares["hits"] = 1.0
        engine.add("remote", 3000, 5, extra_args={CLASS: "Q1"})
        for _ in range(4):
            engine.step()
        assert list(connector.loading) == ["remote"]
        assert free - int(ours.state.totals["kv_free_blocks"]) >= 3000 // 16
        connector.shares["hits"] = 0.0
        engine.add("local", 700, 3, extra_args={CLASS: "Q3"})
        before = engine.steps
        while "local" not in engine.finished:
            engine.step()
        assert engine.steps - before < 12 and "remote" in connector.loading
        ends_well(engine)
    assert all(step.get("decode") == 1 for step in seen[2:60])
    assert sum(step.get("remote", 0) for step in seen) == 5  # the last token of the prompt, and four decodes


@BOTH
def test_what_lies_in_a_store_is_not_computed(model_dir: Path, scheduler: str) -> None:
    """Three quarters of each prompt come within its first step; chunks and forecast count the rest alone."""
    with connected(model_dir, scheduler, shares={"hits": 1.0}) as (engine, connector):
        connector._about = lambda request: type("Fixed", (), {"random": staticmethod(lambda: 0.75)})()
        seen = watched(engine)
        for i in range(6):
            engine.add(f"r{i}", 1024, 2, extra_args={CLASS: "Q1"})
        ends_well(engine)
    assert [sum(step.get(f"r{i}", 0) for step in seen) for i in range(6)] == [1024 - 752 + 1] * 6
    assert max(sum(step.values()) for step in seen) > 400, "the step had room for more than one of them"


@BOTH
@pytest.mark.parametrize("stored", [True, False])
def test_a_store_keeps_a_long_prompt_from_being_relegated(model_dir: Path, scheduler: str, stored: bool) -> None:
    """Its deadline can be met only if most of it need not be computed."""
    classes = [{"name": name, "ttft_s": 0.5, "tbt_s": 0.1} for name in ("Q1", "Q2", "Q3")]
    shares = {"hits": float(stored)}
    with connected(model_dir, scheduler, shares=shares, niyama={"classes": classes}) as (engine, connector):
        connector._about = lambda request: type("Fixed", (), {"random": staticmethod(lambda: 0.99 * stored)})()
        connector.shares["hits"] = 1.0 if stored else 0.0
        relegated, plan = [], engine.scheduler.planner.mirror.newly_relegated
        engine.scheduler.planner.mirror.newly_relegated = lambda p: relegated.append(plan(p)) or relegated[-1]
        engine.add("long", 7900, 2, extra_args={CLASS: "Q1"})
        ends_well(engine)
    assert any(before for before, _ in relegated) == (not stored)


@BOTH
def test_who_must_be_asked_again_stands_in_nobodys_way(model_dir: Path, scheduler: str) -> None:
    with connected(model_dir, scheduler, shares={"hits": 1.0, "later": 1.0}) as (engine, connector):
        seen = watched(engine)
        asks, ask = [], connector.get_num_new_matched_tokens

        def slow(request: Any, tokens: int) -> Any:
            asks.append(request.request_id)
            return (None, False) if request.request_id == "slow" and engine.steps < 30 else (0, False)

        connector.get_num_new_matched_tokens = engine.scheduler.planner.connector._ask = slow
        engine.scheduler.connector.get_num_new_matched_tokens = engine.scheduler.planner.connector._noted
        engine.add("slow", 600, 2, extra_args={CLASS: "Q1"})
        for i in range(5):
            engine.add(f"r{i}", 600, 2, extra_args={CLASS: "Q3"})
        ends_well(engine)
        assert ask is not slow
    first = {name: next(i for i, step in enumerate(seen) if name in step) for name in engine.expected}
    assert max(first[f"r{i}"] for i in range(5)) < 12 < first["slow"]


@BOTH
def test_a_prefill_instance_counts_the_kv_that_is_still_being_sent(model_dir: Path, scheduler: str) -> None:
    """Outputs of one token; their KV comes free when the other instance has it, and nobody is planned into it."""
    settings = {"role": "kv_producer", "shares": {"sends": 1.0}, "kv_blocks": 200, "max_model_len": 2600}
    with connected(model_dir, scheduler, **settings) as (engine, found):
        loads_in(found, 30)
        planner, free = engine.scheduler.planner, []
        ours, plan, blocks = planner.mirror.scheduler, planner.mirror.scheduler.step, engine.scheduler.kv_cache_manager

        def planned(timing: Any) -> Any:
            made = plan(timing)
            free.append((int(ours.state.totals["kv_free_blocks"]), blocks.block_pool.get_num_free_blocks()))
            return made

        ours.step = planned
        for i in range(12):
            engine.add(f"r{i}", 1000, 1, extra_args={CLASS: "Q1"})
        ends_well(engine)
    assert found.counts["sent"] == 12 and min(theirs for _, theirs in free) < 63
    assert all(ours <= theirs for ours, theirs in free)


def virtual_s(model_dir: Path, scheduler: str, shares: dict[str, float], **niyama: Any) -> tuple[float, Any]:
    """How long a batch of 60 requests takes."""
    with connected(model_dir, scheduler, shares=shares, niyama=niyama, max_num_seqs=64) as (engine, connector):
        random = np.random.default_rng(5)
        for i in range(60):
            engine.add(f"r{i}", int(random.integers(200, 2400)), int(random.integers(5, 60)), extra_args={CLASS: "Q3"})
        ends_well(engine)
        return engine.clock.now_s, dict(connector.counts)


@pytest.mark.parametrize(
    "shares",
    [REMOTE, {"hits": 1.0}, {"hits": 1.0, "beforehand": 1.0}, {"hits": 0.5, "beforehand": 0.5, "later": 0.3}],
    ids=["decode-instance", "store", "offloading", "mixed"],
)
def test_as_fast_as_vllm_alone(shares: dict[str, float], model_dir: Path, tmp_path: Path) -> None:
    """Of a batch class, which has no token deadlines; and what was decided can be decided again."""
    log = tmp_path / "log.jsonl"
    alone, _ = virtual_s(model_dir, ASYNC_STOCK, {**shares, "most_steps": 8})
    ours, counts = virtual_s(model_dir, ASYNC, {**shares, "most_steps": 8}, decision_log=str(log))
    print(alone, ours, counts)
    assert ours <= 1.05 * alone
    found = replay(log)
    assert (found.divergence, found.cut_short) == (None, None)


def test_a_failed_load_is_computed_and_its_token_counts_when_it_comes(model_dir: Path) -> None:
    """vLLM drops what the step made of blocks that had not come: the first token is the one that the client gets."""
    shares = {"hits": 1.0, "whole": 1.0, "fails": 1.0, "sync_fails": 1.0}
    with connected(model_dir, SYNC, shares=shares) as (engine, connector):
        planner = engine.scheduler.planner
        engine.add("r", 900, 4, extra_args={CLASS: "Q1"})
        engine.step()
        row = planner.mirror.lives["r"].row
        assert connector.counts["failed"] == 1 and np.isnan(planner._endings.times.first_s[row])
        connector.shares["fails"] = 0.0
        while not engine.tokens["r"]:
            engine.step()
        planner.plan(engine.scheduler, 0.0)
        assert planner.mirror.scheduler.table.state[row] == DECODING
        assert planner._endings.times.first_s[row] == pytest.approx(engine.clock.now_s - planner._start_s)
        ends_well(engine)


@BOTH
def test_loaded_kv_that_others_need_more_is_given_up(model_dir: Path, scheduler: str) -> None:
    """The kernel drops the KV of a request that has not run yet as it drops that of others."""
    with connected(model_dir, scheduler, shares=REMOTE, kv_blocks=400, max_model_len=2600) as (engine, connector):
        planner, mirror = engine.scheduler.planner, engine.scheduler.planner.mirror
        loads_in(connector, 5)
        engine.add("remote", 2000, 5, extra_args={CLASS: "Q3"})
        while not engine.scheduler.finished_recving_kv_req_ids:
            engine.step()
        planner._entry.let_in(engine.scheduler)  # which says that it has come
        live, step = mirror.lives["remote"], mirror.scheduler.step
        assert [*mirror.loads.loaded()] == [live]

        def dropping(timing: Any) -> Any:
            mirror.scheduler.step = step
            mirror.scheduler.report(LOST, live.row)
            return step(timing)

        mirror.scheduler.step = dropping
        engine.step()
        assert not [*mirror.loads.loaded()] and live.request.num_computed_tokens < 2000
        ends_well(engine)
