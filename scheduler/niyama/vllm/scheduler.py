"""The scheduler classes that vLLM is given: the kernel plans each step, vLLM carries it out and reports back.

    vllm serve MODEL --scheduler-cls niyama.vllm.NiyamaAsyncScheduler

An error of ours never stops the engine: it is logged and counted, and vLLM's own order takes over.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

from vllm.logger import init_logger
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request
from vllm.version import __version__ as vllm_version

from niyama import __version__
from niyama.vllm import engine
from niyama.vllm.config import config_path
from niyama.vllm.planner import Planner
from niyama.vllm.reloading import ENGINE_LOOKS, LiveConfig

logger = init_logger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only


class _Niyama:
    """Mixed in before one of vLLM's schedulers. `planner` is None once vLLM is on its own."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        planner = Planner.start(self, os.environ, (time.monotonic(), time.time()))
        self.planner: Planner | None = planner
        self.imposed = engine.Imposed(self)
        self._in_schedule = False
        self._guarded(_describe)
        file = config_path(self.vllm_config.additional_config, os.environ)
        self.live = LiveConfig(planner.config, file, planner.metrics.configured, ENGINE_LOOKS).watch()

    def add_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """vLLM's, then ours: what the request is promised, and its row in the kernel's table."""
        known = request.request_id in self.requests  # a further piece of a streaming input
        super().add_request(request, *args, **kwargs)
        if not known:
            self._guarded(lambda planner: self._arrived(planner, request))

    def _arrived(self, planner: Planner, request: Request) -> None:
        planner.config = self.live.of(getattr(request.sampling_params, "extra_args", None))
        planner.arrived(self, request, time.monotonic(), time.time())

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        """One step: plan, let vLLM carry it out, report what it granted."""
        throttled = bool(kwargs.get("throttle_prefills", args[0] if args else False))
        held = self._guarded(lambda planner: engine.prefills_held(self, throttled))
        orders = self._guarded(lambda planner: planner.plan(self, time.monotonic(), held=held))
        if not self._guarded(lambda planner: self.imposed.impose(orders)):
            return super().schedule(*args, **kwargs)
        self._in_schedule = True
        try:
            output = super().schedule(*args, **kwargs)
        finally:
            self._in_schedule = False
            if self.planner is None:  # an error of ours on the way
                self.imposed.lift()
            self._guarded(lambda planner: self.imposed.withdraw())
        self._guarded(lambda planner: planner.granted(self, orders, output))
        if not held:
            self._guarded(lambda planner: engine.note_saturation(self, planner.not_offered()))
        return output

    def update_from_output(self, scheduler_output: Any, *args: Any, **kwargs: Any) -> Any:
        """vLLM's, with the step's end noted before and the served class told in the last output after."""
        made = args[0] if args else kwargs["model_runner_output"]
        self._guarded(lambda planner: planner.step_ended(scheduler_output, made, time.monotonic()))
        outputs = super().update_from_output(scheduler_output, *args, **kwargs)
        self._guarded(lambda planner: planner.tell(outputs))
        return outputs

    def _preempt_request(self, request: Request, *args: Any, **kwargs: Any) -> None:
        """vLLM's; every request that loses its KV, whoever wants it so and when, passes here."""
        super()._preempt_request(request, *args, **kwargs)
        lost = getattr(request, "drop_stale_output", not self._in_schedule)  # 0.26 says it nowhere
        self._guarded(lambda planner: planner.preempted(request, output_is_lost=lost))

    def _handle_invalid_blocks(self, *args: Any, **kwargs: Any) -> set[str]:
        """vLLM's; KV that a step counted on has not come."""
        affected = super()._handle_invalid_blocks(*args, **kwargs)
        self._guarded(lambda planner: planner.not_loaded(affected))
        return affected

    def _free_request(self, request: Request, *args: Any, **kwargs: Any) -> Any:
        """vLLM's; every request that ends, for whatever reason, passes here once."""
        self._guarded(lambda planner: planner.gone(request, time.monotonic()))
        freed = super()._free_request(request, *args, **kwargs)
        self._guarded(lambda planner: planner.connector.note_kept(self, request))
        return freed

    def shutdown(self) -> None:
        """vLLM's; the decision log is closed."""
        self._guarded(lambda planner: planner.close())
        super().shutdown()

    def _guarded(self, act: Callable[[Planner], Any]) -> Any:
        """Let the planner act; None when it is, or has just been, switched off: after an error vLLM goes on alone."""
        planner = self.planner
        if planner is None:
            return None
        try:
            result = act(planner)
            return result if self.planner is planner else None
        except Exception as error:  # whatever it is, requests must still be served
            if self.planner is None:  # an act within this one has failed before it
                return None
            self.planner = None
            logger.exception("Niyama: switched off by an error of its own; vLLM schedules on its own from now on")
            planner.mirror.give_back_priorities()
            if not self._in_schedule:  # else vLLM is at work on what it was shown
                self.imposed.lift()
            planner.failed(error)
            return None


class NiyamaScheduler(_Niyama, Scheduler):
    """For engines that schedule a step after the one before has ended (--no-async-scheduling)."""


class NiyamaAsyncScheduler(_Niyama, AsyncScheduler):
    """For engines that schedule a step while the one before is in flight: vLLM's default on a GPU."""


def _describe(planner: Planner) -> None:
    """Show in the metrics what is promised, and what serves."""
    ours = planner.mirror.scheduler
    names = {"policy": ours.policy.name, "latency_card": ours.card.name}
    planner.metrics.describe(planner.config.classes, version=__version__, vllm_version=vllm_version, **names)
