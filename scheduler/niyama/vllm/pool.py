"""vLLM's waiting queues, and one without an order: the kernel has one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from vllm.v1.core.sched.request_queue import RequestQueue
from vllm.v1.request import Request

#: Waiting queues by version: 0.26 has the first two; 0.32 and 0.33 the first and the last.
QUEUES = ("waiting", "skipped_waiting", "kv_holding_waiting")


def queues(scheduler: Any) -> list[str]:
    """Names of the waiting queues that this version has."""
    return [name for name in QUEUES if hasattr(scheduler, name)]


class Pool(RequestQueue):
    """Requests by id, in the order they came; every operation but iteration takes constant time.

    To prepend is to add: where order matters, nothing is prepended and then read.
    """

    def __init__(self, requests: Iterable[Request] = ()) -> None:
        self._requests = {request.request_id: request for request in requests}

    def add_request(self, request: Request) -> None:
        self._requests[request.request_id] = request

    def pop_request(self) -> Request:
        return self._requests.pop(next(iter(self._requests)))

    def peek_request(self) -> Request:
        return next(iter(self._requests.values()))

    def prepend_request(self, request: Request) -> None:
        self.add_request(request)

    def prepend_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.add_request(request)

    def remove_request(self, request: Request) -> None:
        del self._requests[request.request_id]

    def remove_requests(self, requests: Iterable[Request]) -> None:
        for request in requests:
            self.discard(request)

    def clear(self) -> None:
        """Remove all."""
        self._requests.clear()

    def discard(self, request: Request) -> None:
        """Remove the request if it is there."""
        self._requests.pop(request.request_id, None)

    def __contains__(self, request: object) -> bool:
        return isinstance(request, Request) and request.request_id in self._requests

    def __bool__(self) -> bool:
        return bool(self._requests)

    def __len__(self) -> int:
        return len(self._requests)

    def __iter__(self) -> Iterator[Request]:
        return iter(self._requests.values())
