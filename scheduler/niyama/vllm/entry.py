"""Whom the kernel may plan: requests that vLLM would admit. Others would stand in the way of those behind them."""

from __future__ import annotations

import math
from itertools import chain
from typing import TYPE_CHECKING, Any

from niyama.vllm import admission, engine
from niyama.vllm.admission import Adapters
from niyama.vllm.connectors import Connector
from niyama.vllm.token_times import TokenTimes

if TYPE_CHECKING:
    from niyama.vllm.mirror import Mirror
    from niyama.vllm.records import Live, Orders


class Entry:
    """Used by one Planner; tells its mirror."""

    def __init__(self, mirror: Mirror, adapters: Adapters, connector: Connector, times: TokenTimes) -> None:
        self._mirror, self._adapters, self._connector, self._times = mirror, adapters, connector, times

    def arrived(self, scheduler: Any, live: Live) -> None:
        """A new request."""
        mirror = self._mirror
        self._take_adapters()
        if self._adapters.have(live.request) or len(mirror.not_yet) + len(mirror.passed_over) == 1:
            self._let_in_if_ready(scheduler, live)  # else whoever waits has the first claim to an adapter's place

    def _take_adapters(self) -> None:
        """Note whose places are taken: requests hold KV, or the kernel may plan them and has not relegated them."""
        if self._adapters.most:
            outside = map(admission.adapter_of, self._mirror.outside.running())
            self._adapters.start_with(chain(self._mirror.adapters, outside))

    def let_in(self, scheduler: Any) -> None:
        """Tell the kernel of the requests that vLLM would admit now."""
        mirror, adapters = self._mirror, self._adapters
        if not mirror.not_yet and not mirror.passed_over:
            return
        self._take_adapters()
        for live in adapters.worth_asking(mirror.passed_over):
            ready = self._connector.ready(scheduler, live) and not admission.must_wait(live.request)
            if ready and adapters.take(live.request):
                self._connector.comes_back(mirror, live)
        for live in adapters.worth_asking(mirror.not_yet):
            self._let_in_if_ready(scheduler, live)

    def _let_in_if_ready(self, scheduler: Any, live: Live) -> None:
        request, served = live.request, live.served
        if admission.must_wait(request) or not self._adapters.take(request):
            return
        self._mirror.ready(live, engine.cached_prefix_tokens(scheduler, request))
        self._connector.to_ask(live)
        due_s = live.arrival_s + served.deadline_slo_s if served.interactive else math.inf
        self._times.arrived(live.row, due_s, served.tbt_s)

    def must_wait(self, orders: Orders, request: Any) -> bool:
        """Whether the request, planned and not admitted, had better not be planned again at once."""
        no_adapter = bool(self._adapters.most) and request not in orders.waiting
        return no_adapter or self._connector.asks_later(request) or admission.must_wait(request)
