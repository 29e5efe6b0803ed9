"""Serve prompts by vLLM's real CPU engine and a tiny model of each family, by its own scheduler and by Niyama's.

A process of its own, for the reasons of `cpu_engine_run`: `python -m tests.helpers.cpu_families_run FOLDER FAMILY ...`
prints a line of JSON for each family.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

from tests.helpers.cpu_engine_run import CONFIG, watch  # first: it sets vLLM's environment

# isort: split
import vllm.model_executor.model_loader.dummy_loader as dummy_loader
from vllm import EngineArgs, LLMEngine, SamplingParams
from vllm.platforms import current_platform

from tests.helpers.tiny_models import FAMILIES, random_weight, write_model

OUTPUT_TOKENS = 8
EARLY, LATE = (600, 431, 600, 97), (1, 97, 320, 2)  # prompts of Q3, and of Q1, which pass them over; Q2 is relegated


def engine(model_dir: Path, **more: Any) -> LLMEngine:
    """Blocks as the CPU's attention takes them."""
    arguments = EngineArgs(
        model=str(model_dir),
        skip_tokenizer_init=True,
        load_format="dummy",
        block_size=32,
        num_gpu_blocks_override=400,
        max_model_len=1024,
        max_num_batched_tokens=256,
        max_num_seqs=12,
        enable_prefix_caching=False,
        enforce_eager=True,
        **more,
    )
    made = LLMEngine.from_engine_args(arguments)
    type(current_platform).register_triton_kernel_overrides = classmethod(lambda cls: None)  # once is enough
    return made


def serve(served_by: LLMEngine) -> dict[str, Any]:
    """All tokens by request, how many steps they took, and what is left over."""
    scheduler = served_by.engine_core.engine_core.scheduler
    seen, steps, tokens = watch(scheduler), 0, {}
    for row, length in enumerate(EARLY):
        add(served_by, row, length, ("Q3", "Q3", "Q3", "Q2")[row])
    while served_by.has_unfinished_requests():
        steps += 1
        for output in served_by.step():
            tokens[output.request_id] = list(output.outputs[0].token_ids)
        if steps == 2:
            for row, length in enumerate(LATE, len(EARLY)):
                add(served_by, row, length, "Q1")
    pool, kv = scheduler.kv_cache_manager.block_pool, scheduler.kv_cache_config.kv_cache_groups
    found = {"tokens": tokens, "steps": steps, "planning": getattr(scheduler, "planner", None) is not None, **seen}
    found["leaked_blocks"] = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
    found["kv_groups"] = [type(group.kv_cache_spec).__name__ for group in kv]
    served_by.engine_core.engine_core.shutdown()
    return found


def add(to: LLMEngine, row: int, length: int, name: str, request_id: str | None = None) -> None:
    """Request `row`: its prompt depends on nothing but the number."""
    prompt = random.Random(row).choices(range(250), k=length)
    params = SamplingParams(
        temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True, detokenize=False, extra_args={"niyama_class": name}
    )
    to.add_request(request_id or str(row), {"prompt_token_ids": prompt}, params)


if __name__ == "__main__":
    dummy_loader.initialize_single_dummy_weight = random_weight
    ours = {"scheduler_cls": "tests.helpers.stepped_clock.SteppedScheduler", "additional_config": {"niyama": CONFIG}}
    for family in sys.argv[2:]:
        folder = write_model(Path(sys.argv[1], family), FAMILIES[family])
        came = {"family": family, "alone": serve(engine(folder)), "ours": serve(engine(folder, **ours))}
        print(json.dumps(came), flush=True)
