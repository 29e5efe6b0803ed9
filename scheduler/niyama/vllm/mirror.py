"""The kernel's view of vLLM's requests: tells it what vLLM did, and translates its plan into what vLLM understands."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from niyama.scheduler import Plan, Scheduler, Timing
from niyama.step import ALL_DECODED, CHUNK, DECODED, ENDED, LEFT, LOST, SIZED
from niyama.vllm.admission import AdapterUse, Blocked
from niyama.vllm.drafts import Drafts
from niyama.vllm.loads import Loads
from niyama.vllm.outside import Outside
from niyama.vllm.qos import Served
from niyama.vllm.records import NO_ROW, Granted, Live, Orders, vllm_priority
from niyama.vllm.relegations import Relegations


class Mirror:
    """Requests by id and by row. Every method is called by the engine's loop, in the order of events."""

    def __init__(self, scheduler: Scheduler, classes: int, delivery_s: float, drafts: Drafts | None = None) -> None:
        self.scheduler, self.drafts = scheduler, drafts or Drafts()
        self._delivery_s = delivery_s  # tokens take that long from the engine to the client
        self.waiting, self.running = [0] * classes, [0] * classes  # requests without and with KV, by class
        self.lives: dict[str, Live] = {}
        self.not_yet = Blocked()  # unknown to the kernel until vLLM would admit them
        self.passed_over = Blocked()  # were planned, not admitted, and are out of the kernel's queues
        self.adapters = AdapterUse()  # of requests that hold KV, or that the kernel may plan and has not relegated
        self.outside = Outside(1 + self.drafts.most)
        self.by_row: dict[int, Live] = {}
        self._started: dict[str, Live] = {}  # part of their prompt is in KV
        self._decoding: dict[str, Live] = {}
        self._decoding_rows: np.ndarray | None = None  # of the above; None when it has changed
        self.loads = Loads(scheduler)
        self._lost: set[int] = set()  # rows whose KV vLLM freed since the last plan
        self._preemptions = 0
        self._relegations = Relegations()

    def arrived(self, request: Any, served: Served, arrival_s: float) -> Live:
        """A new request; the kernel hears of it when it is `ready`."""
        live = Live(request, served, NO_ROW, arrival_s, request.priority)
        self.lives[request.request_id] = self.not_yet[request.request_id] = live
        self.waiting[served.class_index] += 1
        return live

    def ready(self, live: Live, cached_tokens: int) -> None:
        """vLLM would admit the new request, of whose prompt `cached_tokens` need not be computed."""
        del self.not_yet[live.request.request_id]
        left_tokens = max(1, live.request.num_tokens - cached_tokens)
        live.row = self.scheduler.arrive(live.arrival(left_tokens, self._delivery_s))
        self.by_row[live.row] = live
        self._relegations.row_is_new(live.row)
        self._count_adapter(live)

    def ready_again(self, live: Live) -> None:
        """vLLM would now admit the request that it passed over."""
        del self.passed_over[live.request.request_id]
        self.loads.ready_again(live)
        self._count_adapter(live)

    def computed_anew(self, live: Live, unseen_tokens: int) -> None:
        """A running request's KV has not come, as far as vLLM says; it drops `unseen_tokens` of its output."""
        self._no_longer_decodes(live.request.request_id)
        self._started[live.request.request_id] = live
        self.loads.computed_anew(live, unseen_tokens)

    def _pass_over(self, live: Live) -> None:
        """The planned request stays out of the kernel's queues until vLLM would admit it."""
        self.passed_over[live.request.request_id] = live
        self._count_adapter(live)

    def _count_adapter(self, live: Live) -> None:
        blocked = live.relegated or live.request.request_id in self.passed_over
        self.adapters.note(live, live.held or not blocked)

    def gone(self, request_id: str, output_tokens: int) -> Live:
        """A request has ended with `output_tokens` of output, or was aborted (0)."""
        live = self.lives.pop(request_id)
        self._started.pop(request_id, None)
        self._no_longer_decodes(request_id)
        self.passed_over.pop(request_id, None)
        self.loads.gone(request_id)
        (self.running if live.held else self.waiting)[live.served.class_index] -= 1
        if self.not_yet.pop(request_id, None) is not None:
            return live
        del self.by_row[live.row]
        self.adapters.note(live, False)
        self.scheduler.report(ENDED if output_tokens else LEFT, live.row, output_tokens)
        return live

    def newly_relegated(self, plan: Plan) -> tuple[list[Live], list[Live]]:
        """Requests relegated, and those made ordinary again, since this was last asked."""
        relegated, restored = self._relegations.since_last(plan, self.scheduler.table, self.by_row)
        for live in (*relegated, *restored):
            self._count_adapter(live)
        return relegated, restored

    def plan(self, timing: Timing, running: list[Any]) -> Orders:
        """Have the next step planned; `running` is vLLM's list as it stands."""
        self._lost.clear()
        plan = self.scheduler.step(timing)
        caps = {self.by_row[row].request.request_id: 0 for row in plan.left_out}
        if not plan.rows and not self._started and plan.preemptions == self._preemptions:  # most steps only decode
            return self._with_outside(Orders(plan, running, [], caps, plan.batch.decodes, []))
        dropped = self._dropped(plan)
        caps, planned, waiting = caps | dict.fromkeys(self._started, 0), [], []
        for row, tokens in zip(plan.rows, plan.tokens, strict=True):
            request = (live := self.by_row[row]).request
            caps[request.request_id] = tokens or 1  # a load needs none, but vLLM starts none when none is left
            if live.held:
                planned.append(request.request_id)
            elif request not in dropped:  # vLLM never resumes in the step that preempts
                waiting.insert(len(waiting) if tokens else 0, request)
        order = [r for r in running if r not in dropped] if dropped else running
        if self._started:
            places = {request_id: i for i, request_id in enumerate(planned)}
            prompts = [r for r in order if r.request_id in self._started]
            prompts.sort(key=lambda request: places.get(request.request_id, len(places)))
            order = [r for r in order if r.request_id not in self._started] + prompts
        tokens = plan.batch.decodes + sum(plan.tokens) + plan.tokens.count(0)
        return self._with_outside(Orders(plan, order, waiting, caps, tokens, dropped))

    def _with_outside(self, orders: Orders) -> Orders:
        return self.outside.beside(self.drafts.widened(orders, self), self.scheduler.step_tokens)

    def _dropped(self, plan: Plan) -> list[Any]:
        """Requests whose KV the kernel gave up in this step, and that vLLM still runs."""
        if plan.preemptions == self._preemptions:
            return []
        self._preemptions = plan.preemptions
        blocks = self.scheduler.table.kv_blocks
        holders = (*self._started.values(), *self._decoding.values(), *self.loads.loaded())
        lost = [live for live in holders if blocks[live.row] == 0]
        for live in lost:
            if not self.loads.gave_up(live):
                self._let_go(live)
        return [live.request for live in lost]

    def lost(self, live: Live, unseen_tokens: int) -> None:
        """vLLM freed the request's KV, and drops so many of the tokens that it was reported to have got."""
        self._let_go(live)
        self._lost.add(live.row)
        self.scheduler.report(LOST, live.row, unseen_tokens)

    def granted(self, plan: Plan, output: Any, must_wait: Callable[[Any], bool]) -> Granted:
        """Report what vLLM granted, by its output.

        must_wait: whether vLLM would pass a waiting request over again; such ones are not planned again at once.
        """
        scheduled, beside = self.outside.split(output.num_scheduled_tokens)
        drafts = self.drafts.scheduled(output, self)
        granted = self._granted(plan, scheduled, must_wait)._replace(drafts=drafts)
        if not beside:
            return granted
        tokens = granted.prefill_tokens + sum(n for _, n in beside)
        return granted._replace(chunks=granted.chunks + beside, prefill_tokens=tokens)

    def _granted(self, plan: Plan, scheduled: Mapping[str, int], must_wait: Callable[[Any], bool]) -> Granted:
        if not plan.rows and len(scheduled) == len(self._decoding):
            self.scheduler.report(ALL_DECODED, 0)
            return Granted(self._rows_of_decoding(), len(scheduled), plan.batch.decode_context, [], 0)
        lives = [self.by_row[row] for row in plan.rows]
        prompts = [live for live in lives if live.request.request_id in scheduled]
        prompts.sort(key=lambda live: not live.held)  # vLLM puts started ones first
        decodes = len(scheduled) - len(prompts)
        if decodes == len(self._decoding):
            self.scheduler.report(ALL_DECODED, 0)
            producing, context = self._rows_of_decoding(), plan.batch.decode_context
        else:
            producing = self._report_decodes(scheduled, prompts)
            context = int(self.scheduler.table.computed_tokens[producing].sum())
        chunks = [self._chunk(live, scheduled[live.request.request_id]) for live in prompts]
        for live in lives:
            if live in prompts or live.row in self._lost:
                continue
            if not live.held and must_wait(live.request):
                self._pass_over(live)
            else:
                self.scheduler.report(CHUNK, live.row, 0)
        done = [live.row for live in prompts if live.request.request_id in self._decoding]
        if done:
            producing = np.concatenate([producing, np.array(done, np.int32)])
        return Granted(producing, decodes, context, chunks, sum([tokens for _, tokens in chunks]))

    def _report_decodes(self, scheduled: Mapping[str, int], prompts: list[Live]) -> np.ndarray:
        """Report decodes one by one, where vLLM passed some over; ValueError if it scheduled what was not planned."""
        planned = {live.request.request_id for live in prompts}
        rows = []
        for request_id in scheduled:
            if request_id in self._decoding:
                rows.append(self._decoding[request_id].row)
                self.scheduler.report(DECODED, rows[-1])
            elif request_id not in planned:
                raise ValueError(f"request {request_id} was scheduled and not planned")
        return np.array(rows, np.int32)

    def decoding(self) -> list[Any]:
        """vLLM's requests that decode."""
        return [live.request for live in self._decoding.values()]

    def _rows_of_decoding(self) -> np.ndarray:
        if self._decoding_rows is None:
            self._decoding_rows = np.array([live.row for live in self._decoding.values()], np.int32)
        return self._decoding_rows

    def _no_longer_decodes(self, request_id: str) -> None:
        if self._decoding.pop(request_id, None) is not None:
            self._decoding_rows = None

    def _chunk(self, live: Live, tokens: int) -> tuple[int, int]:
        """Report a granted chunk; returns its prefix and tokens."""
        request, table, row = live.request, self.scheduler.table, live.row
        computed, tokens = self.drafts.without_padding(request, tokens)
        target = request.num_tokens if request.is_prefill_chunk else computed
        if table.target_tokens[row] != target:
            self.scheduler.report(SIZED, row, target)
        self.scheduler.report(CHUNK, row, computed - self.loads.known_tokens(live))
        if not live.held:
            request.priority = vllm_priority(table, row)
            live.held = True
            self._count_adapter(live)
            self._move(live, self.waiting, self.running)
        if request.is_prefill_chunk:
            self._started[request.request_id] = live
        else:
            self._started.pop(request.request_id, None)
            self._decoding[request.request_id] = live
            self._decoding_rows = None
        return computed - tokens, tokens

    def give_back_priorities(self) -> None:
        """Let vLLM see the clients' own priorities again."""
        for live in self.lives.values():
            live.request.priority = live.priority
        self.outside.give_back_priorities()

    def _let_go(self, live: Live) -> None:
        live.held = False
        live.preemptions += 1
        self._count_adapter(live)
        self._started.pop(live.request.request_id, None)
        self._no_longer_decodes(live.request.request_id)
        self._move(live, self.running, self.waiting)

    def _move(self, live: Live, source: list[int], target: list[int]) -> None:
        source[live.served.class_index] -= 1
        target[live.served.class_index] += 1
