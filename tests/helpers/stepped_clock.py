"""Niyama's scheduler in a time of its own: each step takes `STEP_S`, so it decides alike on a slow machine."""

from __future__ import annotations

from typing import Any

import niyama.vllm.scheduler

STEP_S = 0.02
WALL_S = 1e9


class Clock:
    """What stands for the module `time`."""

    now_s = 0.0

    def monotonic(self) -> float:
        return self.now_s

    def time(self) -> float:
        return WALL_S + self.now_s


CLOCK = niyama.vllm.scheduler.time = Clock()


class SteppedScheduler(niyama.vllm.scheduler.NiyamaScheduler):
    """vLLM imports it by name when an engine starts."""

    def add_request(self, request: Any) -> None:
        request.arrival_time = CLOCK.time()
        super().add_request(request)

    def schedule(self, *args: Any, **kwargs: Any) -> Any:
        CLOCK.now_s += STEP_S
        return super().schedule(*args, **kwargs)
