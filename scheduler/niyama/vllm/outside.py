"""Requests that no plan knows (streaming input): served after the planned ones, and always a little."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from vllm.v1.request import RequestStatus

if TYPE_CHECKING:
    from niyama.vllm.records import Orders

TOKENS, LEAST_TOKENS = 512, 32  # most and least prompt tokens in a step, each
SHARE = 4  # together their least is at most this part of a step
RANK = 1e10  # vLLM's priority number, above every planned request's: the first to lose its KV


class Outside:
    """Such requests by id, with their clients' priorities. decode_tokens: most that one gets while it decodes."""

    def __init__(self, decode_tokens: int = 1) -> None:
        self._decode_tokens = decode_tokens
        self._requests: dict[str, tuple[Any, int]] = {}

    def __bool__(self) -> bool:
        return bool(self._requests)

    def add(self, request: Any) -> None:
        """It stays here until it ends."""
        self._requests[request.request_id] = request, request.priority
        request.priority = RANK

    def discard(self, request: Any) -> None:
        """It has ended, if it was one of these."""
        self._requests.pop(request.request_id, None)

    def running(self) -> Iterator[Any]:
        """Those that vLLM runs."""
        return (r for r, _ in self._requests.values() if r.status == RequestStatus.RUNNING)

    def slots(self) -> int:
        """How many hold KV: they run, wait for more of their input, or have just got it and go on before others."""
        return sum(request.num_computed_tokens > 0 for request, _ in self._requests.values())

    def give_back_priorities(self) -> None:
        """Let vLLM see the clients' own priorities again."""
        for request, priority in self._requests.values():
            request.priority = priority

    def beside(self, orders: Orders, step_tokens: int) -> Orders:
        """The same orders, with these requests at the end. The plan gives way where a step of at most `step_tokens`
        would leave them nothing.
        """
        if not self._requests:
            return orders
        requests = [request for request, _ in self._requests.values()]
        left = {r.request_id: max(self._decode_tokens, r.num_tokens - r.num_computed_tokens) for r in requests}
        least = min(step_tokens // SHARE, sum(min(LEAST_TOKENS, tokens) for tokens in left.values()))
        orders = _shortened(orders, orders.budget_tokens + least - step_tokens)
        caps = {request_id: min(TOKENS, tokens) for request_id, tokens in left.items()}
        running = sorted(orders.running, key=lambda r: r.request_id in self._requests)
        budget_tokens = orders.budget_tokens + sum(caps.values())
        return orders._replace(running=running, caps=orders.caps | caps, budget_tokens=budget_tokens, beside=requests)

    def split(self, scheduled: Mapping[str, int]) -> tuple[Mapping[str, int], list[tuple[int, int]]]:
        """Scheduled tokens of the planned requests by id, and prefix and tokens of each of these."""
        if not self._requests:
            return scheduled, []
        chunks = [
            (request.num_computed_tokens - scheduled[request_id], scheduled[request_id])
            for request_id, (request, _) in self._requests.items()
            if request_id in scheduled
        ]
        return {i: n for i, n in scheduled.items() if i not in self._requests}, chunks


def _shortened(orders: Orders, tokens: int) -> Orders:
    """The orders with that many fewer prompt tokens, taken from the last in line; unchanged for 0 or less."""
    if tokens <= 0:
        return orders
    caps, waiting = dict(orders.caps), orders.waiting
    started = [request for request in orders.running if request.request_id in caps]
    for request in (*reversed(waiting), *reversed(started)):
        taken = min(tokens, caps[request.request_id])
        caps[request.request_id] -= taken
        tokens -= taken
    waiting = [request for request in waiting if caps[request.request_id] > 0]  # vLLM stops at one that gets nothing
    budget_tokens = orders.budget_tokens - sum(orders.caps.values()) + sum(caps.values())
    return orders._replace(waiting=waiting, caps=caps, budget_tokens=budget_tokens)
