"""Gathers what happened to every request of a virtual run: the same raw times as of a simulation."""

from __future__ import annotations

import numpy as np
from vllm.v1.core.sched.output import SchedulerOutput
from vllm.v1.engine import EngineCoreOutput
from vllm.v1.engine.core import EngineCore
from vllm.v1.request import Request

from niyama.sim import LOG_COLUMNS, Requests, Run
from niyama.vllm.emulated.executor import DeviceStep

REPLICA = 0  # there is one


class RawTimes:
    """Mutable: `arrived`, `scheduled` and `token` are called as things happen. A request's id is its row's number."""

    def __init__(self, requests: Requests, core: EngineCore, log: bool) -> None:
        n = len(requests)
        self._core, self._log = core, [] if log else None
        self._start = np.concatenate([[0], np.cumsum(requests.output_tokens, dtype=np.int64)])
        self._next, self._end = self._start[:-1].tolist(), self._start[1:].tolist()
        self._token_s = [np.nan] * int(self._start[-1])
        self._first_scheduled_s = np.full(n, np.nan)
        self._preemptions, self._relegated = np.zeros(n, np.int32), np.zeros(n, bool)
        self._live: dict[int, Request] = {}
        self._steps = 0
        self.finished = 0

    def arrived(self, row: int, request: Request) -> None:
        """The engine has this request."""
        self._live[row] = request

    def scheduled(self, step: DeviceStep, output: SchedulerOutput) -> None:
        """The device began a step."""
        self._steps += 1
        for new in output.scheduled_new_reqs:
            row = int(new.req_id)
            if np.isnan(self._first_scheduled_s[row]):  # a resumed request may come as a new one
                self._first_scheduled_s[row] = step.start_s
        if self._log is None:
            return
        batch, scheduler = step.batch, self._core.scheduler
        chunks = len(output.num_scheduled_tokens) - batch.decodes
        queued = len(scheduler.requests) - len(scheduler.running)
        free = scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
        shape = batch.decodes, batch.decode_context, batch.prefill_tokens, chunks
        self._log.append((REPLICA, step.start_s, step.duration_s, np.nan, *shape, queued, free, np.nan))

    def output(self, output: EngineCoreOutput, now_s: float) -> None:
        """New tokens reached the client. RuntimeError when a request ends early or has more than it asked for."""
        row = int(output.request_id)
        following = self._next[row] + len(output.new_token_ids)
        if following > self._end[row]:
            raise RuntimeError(
                f"request {row}: more than its {self._end[row] - self._start[row]} output tokens came out"
            )
        for k in range(self._next[row], following):
            self._token_s[k] = now_s
        self._next[row] = following
        if output.finish_reason is not None:
            self._finish(row, output)

    def _finish(self, row: int, output: EngineCoreOutput) -> None:
        if self._next[row] != self._end[row]:
            missing = self._end[row] - self._next[row]
            raise RuntimeError(f"request {row}: ended ({output.finish_reason}) with {missing} output tokens missing")
        told = (output.kv_transfer_params or {}).get("niyama", {})
        self._relegated[row] = bool(told.get("relegated", False))
        self._preemptions[row] = self._live.pop(row).num_preemptions
        self.finished += 1

    def run(self) -> Run:
        """All of it, as the simulator would return it."""
        columns = 1 + len(LOG_COLUMNS)
        return Run(
            replica=np.full(len(self._first_scheduled_s), REPLICA, np.int32),
            first_scheduled_s=self._first_scheduled_s,
            token_start=self._start,
            token_s=np.array(self._token_s),
            relegations=self._relegated.astype(np.int32),
            still_relegated=self._relegated,
            preemptions=self._preemptions,
            iterations=self._steps,
            un_relegations=0,
            log=np.array(self._log or np.zeros((0, columns))),
        )
