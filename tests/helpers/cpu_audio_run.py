"""Serve prompts with audio by vLLM's real CPU engine, first with its own scheduler, then with Niyama's; print JSON.

`python -m tests.helpers.cpu_audio_run FOLDER`, which `audio_model` has made in another process: where numba has been
imported, vLLM's CPU build does not start.
"""

from __future__ import annotations

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np

from tests.helpers.cpu_engine_run import AMPLE_BLOCKS, CONFIG, LLMEngine, SamplingParams, engine, watch

PROMPTS, OUTPUT_TOKENS = 12, 12
CLASSES = ("Q3", "Q1", "Q3")
FOLDER = Path(sys.argv[1])
AUDIO_ID = json.loads((FOLDER / "config.json").read_text())["audio_token_index"]
SAMPLES_PER_S = json.loads((FOLDER / "preprocessor_config.json").read_text())["sampling_rate"]


def prompt(row: int) -> dict[str, Any]:
    """Text with one or two audios in it, or none."""
    numbers = random.Random(row)
    ids, audios = [numbers.randrange(250) for _ in range(5)], []
    for _ in range((0, 2, 1)[row % 3]):
        audios.append(np.random.default_rng(row).standard_normal(numbers.choice([4, 10, 25]) * SAMPLES_PER_S))
        ids += [AUDIO_ID, *(numbers.randrange(250) for _ in range(numbers.choice([3, 150])))]
    audio = {"multi_modal_data": {"audio": audios}} if audios else {}
    return {"prompt_token_ids": ids + [numbers.randrange(250) for _ in range(30)], **audio}


def serve(served_by: LLMEngine, steps_between: int) -> dict[str, Any]:
    """All tokens by request, what the scheduler and its encoder did on the way, and what the cache holds at the end."""
    scheduler = served_by.engine_core.engine_core.scheduler
    seen, tokens, rows = watch(scheduler), {}, iter(range(PROMPTS))
    made, schedule = {"embeds": 0, "steps": 0}, scheduler.schedule

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        made["steps"] += 1
        for name, items in output.scheduled_encoder_inputs.items():
            made["embeds"] += sum(scheduler.requests[name].get_num_encoder_embeds(i) for i in items)
        return output

    scheduler.schedule = scheduled
    for step in range(10_000):
        row = next(rows, None) if step % steps_between == 0 else None
        if row is not None:
            extra = {"niyama_class": CLASSES[row % 3]}
            params = SamplingParams(temperature=0.0, max_tokens=OUTPUT_TOKENS, ignore_eos=True, extra_args=extra)
            served_by.add_request(str(row), prompt(row), params)
        if not served_by.has_unfinished_requests():
            break
        for output in served_by.step():
            tokens[output.request_id] = list(output.outputs[0].token_ids)
    cache, planner = scheduler.encoder_cache_manager, getattr(scheduler, "planner", None)
    about = {"held_embeds": cache.cache_size - cache.num_freeable_slots, "planning": planner is not None}
    if planner is not None:
        about |= {"s_per_embed": planner.clock.encoder.each_s}
    served_by.engine_core.engine_core.shutdown()
    return {"tokens": tokens, **about, **made, **seen}


if __name__ == "__main__":
    alone = serve(engine(str(FOLDER), AMPLE_BLOCKS), 1)
    ours = serve(
        engine(
            str(FOLDER),
            AMPLE_BLOCKS,
            scheduler_cls="tests.helpers.stepped_clock.SteppedScheduler",
            additional_config={"niyama": CONFIG},
        ),
        2,
    )
    print(json.dumps({"alone": alone, "ours": ours}))
