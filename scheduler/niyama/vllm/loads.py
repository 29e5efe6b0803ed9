"""Requests that hold KV before they run, as it comes from elsewhere: what the kernel is told of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from niyama.scheduler import Scheduler
from niyama.step import CHUNK, LOADED, LOADING, LOST, SIZED, STORED

if TYPE_CHECKING:
    from niyama.vllm.records import Live


class Loads:
    """Used by one Mirror. loading: by id, passed over until the first tokens of their prompts have come."""

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self.loading: dict[str, Live] = {}
        self._loaded: dict[str, Live] = {}  # they have come, and vLLM does not run the request yet

    def starts(self, live: Live) -> None:
        """The planned request waits, with KV, for as many tokens as vLLM says."""
        request = live.request
        self.loading[request.request_id] = live
        self._scheduler.report(SIZED, live.row, request.num_tokens)
        self._scheduler.report(LOADING, live.row, request.num_computed_tokens)

    def ready_again(self, live: Live) -> None:
        """The request may be planned again; if it was loading, with as many tokens as have come, or without KV."""
        request = live.request
        if self.loading.pop(request.request_id, None) is None:
            self._scheduler.report(CHUNK, live.row, 0)
        elif request.num_computed_tokens:
            self._loaded[request.request_id] = live
            self._scheduler.report(LOADED, live.row, request.num_computed_tokens)
        else:
            self._scheduler.report(LOST, live.row)

    def computed_anew(self, live: Live, unseen_tokens: int) -> None:
        """Of a running request's KV only the tokens that vLLM says are left, and `unseen_tokens` of output are lost."""
        left = live.request.num_computed_tokens
        for kind, value in ((LOST, unseen_tokens), (LOADING, left), (LOADED, left)):
            self._scheduler.report(kind, live.row, value)

    def known_tokens(self, live: Live) -> int:
        """The request runs now: how many of its tokens the kernel knows to be in KV, none that only lay elsewhere."""
        known = int(self._scheduler.table.computed_tokens[live.row])
        if live.held or self._loaded.pop(live.request.request_id, None) is not None or known == 0:
            return known
        self._scheduler.report(STORED, live.row, 0)
        return 0

    def gave_up(self, live: Live) -> bool:
        """Whether the kernel has given up KV that was loaded, of a request that vLLM does not run yet."""
        return self._loaded.pop(live.request.request_id, None) is not None

    def loaded(self) -> Iterable[Live]:
        """Those that vLLM does not run yet."""
        return self._loaded.values()

    def gone(self, request_id: str) -> None:
        """The request has ended."""
        self.loading.pop(request_id, None)
        self._loaded.pop(request_id, None)
