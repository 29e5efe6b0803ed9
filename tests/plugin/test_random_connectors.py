"""Random KV hits, loads that take steps or fail, and late frees: all requests end, with the outputs of vLLM alone."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.v1.request import RequestStatus

from artifact.servers.model_files import model_folder
from niyama import BUILT_IN
from niyama.decision_log import replay
from niyama.vllm.emulated import executor
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK
from tests.helpers import kv_connector
from tests.helpers.kv_connector import MIXED, CountedConnector
from tests.helpers.random_actions import Actions
from tests.helpers.stepped_engine import DRAFTS, DROPS_TOO_MUCH, Driven, driven

pytestmark = pytest.mark.engine
ON_ITS_WAY = (RequestStatus.WAITING_FOR_REMOTE_KVS,)
STEPS = int(os.environ.get("NIYAMA_RANDOM_STEPS", "150"))
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.fixture(autouse=True)
def device_with_connector(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(executor, "_refuse_what_is_not_emulated", lambda config: None)


@contextmanager
def connected(
    model_dir: Path, scheduler: str, transfer: dict[str, Any], *, more: dict[str, Any] | None = None, **settings: Any
) -> Iterator[tuple[Driven, CountedConnector]]:
    """An engine with a connector."""
    settings = {"max_model_len": 2600, "kv_blocks": 500, **settings, "more": {**(more or {}), **transfer}}
    with driven(model_dir, scheduler, **settings) as engine:
        yield engine, kv_connector.connect(engine.core)


class ConnectorActions(Actions):
    """Random actions, but for those that vLLM itself refuses while KV is on its way."""

    def _may_reset(self) -> bool:
        scheduler = self.engine.scheduler
        holders = [r for r in scheduler.requests.values() if r.status != RequestStatus.RUNNING]
        kept = any(r.num_computed_tokens or r.is_finished() or r.status in ON_ITS_WAY for r in holders)
        in_flight = scheduler.defer_block_free and scheduler.sched_step_seq > scheduler.processed_step_seq
        return super()._may_reset() and not kept and not in_flight


@pytest.mark.timeout(3000 + STEPS)
@pytest.mark.parametrize(
    ("scheduler", "settings"),
    [
        (ASYNC, {}),
        (SYNC, {}),
        (ASYNC, {"enable_prefix_caching": True}),
        (SYNC, {"enable_prefix_caching": True, "kv_blocks": 300}),
        (ASYNC, {"max_num_seqs": 8, "max_num_batched_tokens": 100, "kv_blocks": 170}),
        (ASYNC, {"more": DRAFTS}),
        (ASYNC_STOCK, {}),
        (SYNC_STOCK, {"enable_prefix_caching": True}),
    ],
    ids=["async", "sync", "async-prefixes", "sync-short-kv", "async-tiny", "async-drafts", "stock", "stock-sync"],
)
def test_every_request_ends_as_with_vllm_alone(
    scheduler: str, settings: dict[str, Any], model_dir: Path, tmp_path: Path
) -> None:
    log = tmp_path / "log.jsonl"
    niyama = {"decision_log": str(log)} if "niyama" in scheduler else {}
    if DROPS_TOO_MUCH and settings.get("more"):
        pytest.skip("this vLLM loses tokens of its own")
    shares = MIXED | ({"sync_fails": 1.0} if scheduler in (SYNC, SYNC_STOCK) else {})
    transfer = kv_connector.config(**shares)
    with connected(model_dir, scheduler, transfer, niyama=niyama, **settings) as (engine, connector):
        actions = ConnectorActions(engine, seed=len(settings))
        for _ in range(STEPS):
            actions.act()
            assert getattr(engine.scheduler, "planner", True) is not None, f"switched off after {actions.counts}"
        actions.end()
        assert getattr(engine.scheduler, "planner", True) is not None, "switched off"
        print(f"{scheduler}: {engine.steps} steps, {actions.summary()}; {connector.counts}")
        assert not connector.loading and not connector.sending
    assert len(engine.finished) > STEPS / 20
    assert all(connector.counts.values())
    if niyama:
        found = replay(log)
        assert (found.divergence, found.cut_short) == (None, None)


@pytest.mark.parametrize("policy", BUILT_IN)
def test_every_policy_serves_them(policy: str, model_dir: Path) -> None:
    niyama = {"policy": policy}
    with connected(model_dir, ASYNC, kv_connector.config(**MIXED), niyama=niyama) as (engine, _):
        actions = ConnectorActions(engine, seed=3)
        for _ in range(STEPS // 3):
            actions.act()
        actions.end()
        assert engine.scheduler.planner is not None, "switched off"
