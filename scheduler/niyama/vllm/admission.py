"""Which waiting requests vLLM would not admit, whatever room there is: they must not block those behind them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, MutableMapping
from typing import TYPE_CHECKING

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

if TYPE_CHECKING:
    from niyama.vllm.records import Live, Orders


def must_wait(request: Request) -> bool:
    """Whether vLLM would pass the waiting request over now, whatever room there is, and go on with the next."""
    if request.status.name == "WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR":
        output = request.structured_output_request
        return not output or output.grammar is None
    if request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED):
        # Tokens of steps in flight are still to be delivered.
        return bool(getattr(request, "num_stale_output_tokens", 0)) and not request.drop_stale_output
    return request.status != RequestStatus.RUNNING


def adapter_of(request: Request) -> int:
    """The number of the request's LoRA adapter, 0 for none."""
    return request.lora_request.lora_int_id if request.lora_request else 0


class Adapters:
    """Which LoRA adapters may be asked of vLLM: at most `max_loras` different ones run at a time."""

    def __init__(self, scheduler: Scheduler) -> None:
        config = scheduler.lora_config
        self.most = config.max_loras if config else 0
        self._in_use: set[int] = set()
        self.left_out: list[str] = []  # ids, of those that no plan knows, in the step that was last offered

    def start_from(self, requests: Iterable[Request]) -> None:
        """These are the requests whose adapters are taken."""
        self.start_with(map(adapter_of, requests))

    def start_with(self, adapters: Iterable[int]) -> None:
        """These are the adapters that are taken."""
        self._in_use = {*adapters} - {0}

    def have(self, request: Request) -> bool:
        """Whether the request's adapter needs no place of its own: it is taken already."""
        adapter = adapter_of(request)
        return not self.most or not adapter or adapter in self._in_use

    def take(self, request: Request) -> bool:
        """Whether the request's adapter is, or now becomes, one of those that may run."""
        if self.have(request):
            return True
        if len(self._in_use) >= self.most:
            return False
        self._in_use.add(adapter_of(request))
        return True

    def offered(self, orders: Orders) -> Orders:
        """Leave out whose adapter would be one too many beside those of the running requests.

        vLLM counts the adapters of the step alone, and a prompt that is passed over in it goes on in a later one.
        """
        if not self.most:
            return orders
        self.start_from(orders.running)
        waiting = [request for request in orders.waiting if self.take(request)]
        beside = [request for request in orders.beside if not must_wait(request) and self.take(request)]
        self.left_out = [r.request_id for r in orders.beside if r not in beside]
        return orders._replace(waiting=waiting, beside=beside)

    def worth_asking(self, blocked: Blocked) -> list[Live]:
        """Those of the blocked whose adapters may run, in order of arrival while there is a place for any adapter."""
        if not self.most or len(self._in_use) < self.most:
            return [*blocked.values()]
        return [live for adapter in (0, *self._in_use) for live in blocked.of(adapter)]


class AdapterUse(Counter[int]):
    """How many requests of the kernel's need each adapter, by its number."""

    def note(self, live: Live, needs: bool) -> None:
        """Whether the request needs its adapter from now on."""
        adapter = adapter_of(live.request)
        if adapter and needs != live.needs_adapter:
            live.needs_adapter = needs
            self[adapter] += 1 if needs else -1
            if not self[adapter]:
                del self[adapter]


class Blocked(MutableMapping[str, "Live"]):
    """Requests that vLLM would not admit, by id, in order of arrival. Found by adapter too: there may be thousands that
    wait for theirs, and nobody walks them in every step.
    """

    def __init__(self) -> None:
        self._lives: dict[str, Live] = {}
        self._by_adapter: dict[int, dict[str, Live]] = {}

    def of(self, adapter: int) -> Iterable[Live]:
        """Those of this adapter."""
        return self._by_adapter.get(adapter, {}).values()

    def __setitem__(self, request_id: str, live: Live) -> None:
        self._lives[request_id] = live
        self._by_adapter.setdefault(adapter_of(live.request), {})[request_id] = live

    def __delitem__(self, request_id: str) -> None:
        adapter = adapter_of(self._lives.pop(request_id).request)
        del self._by_adapter[adapter][request_id]
        if not self._by_adapter[adapter]:
            del self._by_adapter[adapter]

    def __getitem__(self, request_id: str) -> Live:
        return self._lives[request_id]

    def __iter__(self) -> Iterator[str]:
        return iter(self._lives)

    def __len__(self) -> int:
        return len(self._lives)
