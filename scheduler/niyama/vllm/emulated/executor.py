"""A GPU's timing without a GPU: vLLM's engine, scheduler and KV cache run as they are, only the model's steps do not.

    vllm serve DIR --distributed-executor-backend niyama.vllm.EmulatedExecutor \
        --additional-config '{"emulated": {"latency": "a100-llama3-8b-roofline"}}'

No weights are loaded and no tensor is computed. A step begins when the device is free, lasts as long as the latency
model says, and its future waits for that end: asynchronous scheduling overlaps as it does on a GPU.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any, NamedTuple

from vllm.config import VllmConfig
from vllm.logger import init_logger
from vllm.platforms import current_platform
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import GrammarOutput, SchedulerOutput
from vllm.v1.executor.abstract import Executor
from vllm.v1.kv_cache_interface import KVCacheSpec
from vllm.v1.outputs import EMPTY_MODEL_RUNNER_OUTPUT, DraftTokenIds, ModelRunnerOutput

from niyama.latency import Batch, ModelCard
from niyama.vllm.emulated.device import Device
from niyama.vllm.emulated.device_time import RealClock, VirtualClock, virtual_clock
from niyama.vllm.emulated.emulation import KEY, Emulation, StepTimes, load_emulation
from niyama.vllm.emulated.kv_layers import full_attention, kv_specs
from niyama.vllm.emulated.made_up_tokens import plain_tokens, special_tokens

logger = init_logger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only
GPU_BLOCK_TOKENS = 16  # a GPU's default; the CPU platform would take 128


class DeviceStep(NamedTuple):
    """One step of the device; times in seconds on its clock."""

    start_s: float
    duration_s: float
    batch: Batch


class StepResult(Future):
    """A step's output, ready at `ready_s` on the clock: whoever asks does the waiting, no thread is needed."""

    def __init__(self, clock: RealClock | VirtualClock, ready_s: float, output: ModelRunnerOutput | None) -> None:
        super().__init__()
        self._clock, self._ready_s, self._output = clock, ready_s, output

    def result(self, timeout: float | None = None) -> ModelRunnerOutput | None:
        """The output, once its time has come; `timeout` is not needed, since the time is known."""
        self._clock.wait_until(self._ready_s)
        return self._output

    def done(self) -> bool:
        """Whether `result` would return at once."""
        return self._clock.now() >= self._ready_s


