"""Serve prompts by vLLM's real CPU engine with n-gram speculation, by its own scheduler and by Niyama's; print JSON.

A process of its own: `python -m tests.helpers.cpu_drafts_run MODEL_DIR RUN...`. No run can come after one with n-grams,
because vLLM's CPU build makes no engine once numba is imported.
"""

from __future__ import annotations

import json
import random
import sys
from typing import Any

from tests.helpers.cpu_engine_run import AMPLE_BLOCKS, CONFIG, LLMEngine, SamplingParams, engine

PROMPTS, OUTPUT_TOKENS = 8, 60
DRAFTS = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_min": 2, "prompt_lookup_max": 4}
OURS = {"scheduler_cls": "tests.helpers.stepped_clock.SteppedScheduler", "additional_config": {"niyama": CONFIG}}
RUNS = {"plain": {}, "stock": {"speculative_config": DRAFTS}, "ours": {"speculative_config": DRAFTS, **OURS}}


def serve(served_by: LLMEngine) -> dict[str, Any]:
    """All tokens by request, how many steps they took, how many drafted tokens were verified, and what is left over."""
    scheduler = served_by.engine_core.engine_core.scheduler
    schedule, steps = scheduler.schedule, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        steps.append(sum(map(len, output.scheduled_spec_decode_tokens.values())))
        return output

    scheduler.schedule = watched
    for row in range(PROMPTS):
        numbers = random.Random(row)
        phrase = [numbers.randrange(250) for _ in range(9 + row)]
        prompt = {"prompt_token_ids": (phrase * 20)[: 40 + 10 * row]}
        params = SamplingParams(temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True)
        params.extra_args = {"niyama_class": ("Q1", "Q3")[row % 2]}
        served_by.add_request(str(row), prompt, params)
    tokens: dict[str, list[int]] = {}
    while served_by.has_unfinished_requests():
        for output in served_by.step():
            tokens[output.request_id] = list(output.outputs[0].token_ids)
    manager = scheduler.kv_cache_manager
    leaked = manager.block_pool.num_gpu_blocks - 1 - manager.block_pool.get_num_free_blocks()
    planning = getattr(scheduler, "planner", None) is not None
    served_by.engine_core.engine_core.shutdown()
    return {"tokens": tokens, "steps": len(steps), "drafts": sum(steps), "leaked": leaked, "planning": planning}


if __name__ == "__main__":
    json.dump({name: serve(engine(sys.argv[1], AMPLE_BLOCKS, **RUNS[name])) for name in sys.argv[2:]}, sys.stdout)
