"""Which waiting requests vLLM would not admit, whatever room there is: they must not block those behind them."""

from __future__ import annotations

from collections.abc import Iterable

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus


def must_wait(request: Request) -> bool:
    """Whether vLLM would pass the waiting request over now, whatever room there is, and go on with the next."""
    if request.status.name == "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR":
        output = request.structured_output_request
        return not output or output.grammar is None
    if request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED):
        # Tokens of steps in flight are still to be delivered.
        return bool(getattr(request, "num_stale_output_tokens", 0)) and not request.drop_stale_output
    return request.status != RequestStatus.RUNNING


class Adapters:
    """Which LoRA adapters may be asked of vLLM: at most `max_loras` different ones run at a time."""

    def __init__(self, scheduler: Scheduler) -> None:
        config = scheduler.lora_config
        self.most = config.max_loras if config else 0
        self._in_use: set[int] = set()

    def start_from(self, requests: Iterable[Request]) -> None:
        """These are the requests whose adapters are taken."""
        self._in_use = {self._of(request) for request in requests} - {0}

    def take(self, request: Request) -> bool:
        """Whether the request's adapter is, or now becomes, one of those that may run."""
        adapter = self._of(request)
        if not self.most or not adapter or adapter in self._in_use:
            return True
        if len(self._in_use) >= self.most:
            return False
        self._in_use.add(adapter)
        return True

    @staticmethod
    def _of(request: Request) -> int:
        return request.lora_request.lora_int_id if request.lora_request else 0
