"""How long an engine's steps take: vLLM's own core in this process, one shape of batch after another.

With vLLM's synchronous scheduler and no prefix caching, a step is whole before the next begins, and holds exactly the
requests that were put there. What is recorded is what the scheduler did, not what it was asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from time import perf_counter  # by name: the virtual clock replaces the module
from typing import Any, NamedTuple

import numpy as np
from vllm import SamplingParams
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.engine.core import EngineCore

from niyama.latency import Batch
from niyama.vllm.emulated.device import Device
from niyama.vllm.emulated.virtual import PROMPT_IDS
from niyama.vllm.profiling.step_engine import free_blocks
from niyama.vllm.profiling.step_grid import Chunk, Grid

WARM_UP_STEPS = 3  # of decodes, after a batch was built: the first ones copy its block tables
ORDER_SEED = 0


class Step(NamedTuple):
    """One measured step. seconds: from before its scheduling until its tokens are known; schedule_s: the first part."""

    batch: Batch
    seconds: float
    schedule_s: float


@dataclass(frozen=True)
class StepTable:
    """rows: a mapping per measured step (see `measure`). skipped: shapes of the grid that did not fit into the engine's
    KV or lengths. strayed: steps that came out in another shape than asked for, and are not among the rows."""

    rows: tuple[Mapping[str, Any], ...]
    skipped: int
    strayed: int


def measure(
    core: EngineCore,
    grid: Grid,
    clock: Callable[[], float] = perf_counter,
    progress: Callable[[int, int], None] | None = None,
) -> StepTable:
    """Measure every shape of the grid that fits, `grid.repeats` times. The engine must be idle, and is again then.

    A row: decodes, decode_context_tokens (summed over them), prefill_tokens, prefix_tokens (behind which the chunk is),
    prefill_work (as in `niyama.latency.Batch`), seconds, schedule_s, repeat, context_tokens (of the cell: what each
    decode had at first). One pass over a cell's chunks is one repeat. A cell's decodes stay for all of them: to prefill
    them anew would take longer than to measure. Each pass goes in another order, so that the growth of contexts on the
    way is no effect of the chunk. progress: cells done, and of how many.
    """
    rig, rows, order = _Rig(core, clock), [], np.random.default_rng(ORDER_SEED)
    try:
        asked = {cell: [chunk for chunk in grid.chunks if cell[0] or chunk.tokens] for cell in grid.cells}
        fitting = {cell: [c for c in chunks if rig.fits(*cell, c, grid)] for cell, chunks in asked.items()}
        for chunk in fitting.get((0, 0), ()):
            rig.probe(0, chunk)  # not recorded: the first step of a size compiles and tunes
        cells = [cell for cell, chunks in fitting.items() if chunks]
        for done, cell in enumerate(cells):
            chunks = fitting[cell]
            passes = [[chunks[i] for i in order.permutation(len(chunks))] for _ in range(grid.repeats)]
            rows += [_row(step, repeat, cell[1]) for repeat, step in rig.run_cell(*cell, passes)]
            if progress is not None:
                progress(done + 1, len(cells))
    finally:
        rig.leave()
    skipped = sum(map(len, asked.values())) - sum(map(len, fitting.values()))
    return StepTable(tuple(rows), skipped, rig.strayed)


def _row(step: Step, repeat: int, context_tokens: int) -> dict[str, Any]:
    batch = step.batch
    return {
        "decodes": batch.decodes,
        "decode_context_tokens": batch.decode_context,
        "prefill_tokens": batch.prefill_tokens,
        "prefix_tokens": batch.top_prefix,
        "prefill_work": batch.prefill_work,
        "seconds": step.seconds,
        "schedule_s": step.schedule_s,
        "repeat": repeat,
        "context_tokens": context_tokens,
    }


class _Rig:
    """An engine core under measurement. Mutable: it counts requests and strays, and sees each step's scheduling."""

    def __init__(self, core: EngineCore, clock: Callable[[], float]) -> None:
        if core.batch_queue is not None:
            raise ValueError("step times: the engine keeps several steps in flight; give it a synchronous scheduler")
        self._core, self._clock, self._scheduler = core, clock, core.scheduler
        self._shapes = Device((0,), frozenset())
        self._scheduled: SchedulerOutput | None = None
        self._schedule_s = 0.0
        self._budget = self._scheduler.max_num_scheduled_tokens
        self._requests = self.strayed = 0
        self._prompt = np.random.default_rng(ORDER_SEED).integers(0, PROMPT_IDS, self._longest).tolist()
        self._schedule = self._scheduler.schedule
        self._scheduler.schedule = self._watched

    @property
    def _longest(self) -> int:
        return self._core.vllm_config.model_config.max_model_len

    def leave(self) -> None:
        """Give the scheduler its method and its budget back."""
        self._scheduler.max_num_scheduled_tokens = self._budget
        del self._scheduler.schedule

    def _watched(self, *args: Any, **kwargs: Any) -> SchedulerOutput:
        began_s = self._clock()
        self._scheduled = self._schedule(*args, **kwargs)
        self._schedule_s = self._clock() - began_s
        return self._scheduled

    def fits(self, decodes: int, context: int, chunk: Chunk, grid: Grid) -> bool:
        """Whether the chunk beside these decodes stays within KV, lengths and numbers through all passes."""
        room, block = self._budget - decodes, self._core.vllm_config.cache_config.block_size
        if room < 1 or chunk.tokens > room or decodes >= self._scheduler.max_num_running_reqs:
            return False
        pass_steps = sum(1 + -(-c.prefix_tokens // room) for c in grid.chunks)
        grown = context + -(-decodes * context // room) + WARM_UP_STEPS + grid.repeats * pass_steps + 1
        prompt = sum(chunk)
        blocks = decodes * -(-grown // block) + -(-(prompt + 1) // block)
        return blocks <= free_blocks(self._core) and max(grown, prompt + 1) < self._longest

    def run_cell(self, decodes: int, context: int, passes: list[list[Chunk]]) -> Iterator[tuple[int, Step]]:
        """Bring the decodes to their context, then measure each chunk beside them, pass by pass: (number of the pass,
        step). Those in the wrong shape are counted."""
        ids = [self._add(context, self._longest - context) for _ in range(decodes)]
        if ids:
            self._start(decodes, context)
        for repeat, chunks in enumerate(passes):
            for chunk in chunks:
                step = self.probe(decodes, chunk)
                if step is not None:
                    yield repeat, step
        self._core.abort_requests(ids)

    def _start(self, decodes: int, context: int) -> None:
        """Step until all decode, and a few times more. RuntimeError when that takes more steps than their prompts."""
        for _ in range(decodes * context):
            if self._step().batch.decodes == decodes:
                break
        else:
            raise RuntimeError(f"step times: {decodes} requests do not come to decode side by side")
        for _ in range(WARM_UP_STEPS):
            self._step()

    def probe(self, decodes: int, chunk: Chunk) -> Step | None:
        """One step with the chunk beside the running decodes; None when it came out otherwise."""
        probe = [self._add(sum(chunk), 1)] if chunk.tokens else []
        done, fine = 0, True
        while fine and done < chunk.prefix_tokens:
            part = min(chunk.prefix_tokens - done, self._budget - decodes)
            self._scheduler.max_num_scheduled_tokens = decodes + part
            fine = self._step().batch.prefill_tokens == part
            done += part
        self._scheduler.max_num_scheduled_tokens = self._budget
        step = self._step() if fine else None
        prefix = chunk.prefix_tokens if chunk.tokens else 0
        if step is not None and (step.batch.decodes, step.batch.top_prefix, step.batch.prefill_tokens) == (
            decodes, prefix, chunk.tokens,
        ):  # fmt: skip
            return step
        self.strayed += 1
        self._core.abort_requests(probe)
        return None

    def _step(self) -> Step:
        self._scheduled = None
        began_s = self._clock()
        _, executed = self._core.step_fn()
        seconds = self._clock() - began_s
        self._core.post_step(executed)
        if self._scheduled is None or not executed:
            raise RuntimeError("step times: the engine has requests and makes no step")
        batch, _ = self._shapes.read(self._scheduled)
        return Step(batch, seconds, self._schedule_s)

    def _add(self, prompt_tokens: int, max_tokens: int) -> str:
        """A new request in the engine; its id."""
        self._requests += 1
        params = SamplingParams(temperature=0.0, max_tokens=max_tokens, ignore_eos=True, detokenize=False)
        request = EngineCoreRequest(
            request_id=str(self._requests),
            prompt_token_ids=self._prompt[:prompt_tokens],
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=float(self._requests),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
        )
        self._core.add_request(*self._core.preprocess_add_request(request))
        return request.request_id
