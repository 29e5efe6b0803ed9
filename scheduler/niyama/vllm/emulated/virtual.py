"""Runs in virtual time: vLLM's own engine core, scheduler and KV cache in this process, and nobody waits.

The device is the emulated executor, and the clock moves only when the engine waits for it, so a run is a function of
its arguments. The engine's own work on the host takes no time: on a GPU, asynchronous scheduling hides it.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.engine.arg_utils import EngineArgs
from vllm.utils.import_utils import resolve_obj_by_qualname
from vllm.v1.engine import EngineCoreOutput, EngineCoreRequest
from vllm.v1.engine.core import EngineCore

from niyama.latency import ModelCard
from niyama.qos import QoSClass
from niyama.sim import Requests, Run
from niyama.state import KV_BLOCK_TOKENS
from niyama.vllm.emulated.device_time import VirtualClock, virtual_time
from niyama.vllm.emulated.emulation import KEY
from niyama.vllm.emulated.executor import EmulatedExecutor
from niyama.vllm.emulated.raw_times import RawTimes
from niyama.vllm.qos import CLASS, IMPORTANCE

ASYNC_STOCK = "vllm.v1.core.sched.async_scheduler.AsyncScheduler"
SYNC_STOCK = "vllm.v1.core.sched.scheduler.Scheduler"
PROMPT_IDS = 256  # prompts are made of the first ids, which every vocabulary has
IDLE_STEPS = 3  # more than the engine keeps in flight: after so many without work, only an arrival brings some


@dataclass(frozen=True)
class EngineSettings:
    """The engine of a virtual run; the fields mean what vLLM's arguments of these names mean.

    model_dir: a folder with a config.json. scheduler_cls: an asynchronous one overlaps, as always. niyama: the
    configuration of Niyama's scheduler; its classes are those of the requests unless it says otherwise. kv_layers: as
    of `Emulation`, empty for its default. block_tokens: block_size. more: further arguments of vLLM's.
    """

    model_dir: Path
    scheduler_cls: str = ASYNC_STOCK
    niyama: Mapping[str, Any] = field(default_factory=dict)
    policy: str = "fcfs"
    max_num_batched_tokens: int = 512
    max_num_seqs: int = 256
    enable_prefix_caching: bool = False
    kv_layers: Sequence[Mapping[str, int]] = ()
    block_tokens: int = KV_BLOCK_TOKENS
    more: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Traffic:
    """What the engine is sent beside arrival and lengths, a value per request.

    extra_args: `vllm_xargs` (default: class and importance, for Niyama). priority: for policy "priority", lower first
    (default 0). prompt: row -> token ids (default: random ids, every prompt different). ValueError for a wrong length.
    """

    requests: Requests
    extra_args: Sequence[Mapping[str, Any]] | None = None
    priority: Sequence[int] | None = None
    prompt: Callable[[int], list[int]] | None = None

    def __post_init__(self) -> None:
        n = len(self.requests)
        for name in ("extra_args", "priority"):
            column = getattr(self, name)
            if column is not None and len(column) != n:
                raise ValueError(f"traffic: {name} has {len(column)} rows and there are {n} requests; give one each")

    def request(self, row: int) -> EngineCoreRequest:
        """The engine's request, with the row's number as its id."""
        params = SamplingParams(
            temperature=0.0,
            max_tokens=int(self.requests.output_tokens[row]),
            ignore_eos=True,
            detokenize=False,
            extra_args=dict(self.extra_args[row]) if self.extra_args is not None else self._promise(row),
        )
        return EngineCoreRequest(
            request_id=str(row),
            prompt_token_ids=self.prompt(row) if self.prompt is not None else self._random_prompt(row),
            mm_features=None,
            sampling_params=params,
            pooling_params=None,
            arrival_time=float(self.requests.arrival_s[row]),
            lora_request=None,
            cache_salt=None,
            data_parallel_rank=None,
            priority=int(self.priority[row]) if self.priority is not None else 0,
        )

    def _promise(self, row: int) -> dict[str, str]:
        name = self.requests.classes[self.requests.class_index[row]].name
        return {CLASS: name, IMPORTANCE: "high" if self.requests.important[row] else "low"}

    def _random_prompt(self, row: int) -> list[int]:
        return np.random.default_rng(row).integers(0, PROMPT_IDS, int(self.requests.prompt_tokens[row])).tolist()


def run_virtual(
    traffic: Traffic,
    card: ModelCard,
    engine: EngineSettings,
    *,
    noise: float = 0.0,
    seed: int = 0,
    log: bool = False,
    watch: Callable[[EngineCoreOutput], None] | None = None,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """Serve the traffic, open loop, by an engine on a device with the timing of `card`; raw times as of a simulation.

    noise, seed: of step times. log: as of `simulate`, but predicted_s and min_slack_s are nan. watch: sees every
    output. progress: called with the number of requests finished. `Run.relegations` is 1 for requests that end
    relegated, and un_relegations is 0: the engine tells no more. Raises ValueError for requests that do not fit, and
    RuntimeError for a scheduler that stalls.
    """
    requests = traffic.requests
    requests.check(card.kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS)
    longest = int((requests.prompt_tokens.astype(np.int64) + requests.output_tokens).max(initial=1))
    with virtual_core(card, engine, requests.classes, longest, noise=noise, seed=seed) as (core, clock):
        raw = RawTimes(requests, core, log)
        core.model_executor.observe = raw.scheduled
        for ended, outputs in _serve(core, clock, traffic, raw):
            for output in outputs if watch is not None else ():
                watch(output)
            if progress is not None and ended:
                progress(raw.finished)
        return raw.run()


@contextmanager
def virtual_core(
    card: ModelCard,
    engine: EngineSettings,
    classes: Sequence[QoSClass],
    max_model_len: int,
    *,
    noise: float = 0.0,
    seed: int = 0,
) -> Iterator[tuple[EngineCore, VirtualClock]]:
    """vLLM's engine core with the emulated executor, and the virtual clock that it runs by, at 0."""
    served = [{k: v for k, v in asdict(c).items() if v is not None} for c in classes]
    niyama = {
        "classes": served,
        "default_class": classes[0].name,
        "service_tiers": {},
        "delivery_s": 0.0,
        **engine.niyama,
    }
    resolve_obj_by_qualname(engine.scheduler_cls)  # imported before the clock is put into its module
    with _environment_kept(), virtual_time() as time, tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "card.json"
        path.write_text(json.dumps(asdict(card)))
        emulated = {"latency": str(path), "noise": noise, "seed": seed, "time": "virtual"}
        if engine.kv_layers:
            emulated["kv_layers"] = list(engine.kv_layers)
        arguments = EngineArgs(
            model=str(engine.model_dir),
            skip_tokenizer_init=True,
            load_format="dummy",
            block_size=engine.block_tokens,
            max_model_len=max_model_len,
            max_num_batched_tokens=engine.max_num_batched_tokens,
            max_num_seqs=engine.max_num_seqs,
            enable_prefix_caching=engine.enable_prefix_caching,
            scheduling_policy=engine.policy,
            scheduler_cls=engine.scheduler_cls,
            distributed_executor_backend=EmulatedExecutor,
            **engine.more,
            additional_config={KEY: emulated, "niyama": niyama},
        )
        config = arguments.create_engine_config()
        with _no_collection():
            core = EngineCore(config, EmulatedExecutor, log_stats=False)
        try:
            time.cover()
            yield core, time.clock
        finally:
            with _no_collection():
                core.shutdown()


