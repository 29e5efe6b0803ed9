"""What planning costs the engine: the time of one step's scheduling with Niyama's scheduler and with vLLM's own.

The engine core is the real one, on the emulated device in virtual time, so that nothing but the scheduler's own Python
takes time. Used by `python -m artifact bench`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from time import perf_counter_ns  # by name: the virtual clock replaces the module
from typing import Any

import numpy as np

from niyama import PAPER_CLASSES, load_card
from niyama.sim import Requests
from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, run_virtual, virtual_core

OURS = "niyama.vllm.NiyamaAsyncScheduler"
DECODES = 64
PROMPT_TOKENS = 200
WARM_UP_STEPS = 60
FAR_S = 604_800  # the longest that a class may have
#: Deadlines that no request comes near: what Niyama then does is to serve all, first come, in the largest chunks.
ENDLESS = {
    "default_class": "Q1",
    "service_tiers": {},
    "classes": [
        {"name": "Q1", "ttft_s": FAR_S, "tbt_s": FAR_S},
        {"name": "Q2", "ttlt_s": FAR_S},
        {"name": "Q3", "ttlt_s": FAR_S},
    ],
}


def scheduling_us(model_dir: Path, scheduler_cls: str, waiting: int, steps: int) -> dict[str, float]:
    """Median microseconds of `schedule` and of `update_from_output`, a step, beside DECODES decodes and a queue."""
    card, n = load_card("a100-llama3-8b-roofline"), DECODES + waiting
    outputs = 2 * WARM_UP_STEPS + 2 * steps
    engine = EngineSettings(model_dir, scheduler_cls, max_num_batched_tokens=4096, max_num_seqs=DECODES)
    traffic = Traffic(_same(n, outputs))
    with virtual_core(card, engine, PAPER_CLASSES, PROMPT_TOKENS + outputs) as (core, _clock):
        for row in range(DECODES):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        _steps(core, WARM_UP_STEPS)
        for row in range(DECODES, n):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        _steps(core, WARM_UP_STEPS // 4)  # the first look at a new queue is not the typical one
        schedule, update = _timed(core.scheduler, "schedule"), _timed(core.scheduler, "update_from_output")
        _steps(core, steps)
        running = len(core.scheduler.running)
        if running != DECODES:
            raise RuntimeError(f"{running} requests run, not {DECODES}: the measurement is not what it says")
        return {"schedule_us": float(np.median(schedule)), "update_us": float(np.median(update))}


def _same(n: int, outputs: int) -> Requests:
    """n equal requests at time 0."""
    ones = np.ones(n, np.int64)
    index = np.arange(n) % len(PAPER_CLASSES)
    return Requests(PAPER_CLASSES, index, np.zeros(n), PROMPT_TOKENS * ones, outputs * ones, ones > 0)


def _steps(core: Any, n: int) -> None:
    for _ in range(n):
        _, executed = core.step_fn()
        core.post_step(executed)


def _timed(scheduler: Any, name: str) -> list[float]:
    """Wrap a method of one object; the list fills with its microseconds."""
    method, found = getattr(scheduler, name), []

    def timed(*args: Any, **kwargs: Any) -> Any:
        start = perf_counter_ns()
        try:
            return method(*args, **kwargs)
        finally:
            found.append((perf_counter_ns() - start) / 1e3)

    setattr(scheduler, name, timed)
    return found


def overhead(model_dir: Path, waiting: Sequence[int], steps: int, repeats: int) -> Iterator[dict[str, float]]:
    """One row per queue length: both schedulers' medians over `repeats` turns, the ratio turn by turn."""
    for n in waiting:
        pairs = [
            (scheduling_us(model_dir, ASYNC_STOCK, n, steps), scheduling_us(model_dir, OURS, n, steps))
            for _ in range(repeats)
        ]
        stock, ours = ([p[i] for p in pairs] for i in (0, 1))
        row: dict[str, float] = {"waiting": n, "running": DECODES}
        for name, rows in (("stock", stock), ("niyama", ours)):
            row |= {f"{name}_{part}": float(np.median([r[part] for r in rows])) for part in rows[0]}
        for part in ("schedule_us", "update_us"):
            row[f"added_{part}"] = float(np.median([b[part] - a[part] for a, b in pairs]))
        row["ratio"] = float(np.median([b["schedule_us"] / a["schedule_us"] for a, b in pairs]))
        row["step_ratio"] = float(np.median([sum(b.values()) / sum(a.values()) for a, b in pairs]))
        yield row


def throughput(model_dir: Path, requests: Requests, chunk_tokens: int) -> dict[str, float]:
    """Seconds that each scheduler needs for the requests when no deadline presses, in virtual time, and the ratio."""
    card = load_card("a100-llama3-8b-roofline")
    stock = EngineSettings(model_dir, ASYNC_STOCK, max_num_batched_tokens=chunk_tokens)
    policy = {"name": "niyama", "max_chunk_tokens": chunk_tokens}
    room = chunk_tokens + stock.max_num_seqs
    ours = EngineSettings(model_dir, OURS, {**ENDLESS, "policy": policy}, max_num_batched_tokens=room)
    end_s = {
        name: float(run_virtual(Traffic(requests), card, e).token_s.max())
        for name, e in (("stock", stock), ("niyama", ours))
    }
    return {"stock_s": end_s["stock"], "niyama_s": end_s["niyama"], "ratio": end_s["stock"] / end_s["niyama"]}
