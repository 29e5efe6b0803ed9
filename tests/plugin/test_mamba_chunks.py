"""Where prompts of models with Mamba layers are cut: as vLLM does, never to nothing, and nobody else waits for it."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from hypothesis import given
from hypothesis import strategies as st
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.core.single_type_kv_cache_manager import MambaManager

from artifact.servers.model_files import model_folder
from niyama.plan import _aligned
from niyama.requests import new_table
from niyama.state import new_state
from niyama.vllm import engine, mamba
from tests.helpers.stepped_engine import driven

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
BOTH = pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
BLOCK = 528
HYBRID = {"kv_layers": [{}, {"groups": 3, "mamba": True}], "block_tokens": BLOCK, "enable_prefix_caching": True}


def vllms_split(size: int, step_tokens: int) -> Any:
    """What vLLM's method reads of its scheduler, by the versions that have it."""
    return SimpleNamespace(
        cache_config=SimpleNamespace(block_size=size),
        scheduler_config=SimpleNamespace(long_prefill_token_threshold=0),
        max_num_scheduled_tokens=step_tokens,
        block_size=size,
        hash_block_size=size,
        num_hash_lookahead_tokens=0,
        use_eagle=False,
        use_eagle_block_drop=False,
        mamba_partial_cache_hit=False,
        mamba_shared_prefix_checkpoint=False,
        mamba_has_prefill_checkpoint_blocks=False,
        mamba_prefill_checkpoint_alignment=None,
    )


@given(data=st.data())
def test_a_planned_chunk_is_what_vllm_grants(data: st.DataObject) -> None:
    """Whatever the block, where it starts and how much the step has room for; all granted, the prompt ends."""
    size, target = data.draw(st.integers(2, 700)), data.draw(st.integers(1, 3000))
    scheduler = vllms_split(size, 4000)
    state, table = new_state(1, 1, 1, 1 << 20, 0.0, align_tokens=size), new_table(1)
    table.target_tokens[0] = target
    while table.computed_tokens[0] < target:
        start = int(table.computed_tokens[0])
        tokens = data.draw(st.integers(1, target - start))
        planned = _aligned(state, table, 0, tokens)
        request = SimpleNamespace(
            num_computed_tokens=start, num_prompt_tokens=target, num_tokens=target, shared_prefix_boundary=0
        )
        split = partial(Scheduler._mamba_block_aligned_split, scheduler)
        assert mamba.aligned(scheduler, split, request, target - start, planned) == planned
        end = start + planned
        assert start < end <= start + tokens
        assert end % size == 0 or start // size == (end - 1) // size  # at a boundary, or none is passed
        table.computed_tokens[0] = end
    assert scheduler.max_num_scheduled_tokens == 4000


@pytest.mark.parametrize("name", ["mamba_cache_mode", "num_speculative_blocks", "cached_blocks_this_step"])
def test_the_contract_names_what_is_gone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    source = mamba.inspect.getsource(MambaManager).replace(name, "other")
    own = mamba.inspect.getsource
    monkeypatch.setattr(mamba.inspect, "getsource", lambda what: source if what is MambaManager else own(what))
    assert engine.contract() == [f"MambaManager.{name} is gone"]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def watch(engine: Any) -> list[dict[str, int]]:
    """The tokens of each step to come, by request."""
    seen, schedule = [], engine.scheduler.schedule

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        seen.append(dict(output.num_scheduled_tokens))
        return output

    engine.scheduler.schedule = watched
    return seen


@pytest.mark.parametrize("chunk", [100, 600, 2000])
@BOTH
def test_chunks_end_at_boundaries_and_fill_the_step(model_dir: Path, scheduler: str, chunk: int) -> None:
    """A chunk that passes a boundary ends at one, and what it leaves of the step another prompt takes."""
    niyama, prompt = {"policy": {"name": "niyama", "max_chunk_tokens": chunk, "min_chunk_tokens": 64}}, 1700
    with driven(model_dir, scheduler, niyama=niyama, kv_blocks=3000, max_num_batched_tokens=2816, **HYBRID) as engine:
        seen = watch(engine)
        for name in "abc":
            engine.add(name, prompt, 3)
        engine.drain()
        assert engine.scheduler.planner is not None
        engine.check_outputs()
    in_step = np.zeros(len(seen), int)
    for name in "abc":
        ends = np.minimum(np.cumsum([step.get(name, 0) for step in seen]), prompt)
        starts = np.concatenate([[0], ends[:-1]])
        for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
            within_a_block = start // BLOCK == max(start, end - 1) // BLOCK
            assert within_a_block or (start % BLOCK == 0 and (end % BLOCK == 0 or end == prompt))
        assert prompt // BLOCK * BLOCK in ends
        in_step += ends - starts
    full = 2 * prompt // chunk  # until the last prompt is alone
    assert in_step[in_step > 0].tolist()[:full] == [chunk] * full


@BOTH
def test_a_sibling_waits_for_one_step_and_nobody_behind_it_longer(model_dir: Path, scheduler: str) -> None:
    """Its prefix is computed in the same step, which vLLM does not let it use; a decode runs meanwhile."""
    with driven(model_dir, scheduler, kv_blocks=3000, max_num_batched_tokens=2816, **HYBRID) as engine:
        engine.add("running", 40, 200)
        for _ in range(4):
            engine.step()
        seen = watch(engine)
        prompt = np.random.default_rng(0).integers(0, 256, 2 * BLOCK + 100).tolist()
        for name in ("Q1-first", "Q1-sibling", "Q1-behind"):
            engine.add(name, prompt if name != "Q1-behind" else 700, 2)
        engine.drain()
        assert engine.scheduler.planner is not None
        engine.check_outputs()
    begun = [next(i for i, step in enumerate(seen) if name in step) for name in ("Q1-first", "Q1-sibling", "Q1-behind")]
    assert max(begun) <= 4, begun