@contextmanager
def _no_collection() -> Iterator[None]:
    """vLLM looks for garbage in all that was ever imported, which is most of what start and end of an engine take."""
    collect, gc.collect = gc.collect, lambda generation=2: 0
    try:
        yield
    finally:
        gc.collect = collect


@contextmanager
def _environment_kept() -> Iterator[None]:
    """Undo what vLLM's platform code puts into this process's environment, for whoever starts processes later."""
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def _serve(
    core: EngineCore, clock: VirtualClock, traffic: Traffic, raw: RawTimes
) -> Iterator[tuple[int, Sequence[EngineCoreOutput]]]:
    """What the engine's process does: take in what has arrived, make a step, hand out its tokens; wait when idle.

    Yields the number of requests that ended and the outputs, step by step.
    """
    arrival_s, arrived, idle = traffic.requests.arrival_s.tolist(), 0, 0
    while raw.finished < len(arrival_s):
        while arrived < len(arrival_s) and arrival_s[arrived] <= clock.now_s:
            request, wave = core.preprocess_add_request(traffic.request(arrived))
            raw.arrived(arrived, request)
            core.add_request(request, wave)
            arrived += 1
        if idle > IDLE_STEPS or not (core.scheduler.has_requests() or core.batch_queue):
            if arrived == len(arrival_s):
                waiting = arrived - raw.finished
                raise RuntimeError(f"the scheduler plans nothing at {clock.now_s} s and {waiting} requests wait")
            clock.wait_until(arrival_s[arrived])
            idle = 0
            continue
        began_s, before = clock.now_s, raw.finished
        results, executed = core.step_fn()
        core.post_step(executed)
        idle = 0 if executed or clock.now_s > began_s else idle + 1
        outputs = results[0].outputs if results else ()
        for output in outputs:
            raw.output(output, clock.now_s)
        yield raw.finished - before, outputs
