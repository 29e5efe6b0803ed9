"""Serve prompts twice by vLLM's real CPU engine with a store of KV on disk, by its own scheduler and by Niyama's.

A process of its own, for the reasons of `cpu_engine_run`: `python -m tests.helpers.cpu_store_run FOLDER` prints a line
of JSON for each run.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

from tests.helpers.cpu_families_run import CONFIG, add, dummy_loader, engine  # first: it sets vLLM's environment

# isort: split
from tests.helpers import disk_store
from tests.helpers.disk_store import DiskStore
from tests.helpers.tiny_models import FAMILIES, random_weight, write_model

LENGTHS = (600, 431, 97, 33, 320, 640, 20)
OURS = {"scheduler_cls": "tests.helpers.stepped_clock.SteppedScheduler", "additional_config": {"niyama": CONFIG}}


def serve_twice(model_dir: Path, **more: Any) -> dict[str, Any]:
    """All tokens by round and request, the prompt tokens computed in each round, and what is left over."""
    served_by = engine(model_dir, **more)
    scheduler = served_by.engine_core.engine_core.scheduler
    found: dict[str, Any] = {"tokens": [], "computed": [], "hits": []}
    schedule, computed = scheduler.schedule, []

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        computed.append(output.total_num_scheduled_tokens)
        return output

    scheduler.schedule = watched
    for begun in (0, 100):
        computed.clear()
        DiskStore.hits = 0
        for row, length in enumerate(LENGTHS):
            add(served_by, row, length, ("Q3", "Q1", "Q3", "Q2")[row % 4], f"{begun + row}")
        tokens = {}
        while served_by.has_unfinished_requests():
            for output in served_by.step():
                tokens[int(output.request_id) - begun] = list(output.outputs[0].token_ids)
        found["tokens"].append(tokens)
        found["computed"].append(sum(computed))
        found["hits"].append(DiskStore.hits)
    pool = scheduler.kv_cache_manager.block_pool
    found["planning"] = getattr(scheduler, "planner", None) is not None
    found["leaked_blocks"] = pool.num_gpu_blocks - 1 - pool.get_num_free_blocks()
    served_by.engine_core.engine_core.shutdown()
    return found


if __name__ == "__main__":
    dummy_loader.initialize_single_dummy_weight = random_weight
    folder = Path(sys.argv[1])
    model = write_model(folder / "model", FAMILIES["llama"])
    came = {"alone": serve_twice(model)}
    for kind, beforehand in (("within", False), ("beforehand", True)):
        for whose, scheduler in (("stock", {}), ("ours", OURS)):
            store = disk_store.config(folder / f"{whose}-{kind}", beforehand=beforehand)
            came[f"{whose}-{kind}"] = serve_twice(model, kv_transfer_config=store, **scheduler)
    print(json.dumps(came), flush=True)
