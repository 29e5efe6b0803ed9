"""Requests that have ended: what is counted of them, and what their last output tells the client."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from vllm.v1.request import RequestStatus

from niyama.vllm.metrics import SchedulerMetrics
from niyama.vllm.records import NO_ROW, Live
from niyama.vllm.token_times import TokenTimes


class Endings:
    """Used by one Planner. Times in seconds since its start."""

    def __init__(self, metrics: SchedulerMetrics) -> None:
        self._metrics, self.times = metrics, TokenTimes()
        self._told: dict[str, dict[str, Any]] = {}  # by id of a request that ended with the output at hand

    def note(self, live: Live, now_s: float, *, complete: bool) -> None:
        """The request ends now. complete: not aborted."""
        request, name = live.request, live.served.class_name
        for _ in range(live.preemptions):
            self._metrics.preempted(name)
        if complete:
            self._finished(live, now_s)
        else:
            self._metrics.aborted(name, self._decided(live, now_s))
        if request.status != RequestStatus.FINISHED_ABORTED:
            self._told[request.request_id] = {"class": name, "relegated": live.relegations > 0}

    def _finished(self, live: Live, now_s: float) -> None:
        served, late_s = live.served, float(self.times.worst_late_s[live.row])
        self._metrics.finished(
            served.class_name,
            ttft_s=float(self.times.first_s[live.row]) - live.arrival_s,
            ttlt_s=now_s - live.arrival_s,
            relegated=live.relegated,
            ttft_slo_s=served.deadline_slo_s if served.interactive else None,
            worst_token_lateness_s=late_s if served.interactive and late_s > -math.inf else None,
            ttlt_slo_s=None if served.interactive else served.deadline_slo_s,
        )

    def _decided(self, live: Live, now_s: float) -> dict[str, bool]:
        """SLOs of a request that ends too early whose outcome is known, and whether they were attained.

        In overload clients give up: without theirs, the share of SLOs attained would look best when it is worst.
        """
        served = live.served
        in_time = now_s - live.arrival_s <= served.deadline_slo_s
        if not served.interactive:
            return {} if in_time else {"ttlt": False}
        first_s = float(self.times.first_s[live.row]) if live.row != NO_ROW else math.nan
        if math.isnan(first_s):  # no token came
            return {} if in_time else {"ttft": False}
        late = {"tbt": False} if self.times.worst_late_s[live.row] > 0 else {}
        return {"ttft": first_s - live.arrival_s <= served.deadline_slo_s, **late}

    def tell(self, outputs: Mapping[int, Any]) -> None:
        """Write the served class and whether it was relegated into the last output of requests that have ended."""
        if not self._told:
            return
        for of_client in outputs.values():
            for output in of_client.outputs:
                if output.finish_reason is not None and output.request_id in self._told:
                    told = {"niyama": self._told.pop(output.request_id)}
                    output.kv_transfer_params = {**(output.kv_transfer_params or {}), **told}
        self._told.clear()
