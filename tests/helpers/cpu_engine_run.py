"""Serve one list of prompts by vLLM's real CPU engine, first with its own scheduler, then with Niyama's; print JSON.

A process of its own, because vLLM reads the environment below when it is imported:
`python -m tests.helpers.cpu_engine_run MODEL_DIR`
"""

from __future__ import annotations

import json
import os
import random
import sys
from typing import Any

os.environ.update(
    VLLM_ENABLE_V1_MULTIPROCESSING="0",
    VLLM_CPU_KVCACHE_SPACE="1",
    VLLM_CPU_OMP_THREADS_BIND="nobind",
    VLLM_LOGGING_LEVEL="ERROR",
    OMP_NUM_THREADS="1",  # several would spend most of their time waiting for each other
)

from vllm import EngineArgs, LLMEngine, SamplingParams

PROMPTS, OUTPUT_TOKENS = 30, 24
FIRST_WAVE = 12  # the others come a few steps later, into a busy engine
BLOCK_TOKENS = 32  # the CPU's attention takes multiples of it
AMPLE_BLOCKS, SCARCE_BLOCKS = 1500, 90
MAX_MODEL_LEN = 1024
ABORTED = (3, 14, 20)
# Q1 comes before Q3 and is feasible, so that it passes Q3 over; Q2 asks for what no CPU can do and is relegated.
CONFIG = {
    "policy": {"name": "niyama", "kv_reserve": 0.0},
    "classes": [
        {"name": "Q1", "ttft_s": 60.0, "tbt_s": 0.05},
        {"name": "Q2", "ttlt_s": 0.05},
        {"name": "Q3", "ttlt_s": 3000.0},
    ],
}


def engine(model_dir: str, blocks: int, **more: Any) -> LLMEngine:
    """The tiny model, whose weights are random numbers in a file."""
    arguments = EngineArgs(
        model=model_dir,
        dtype="float32",
        seed=0,
        block_size=BLOCK_TOKENS,
        num_gpu_blocks_override=blocks,
        max_model_len=MAX_MODEL_LEN,
        max_num_batched_tokens=256,
        max_num_seqs=16,
        enable_prefix_caching=False,
        enforce_eager=True,
        **more,
    )
    return LLMEngine.from_engine_args(arguments)


def serve(served_by: LLMEngine, abort: tuple[int, ...]) -> dict[str, Any]:
    """All tokens by request, what the scheduler did on the way, and whether all KV came back."""
    scheduler = served_by.engine_core.engine_core.scheduler
    seen = watch(scheduler)
    for row in range(FIRST_WAVE):
        add(served_by, row)
    tokens: dict[str, list[int]] = {}
    told: dict[str, Any] = {}
    step = 0
    while served_by.has_unfinished_requests() or step == 0:
        step += 1
        for output in served_by.step():
            tokens[output.request_id] = list(output.outputs[0].token_ids)
            if output.finished:
                told[output.request_id] = output.kv_transfer_params
        if step == 6:
            for row in range(FIRST_WAVE, PROMPTS):
                add(served_by, row)
        if step == 12:
            served_by.abort_request([str(row) for row in abort])
    manager = scheduler.kv_cache_manager
    free, total = manager.block_pool.get_num_free_blocks(), manager.block_pool.num_gpu_blocks - 1
    planning = getattr(scheduler, "planner", None) is not None
    served_by.engine_core.engine_core.shutdown()
    return {"tokens": tokens, "told": told, "leaked_blocks": total - free, "planning": planning, **seen}


def add(to: LLMEngine, row: int) -> None:
    """Request `row`: its prompt depends on nothing but the number."""
    numbers = random.Random(row)
    tokens = 600 if row % 3 == 0 else numbers.choice([20, 90, 250, 450])  # Q3: long, so that it is passed over midway
    prompt = {"prompt_token_ids": [numbers.randrange(250) for _ in range(tokens)]}
    params = SamplingParams(
        temperature=0.0,
        max_tokens=OUTPUT_TOKENS,
        ignore_eos=True,
        extra_args={"niyama_class": ("Q3", "Q1", "Q2")[row % 3]},
    )
    to.add_request(str(row), prompt, params)


def watch(scheduler: Any) -> dict[str, int]:
    """Counts that grow: steps that passed over a started prompt, and preemptions."""
    seen, schedule, preempt = {"passed_over": 0, "preemptions": 0}, scheduler.schedule, scheduler._preempt_request

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        started = [r for r in scheduler.running if r.is_prefill_chunk]
        seen["passed_over"] += any(r.request_id not in output.num_scheduled_tokens for r in started)
        return output

    def preempted(*args: Any, **kwargs: Any) -> None:
        seen["preemptions"] += 1
        preempt(*args, **kwargs)

    scheduler.schedule, scheduler._preempt_request = scheduled, preempted
    return seen


if __name__ == "__main__":
    alone = serve(engine(sys.argv[1], AMPLE_BLOCKS), ())
    ours = serve(
        engine(
            sys.argv[1],
            SCARCE_BLOCKS,
            scheduler_cls="tests.helpers.stepped_clock.SteppedScheduler",
            additional_config={"niyama": CONFIG},
        ),
        ABORTED,
    )
    print(json.dumps({"alone": alone, "ours": ours, "aborted": ABORTED, "prompts": PROMPTS, "outputs": OUTPUT_TOKENS}))
