"""Models whose layers share the KV in several groups are served as fast as by vLLM alone, and what fits is served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.sim import Requests
from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, virtual_core
from tests.helpers.emulated_runs import CARD, some_requests
from tests.helpers.stepped_engine import DRAFTS

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
FULL = {"groups": 1}
#: kinds of layers by model; each group counts as one layer, as if they had equally many
LAYOUTS: dict[str, list[dict[str, int]]] = {
    "one full group": [FULL],
    "gpt-oss-like": [FULL, {"sliding_window": 128}],
    "Gemma-like": [FULL, {"groups": 5, "sliding_window": 1024}],
    "Llama-4-like": [FULL, {"groups": 3, "local_chunk": 8192}],
}


MAMBA = {"groups": 3, "mamba": True}
#: The same with Mamba layers: kinds of layers, KV tokens, tokens of a block. A state takes a block.
HYBRIDS: dict[str, tuple[list[dict[str, int]], int, int]] = {
    "Qwen3-Next-like": ([FULL, MAMBA], 60_000, 528),
    "Granite-like, large blocks": ([FULL, {**MAMBA, "groups": 9}], 160_000, 1600),
    # of 60,000 tokens' 150 blocks vLLM's sixth prompt needs all that are left, and the plan counts three more
    "with a window": ([FULL, MAMBA, {"sliding_window": 1024}], 62_000, 400),
    "attention-free": ([{**MAMBA, "groups": 1}], 12_000, 528),
}


class Served(NamedTuple):
    """What an engine made of some requests: times in seconds of virtual time."""

    end_s: float
    steps: int
    most_running: int
    most_kv: float  # share of the blocks in use
    preemptions: int
    fallen_back: bool


def serve(
    model_dir: Path,
    scheduler: str,
    layers: Sequence[dict[str, int]],
    requests: Requests,
    kv_tokens: int,
    *,
    block_tokens: int = 16,
    enable_prefix_caching: bool = False,
    max_num_batched_tokens: int = 2816,
    more: Mapping[str, Any] | None = None,
    **niyama: Any,
) -> Served:
    """Serve the requests, all there at the start."""
    ours = "niyama" in scheduler
    longest = int((requests.prompt_tokens + requests.output_tokens).max())
    settings = EngineSettings(
        model_dir,
        scheduler,
        niyama,
        max_num_batched_tokens=max_num_batched_tokens,
        enable_prefix_caching=enable_prefix_caching,
        kv_layers=layers,
        block_tokens=block_tokens,
        more=more or {},
    )
    with virtual_core(replace(CARD, kv_tokens=kv_tokens), settings, requests.classes, longest) as (core, clock):
        traffic, steps, running, usage, preempted = Traffic(requests), 0, 0, 0.0, 0
        scheduler_ = core.scheduler
        for row in range(len(requests)):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        all_requests = list(scheduler_.requests.values())
        while scheduler_.has_requests() or core.batch_queue:
            core.post_step(core.step_fn()[1])
            steps += 1
            assert steps < 20_000, "it does not end"
            running = max(running, len(scheduler_.running))
            usage = max(usage, scheduler_.kv_cache_manager.usage)
        preempted = sum(request.num_preemptions for request in all_requests)
        assert all(request.num_output_tokens == request.max_tokens for request in all_requests)
        return Served(clock.now_s, steps, running, usage, preempted, ours and scheduler_.planner is None)


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def alike(n: int, prompt: int, output: int) -> Requests:
    """n requests of batch classes, which have no token deadlines."""
    requests = some_requests([0.0] * n, [prompt] * n, [output] * n)
    return replace(requests, class_index=np.full(n, 2))


@pytest.mark.parametrize("name", LAYOUTS)
def test_as_fast_as_vllm_alone(model_dir: Path, name: str) -> None:
    requests = alike(30, 6000, 300)
    stock = serve(model_dir, ASYNC_STOCK, LAYOUTS[name], requests, 60_000)
    ours = serve(model_dir, ASYNC, LAYOUTS[name], requests, 60_000)
    print(f"\n{name}: {stock}\n{'':{len(name)}}  {ours}")
    assert not ours.fallen_back
    assert ours.end_s <= 1.03 * stock.end_s
    assert ours.most_running >= stock.most_running - 1


@pytest.mark.parametrize(
    ("caching", "more"),
    [(False, {}), (True, {}), (False, DRAFTS), (True, DRAFTS)],
    ids=["plain", "prefix-caching", "drafts", "drafts-prefix-caching"],
)
@pytest.mark.parametrize("name", HYBRIDS)
def test_models_with_states_are_as_fast_as_by_vllm_alone(
    model_dir: Path, name: str, caching: bool, more: dict[str, Any]
) -> None:
    """In steps too, and vLLM hardly ever takes KV back that the plan has given."""
    layers, kv_tokens, block_tokens = HYBRIDS[name]
    sizes = {"block_tokens": block_tokens, "enable_prefix_caching": caching, "more": more}
    requests = alike(24, 6000, 150)
    stock = serve(model_dir, ASYNC_STOCK, layers, requests, kv_tokens, **sizes)
    ours = serve(model_dir, ASYNC, layers, requests, kv_tokens, **sizes)
    print(f"\n{name}: {stock}\n{'':{len(name)}}  {ours}")
    assert not ours.fallen_back
    assert ours.end_s <= 1.03 * stock.end_s
    assert ours.preemptions <= stock.preemptions + 2


@pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
@pytest.mark.parametrize(
    ("name", "kv_tokens", "prompt"),
    [("Gemma-like", 60_000, 12_000), ("gpt-oss-like", 30_000, 15_500), ("Llama-4-like", 60_000, 16_000)],
)
def test_a_prompt_longer_than_its_share_is_prefilled_once(
    model_dir: Path, scheduler: str, name: str, kv_tokens: int, prompt: int, tmp_path: Path
) -> None:
    """One prompt that takes much of all groups' blocks, beside four short ones; the log replays."""
    requests = some_requests([0.0] * 5, [prompt, 200, 200, 200, 200], [200] * 5)
    log = tmp_path / "log.jsonl"
    ours = serve(model_dir, scheduler, LAYOUTS[name], requests, kv_tokens, decision_log=str(log))
    stock = serve(model_dir, ASYNC_STOCK, LAYOUTS[name], requests, kv_tokens)
    print(f"\n{name}: {stock}\n{'':{len(name)}}  {ours}")
    assert not ours.fallen_back and ours.preemptions == 0
    assert ours.steps <= 1.25 * stock.steps
    found = replay(log)
    assert (found.divergence, found.cut_short) == (None, None)
