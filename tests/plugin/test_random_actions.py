"""Whatever clients and operators do, in whatever order: nothing is lost, nothing stays, every request ends.

NIYAMA_RANDOM_STEPS=20000 python -m pytest -q -p no:xdist tests/plugin/test_random_actions.py   as long as one likes
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.emulated.virtual import ASYNC_STOCK
from tests.helpers.random_actions import Actions
from tests.helpers.stepped_engine import DRAFTS, DROPS_TOO_MUCH, driven

pytestmark = pytest.mark.engine
STEPS = int(os.environ.get("NIYAMA_RANDOM_STEPS", "150"))
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
TINY = {"kv_blocks": 170, "max_num_seqs": 8, "max_num_batched_tokens": 100}
SPECULATING = {"more": DRAFTS}
SLAI = f"{Path(__file__).parents[2] / 'policies' / 'slai.py'}:slai"
LEAVING_OUT = {"niyama": {"policy": SLAI}}
MAMBA = {"kv_blocks": 300, "block_tokens": 48, "kv_layers": [{}, {"groups": 3, "mamba": True}]}
CONFIGURATIONS: dict[str, tuple[str, dict[str, Any]]] = {
    "async": (ASYNC, {}),
    "sync": (SYNC, {}),
    "async-tiny-prefixes": (ASYNC, {**TINY, "enable_prefix_caching": True}),
    "sync-tiny-prefixes": (SYNC, {**TINY, "enable_prefix_caching": True}),
    "async-short-kv": (ASYNC, {"kv_blocks": 300, "max_num_seqs": 32}),
    "async-one": (ASYNC, {"kv_blocks": 300, "max_num_seqs": 1, "max_num_batched_tokens": 64}),
    "async-drafts": (ASYNC, {"kv_blocks": 300, "max_num_seqs": 32, **SPECULATING}),
    "sync-drafts": (SYNC, {"kv_blocks": 300, "max_num_seqs": 32, **SPECULATING}),
    "async-drafts-tiny-prefixes": (ASYNC, {**TINY, "enable_prefix_caching": True, **SPECULATING}),
    "vllm-alone-drafts": (ASYNC_STOCK, {"kv_blocks": 300, "max_num_seqs": 32, **SPECULATING}),
    "async-mamba": (ASYNC, MAMBA),
    "async-mamba-prefixes": (ASYNC, {**MAMBA, "enable_prefix_caching": True}),
    "sync-mamba-prefixes": (SYNC, {**TINY, **MAMBA, "enable_prefix_caching": True}),
    "async-leaves-out": (ASYNC, {"kv_blocks": 300, "max_num_seqs": 32, **LEAVING_OUT}),
    "sync-leaves-out-prefixes": (SYNC, {**TINY, "enable_prefix_caching": True, **LEAVING_OUT}),
    "async-leaves-out-mamba": (ASYNC, {**MAMBA, "enable_prefix_caching": True, **LEAVING_OUT}),
    "vllm-alone": (ASYNC_STOCK, {"kv_blocks": 300}),  # that the actions are ones that vLLM survives
}


@pytest.mark.timeout(3000 + STEPS)
@pytest.mark.parametrize("name", CONFIGURATIONS)
def test_every_request_ends_as_with_vllm_alone(name: str, tmp_path: Path) -> None:
    scheduler, settings = CONFIGURATIONS[name]
    if DROPS_TOO_MUCH and "drafts" in name and scheduler != SYNC:
        pytest.skip("this vLLM loses tokens of its own")
    with driven(model_folder("llama3-8b", tmp_path), scheduler, max_model_len=2600, **settings) as engine:
        actions = Actions(engine, seed=len(name))
        for _ in range(STEPS):
            actions.act()
            assert getattr(engine.scheduler, "planner", True) is not None, f"switched off after {actions.counts}"
        actions.end()
        print(f"{name}: {engine.steps} steps, {actions.summary()}")
    assert len(engine.finished) > STEPS / 20
