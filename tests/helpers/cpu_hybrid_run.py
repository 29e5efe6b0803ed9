"""Serve prompts by vLLM's real CPU engine and a tiny model with GDN layers, by its scheduler and by Niyama's.

A process of its own, for the reasons of `cpu_engine_run`: `python -m tests.helpers.cpu_hybrid_run FOLDER` prints JSON:
without and with prefix caching, what each scheduler made of it. Not of Mamba 2: vLLM 0.32's own CPU layer fails
(`mamba_mixer2`: an index out of bounds) where a step has parts of several prompts.
"""

from __future__ import annotations

import ctypes
import json
import random
import sys
from pathlib import Path
from typing import Any

from tests.helpers.cpu_engine_run import watch  # first: it sets vLLM's environment

# isort: split
import torch
import vllm.model_executor.model_loader.dummy_loader as dummy_loader
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.platforms import current_platform
from vllm.v1.worker import mamba_utils

from tests.helpers.tiny_models import QWEN3_NEXT, random_weight, write_model

PROMPTS, OUTPUT_TOKENS, SHARED_TOKENS = 14, 10, 420
AMPLE_BLOCKS, STEP_TOKENS, MAX_MODEL_LEN = 400, 256, 1024
LATE_STEPS = 4
#: Tokens of a step, and the steps after which all is dropped: they cut prompts elsewhere, and recompute outputs.
OTHERWISE = ((64, ()), (150, (7, 12, 30)), (150, (9, 15, 20, 36)), (200, (5, 10, 14, 25)))
LAX = {"classes": [{"name": name, "ttlt_s": 3000.0} for name in ("Q1", "Q2", "Q3")]}
# Q1 passes the others over, and Q2 cannot be in time: it is relegated, which drops its state.
TIGHT = {
    "policy": {"name": "niyama", "kv_reserve": 0.0, "max_chunk_tokens": 150},
    "classes": [
        {"name": "Q1", "ttft_s": 60.0, "tbt_s": 0.05},
        {"name": "Q2", "ttlt_s": 0.05},
        {"name": "Q3", "ttlt_s": 3000.0},
    ],
}


def copy_states(sources: torch.Tensor, targets: torch.Tensor, sizes: torch.Tensor) -> None:
    """What vLLM has as a Triton kernel, without Triton: bytes from addresses to addresses."""
    for source, target, size in zip(sources.tolist(), targets.tolist(), sizes.tolist(), strict=True):
        ctypes.memmove(target, source, size)


def engine(model_dir: Path, blocks: int, caching: bool, step_tokens: int = STEP_TOKENS, **more: Any) -> LLMEngine:
    """One with blocks as small as the model's states allow."""
    arguments = EngineArgs(
        model=str(model_dir),
        skip_tokenizer_init=True,
        load_format="dummy",
        block_size=32,
        num_gpu_blocks_override=blocks,
        max_model_len=MAX_MODEL_LEN,
        max_num_batched_tokens=step_tokens,
        max_num_seqs=12,
        enable_prefix_caching=caching,
        enforce_eager=True,
        **more,
    )
    made = LLMEngine.from_engine_args(arguments)
    type(current_platform).register_triton_kernel_overrides = classmethod(lambda cls: None)  # once is enough
    return made


def prompt(row: int) -> list[int]:
    """Most begin alike; one token, a block or so, several chunks."""
    numbers, tokens = random.Random(row), (1, 2, 97, 250, 430, 600, 700)[row % 7]
    shared = random.Random(99).choices(range(250), k=SHARED_TOKENS) if row % 3 else []
    return (shared + numbers.choices(range(250), k=tokens))[:tokens]


def serve(served_by: LLMEngine, resets: tuple[int, ...] = ()) -> dict[str, Any]:
    """All prompts twice, the second time into what the first has left in the prefix cache.

    resets: steps after which all KV and all states are dropped.
    """
    scheduler = served_by.engine_core.engine_core.scheduler
    seen, steps, tokens, cached = watch(scheduler), 0, {}, 0
    for wave in range(2):
        begun = steps
        while steps <= begun + LATE_STEPS or served_by.has_unfinished_requests():
            if steps in (begun, begun + LATE_STEPS):
                add(served_by, wave, late=steps > begun)
            steps += 1
            for output in served_by.step():
                tokens[output.request_id] = list(output.outputs[0].token_ids)
                cached += output.finished and (output.num_cached_tokens or 0)
            if steps in resets:
                served_by.engine_core.engine_core.reset_prefix_cache(reset_running_requests=True)
    pool, planner = scheduler.kv_cache_manager.block_pool, getattr(scheduler, "planner", None)
    found = {"tokens": tokens, "steps": steps, "cached": cached, "planning": planner is not None}
    found["leaked_blocks"] = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
    found["block_tokens"] = scheduler.cache_config.block_size
    found["longest_blocks"] = kv_blocks_of_longest(planner) if planner is not None else 0
    served_by.engine_core.engine_core.shutdown()
    return {**found, **seen}


def add(served_by: LLMEngine, wave: int, *, late: bool) -> None:
    """The prompts of Q1, which are late and pass the others over, or those of the others."""
    for row in range(PROMPTS):
        name = ("Q3", "Q1", "Q2")[row % 3]
        if (name == "Q1") == late:
            params = SamplingParams(
                temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True, detokenize=False,
                extra_args={"niyama_class": name},
            )  # fmt: skip
            served_by.add_request(f"{wave}-{row}", {"prompt_token_ids": prompt(row)}, params)


def kv_blocks_of_longest(planner: Any) -> int:
    """Blocks that the kernel counts for the longest prompt."""
    from niyama.kv import blocks_for

    return int(blocks_for(planner.mirror.scheduler.state, max(len(prompt(row)) for row in range(PROMPTS)), False))


def runs(model_dir: Path, caching: bool) -> dict[str, Any]:
    """vLLM alone; Niyama with as much KV and no hurry; Niyama with little KV, resets, and deadlines it must miss.

    sure: the requests whose tokens vLLM alone makes however it cuts prompts, and also where it has to compute output
    again; bfloat16 rounds otherwise each time.
    """
    alone = serve(engine(model_dir, AMPLE_BLOCKS, caching))
    others = [serve(engine(model_dir, AMPLE_BLOCKS, caching, tokens), resets) for tokens, resets in OTHERWISE]
    rows = {
        row
        for row in range(PROMPTS)
        for name in (f"0-{row}", f"1-{row}")
        if any(other["tokens"][name] != alone["tokens"][name] for other in others)
    }
    sure = [name for name in alone["tokens"] if int(name.partition("-")[2]) not in rows]
    stepped = {"scheduler_cls": "tests.helpers.stepped_clock.SteppedScheduler"}
    calm = serve(engine(model_dir, AMPLE_BLOCKS, caching, **stepped, additional_config={"niyama": LAX}))
    scarce = max(6, 5 * calm["longest_blocks"] // 2)
    tight = serve(engine(model_dir, scarce, caching, **stepped, additional_config={"niyama": TIGHT}), resets=(7, 12))
    return {"alone": alone, "calm": calm, "tight": tight, "sure": sure}


if __name__ == "__main__":
    dummy_loader.initialize_single_dummy_weight = random_weight
    mamba_utils.batch_memcpy = copy_states
    folder = write_model(Path(sys.argv[1], "qwen3-next"), QWEN3_NEXT)
    print(json.dumps({f"caching={caching}": runs(folder, caching) for caching in (False, True)}))