class EmulatedExecutor(Executor):
    """One emulated device, set up by `niyama.vllm.emulated.emulation.Emulation`.

    Raises ValueError at start for settings that make no sense and for what it does not emulate. Whoever sets `observe`
    is called with every step and the scheduler's output that it came from. Log-probabilities are not made up: a request
    for them fails, alone.
    """

    supported_tasks = ("generate",)

    def _init_executor(self) -> None:
        settings = load_emulation(self.vllm_config.additional_config, os.environ)
        card = settings.card()
        _refuse_what_is_not_emulated(self.vllm_config)
        _undo_the_cpu_platform(self.vllm_config)
        special = special_tokens(self.model_config)
        self.device = Device(plain_tokens(self.model_config, special), special, settings.right_drafts)
        self._clock = virtual_clock() if settings.time == "virtual" else RealClock()
        self._step_times = StepTimes(card.build(), settings.noise, settings.seed)
        self._busy_until_s = 0.0
        self._computed: tuple[float, dict[str, list[int]], SchedulerOutput] | None = None
        self._drafts: DraftTokenIds | None = None
        self._kv_tokens, self._kv_layers = card.kv_tokens, settings.kv_layers
        self.observe: Callable[[DeviceStep, SchedulerOutput], None] | None = None
        _announce(settings, card, self.scheduler_config.async_scheduling)

    @classmethod
    def supports_async_scheduling(cls) -> bool:
        """Yes: futures are lazy."""
        return True

    def get_kv_cache_specs(self) -> list[dict[str, KVCacheSpec]]:
        """Those of the emulation's settings."""
        self._block_bytes = full_attention(self.vllm_config).page_size_bytes
        return [kv_specs(self.vllm_config, self._kv_layers)]

    def determine_available_memory(self) -> list[int]:
        """Bytes for the card's KV tokens in whole blocks, and for the one block that vLLM keeps for itself."""
        return [(self._kv_tokens // self.cache_config.block_size + 1) * self._block_bytes]

    def get_supported_kv_cache_layouts(self) -> list[list[str]]:
        """Any would do: nothing is stored."""
        return [["LBNHC"]]

    def initialize_from_config(self, kv_cache_configs: list[Any]) -> None:
        """Nothing to allocate."""

    def compile_or_warm_up_model(self) -> None:
        """Nothing to compile."""

    def collective_rpc(
        self,
        method: str | Callable,
        timeout: float | None = None,
        args: tuple = (),
        kwargs: dict | None = None,
        non_block: bool = False,
        **_: Any,
    ) -> list[None] | Future:
        """What a worker would be asked to do has no effect here: [None], or a future of it."""
        logger.debug("emulated: %s has no effect", method)
        if not non_block:
            return [None]
        done: Future = Future()
        done.set_result([None])
        return done

    def execute_model(
        self, scheduler_output: SchedulerOutput, non_block: bool = False
    ) -> ModelRunnerOutput | Future | None:
        """Put the step on the device. None, or its future: the tokens come from `sample_tokens`.

        A step without tokens takes no time and is over with an empty output.
        """
        batch, tokens = self.device.read(scheduler_output)
        if not tokens:
            return self._at(self._clock.now(), EMPTY_MODEL_RUNNER_OUTPUT, non_block)
        start_s = max(self._clock.now(), self._busy_until_s)
        duration_s = self._step_times.seconds(batch)
        self._busy_until_s = start_s + duration_s
        self._computed = self._busy_until_s, tokens, scheduler_output
        if self.observe is not None:
            self.observe(DeviceStep(start_s, duration_s, batch), scheduler_output)
        return self._at(start_s, None, non_block) if non_block else None

    def sample_tokens(
        self, grammar_output: GrammarOutput | None, non_block: bool = False
    ) -> ModelRunnerOutput | Future:
        """The tokens of the step executed last, ready when its time is over."""
        if self._computed is None:
            raise RuntimeError("emulated: sample_tokens without a step before it")
        (ready_s, tokens, step), self._computed = self._computed, None
        if grammar_output is not None:
            self.device.constrain(tokens, grammar_output, step.scheduled_spec_decode_tokens)
        if self.vllm_config.speculative_config is not None:  # which tokens does not matter
            ids = [request_id for request_id, new in tokens.items() if new]
            self._drafts = DraftTokenIds(ids, [[0] * step.num_spec_tokens_to_schedule for _ in ids])
        indices = {request_id: i for i, request_id in enumerate(tokens)}
        output = ModelRunnerOutput(list(tokens), indices, sampled_token_ids=list(tokens.values()))
        return self._at(ready_s, output, non_block)

    def _at(self, ready_s: float, output: ModelRunnerOutput | None, non_block: bool) -> Any:
        result = StepResult(self._clock, ready_s, output)
        return result if non_block else result.result()

    def take_draft_token_ids(self) -> DraftTokenIds | None:
        """What was drafted for the step to come, once; None without speculative decoding."""
        drafts, self._drafts = self._drafts, None
        return drafts

    def check_health(self) -> None:
        """Always well."""

    def shutdown(self) -> None:
        """Nothing to stop."""


def _undo_the_cpu_platform(config: VllmConfig) -> None:
    """Where vLLM's CPU build hosts the emulation, schedule and page as on a GPU.

    That platform turns asynchronous scheduling off and makes blocks large. A scheduler class that is not an
    asynchronous one stays synchronous.
    """
    if not current_platform.is_cpu():
        return
    config.scheduler_config.async_scheduling = True
    config.scheduler_config.disable_hybrid_kv_cache_manager = False
    scheduler = config.scheduler_config.get_scheduler_cls()
    config.scheduler_config.async_scheduling = issubclass(scheduler, AsyncScheduler)
    if not config.cache_config.user_specified_block_size:
        config.cache_config.block_size = GPU_BLOCK_TOKENS


def _refuse_what_is_not_emulated(config: VllmConfig) -> None:
    """ValueError for features whose time or tokens a latency model of one decoder on one device cannot give."""
    model, parallel = config.model_config, config.parallel_config
    for present, what, instead in (
        (model.runner_type != "generate", f"runner {model.runner_type!r}", "serve a generating model"),
        (model.is_multimodal_model, "a multimodal model", "use a text model's config.json"),
        (model.is_hybrid or model.is_attention_free, "a model without full attention", "use a plain decoder"),
        (config.lora_config is not None, "LoRA", "leave --enable-lora out"),
        (config.kv_transfer_config is not None, "KV transfer", "leave --kv-transfer-config out"),
        (config.ec_transfer_config is not None, "encoder cache transfer", "leave --ec-transfer-config out"),
        (parallel.world_size > 1, f"{parallel.world_size} devices", "use a latency model of them all as one"),
    ):
        if present:
            raise ValueError(f"{KEY}: {what} is not emulated; {instead}")


def _announce(settings: Emulation, card: ModelCard, asynchronous: bool) -> None:
    logger.warning(
        "Timing is EMULATED: no model runs and the tokens are made up. Latency model %s: %s on %s; KV %d tokens; "
        "noise %g, seed %d; %s time; %s scheduling. Source: %s. Error: %s.",
        card.name,
        card.model,
        card.hardware,
        card.kv_tokens,
        settings.noise,
        settings.seed,
        settings.time,
        "asynchronous" if asynchronous else "synchronous",
        card.source,
        card.error,
    )
