"""Measure a few steps of vLLM's real CPU engine with a tiny model; print them as JSON.

A process of its own, because vLLM reads its environment when it is imported:
`python -m tests.helpers.cpu_step_times MODEL_DIR`
"""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict
from pathlib import Path

from artifact.latency.engine_profile import engine_arguments, engine_environment
from niyama.vllm.profiling.step_grid import Grid

os.environ.update(engine_environment("cpu"), VLLM_LOGGING_LEVEL="ERROR")

from niyama.vllm.profiling.step_engine import describe, open_core
from niyama.vllm.profiling.step_times import measure

GRID = Grid(
    decodes=(0, 1, 4),
    context_tokens=(64,),
    prefill_tokens=(0, 1, 100),
    prefix_tokens=(150,),
    chunk_tokens=(40,),
    repeats=2,
)

if __name__ == "__main__":
    with open_core(engine_arguments("cpu", "tiny", (GRID,), "", Path(sys.argv[1]))) as core:
        table = measure(core, GRID)
        idle = not core.scheduler.has_unfinished_requests()
        print(json.dumps({**asdict(table), "idle": idle, "engine": describe(core)}))
