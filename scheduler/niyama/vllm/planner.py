"""Between vLLM's scheduler and the kernel: one object that knows the requests, the clock and the promises."""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from vllm.logger import init_logger

from niyama.scheduler import Scheduler, Timing
from niyama.step import CAPPED, HELD, LOST
from niyama.vllm import connectors, encoder_inputs, engine, held_kv
from niyama.vllm.admission import Adapters
from niyama.vllm.arrivals import ArrivalClock
from niyama.vllm.clock import StepClock
from niyama.vllm.config import EngineConfig, load_config
from niyama.vllm.connectors import Connector
from niyama.vllm.endings import Endings
from niyama.vllm.engine_log import EngineLog
from niyama.vllm.entry import Entry
from niyama.vllm.kv_groups import kv_sizes
from niyama.vllm.metrics import SchedulerMetrics
from niyama.vllm.mirror import Mirror
from niyama.vllm.qos import TENANTS, serve
from niyama.vllm.records import Live, Orders
from niyama.vllm.room import Room

logger = init_logger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only

QUIET = Timing(0.0, 0.0, 0.0, 0)
STALLED_AFTER = 1000  # empty plans in a row with nothing in flight; vLLM asks again at once
_COMPLETE = ("FINISHED_STOPPED", "FINISHED_LENGTH_CAPPED", "FINISHED_REPETITION")


class Planner:
    """What the plug-in knows. Times that come in are vLLM's clocks; inside, seconds since the start."""

    def __init__(
        self,
        config: EngineConfig,
        ours: Scheduler,
        metrics: SchedulerMetrics,
        log: EngineLog,
        now: tuple[float, float],
        adapters: Adapters,
        connector: Connector,
        room: Room,
    ) -> None:
        self.config, self.metrics = config, metrics
        self.clock = StepClock(config.correct_predictor, config.encoder_s_per_embed)
        self.mirror = Mirror(ours, len(config.classes), config.delivery_s, room.drafts)
        self._log, self._start_s, self._arrivals = log, now[0], ArrivalClock(*now)
        self._begin_s = self._scheduled_s = 0.0  # of the step being scheduled
        self._endings, self._adapters, self._room, self._empty_plans = Endings(metrics), adapters, room, 0
        self._outputs: deque[Any] = deque()  # vLLM's, of the steps in flight
        self._producing: deque[np.ndarray] = deque()  # rows that get a token, by step in flight
        self._shown: tuple[list[int], list[int]] | None = None  # queue lengths in the metrics
        self._chunk_tokens: int | None = None  # most prompt tokens of a request, as the kernel was told
        self._misfit: str | None = None
        self._doubtful: tuple[np.ndarray, float] | None = None  # rows that get a token if their KV has come, and when
        self.connector = connector
        self._entry = Entry(self.mirror, adapters, connector, self._endings.times)

    @classmethod
    def start(cls, scheduler: Any, environ: Mapping[str, str], now: tuple[float, float]) -> Planner:
        """For one engine. now: by vLLM's monotonic and wall clocks. Raises ConfigError and Unplannable."""
        config = load_config(scheduler.vllm_config.additional_config, environ)
        engine.refuse_unplannable(scheduler.vllm_config)
        room = Room.of(scheduler)
        policy, card = room.fitted(config.build_policy()), config.build_card()
        sizes = {**kv_sizes(scheduler), "apps": config.app_count, "tenants": TENANTS, "step_tokens": room.step_tokens}
        for line in engine.ignored(scheduler):
            logger.warning("Niyama: %s", line)
        metrics = SchedulerMetrics([c.name for c in config.classes], environ)
        log = EngineLog(config, scheduler.vllm_config.parallel_config, metrics, policy, card, **sizes)
        ours = Scheduler(policy, card, watch=log.write if config.decision_log is not None else None, **sizes)
        ours.step(QUIET)  # compiles now, not when the first request waits
        logger.info(
            "Niyama: policy %s, latency model %s (%s), %d blocks of KV, up to %d requests; steps of up to %d tokens",
            policy.name, card.name, card.hardware, sizes["kv_tokens"] // sizes["block_tokens"], room.most,
            room.step_tokens,
        )  # fmt: skip
        return cls(config, ours, metrics, log, now, Adapters(scheduler), Connector(scheduler, room.most), room)

    def arrived(self, scheduler: Any, request: Any, monotonic_s: float, wall_s: float) -> None:
        """A new request: what it is promised, and its row."""
        if request.resumable:  # its input comes in pieces, so that no plan knows it
            self.mirror.outside.add(request)
            return
        served = serve(self.config, getattr(request.sampling_params, "extra_args", None))
        self.metrics.arrived(served)
        arrival_s = self._arrivals.arrival_s(request.arrival_time, request.client_index, monotonic_s, wall_s)
        self._entry.arrived(scheduler, self.mirror.arrived(request, served, arrival_s))

    def plan(self, scheduler: Any, monotonic_s: float, *, held: bool = False) -> Orders:
        """Plan the step that vLLM schedules now; it begins when those in flight are predicted to have ended.

        held: vLLM will let only decodes run.
        """
        if held:
            self.mirror.scheduler.report(HELD, 0)
        chunk_tokens = engine.chunk_limit(scheduler)
        if chunk_tokens is not None and chunk_tokens != self._chunk_tokens:
            self.mirror.scheduler.report(CAPPED, 0, chunk_tokens)
            self._chunk_tokens = chunk_tokens
        self._scheduled_s = monotonic_s - self._start_s
        self._begin_s, last = self.clock.next_begin_s(self._scheduled_s), self.clock.last
        began_s, ended_s = (last.began_s, last.ends_s) if last else (self._begin_s, self._begin_s)
        prefill_tokens = last.prefill_tokens if last else 0
        timing = Timing(self._begin_s, began_s, ended_s, prefill_tokens, *self.clock.correction.told)
        self._entry.let_in(scheduler)
        self.connector.before_plan(scheduler, self.mirror)
        self._room.tell(scheduler, self.mirror)
        orders = self._adapters.offered(self.mirror.plan(timing, scheduler.running))
        for request in orders.dropped:
            self._drop(scheduler, request, monotonic_s)
        orders = encoder_inputs.fitted(scheduler, orders, self.mirror.by_row)
        relegated, restored = self.mirror.newly_relegated(orders.plan)
        for live in relegated:
            self.metrics.relegated(live.served.class_name)
        for live in restored:
            self.metrics.unrelegated(live.served.class_name)
        self._refuse_to_stall(orders)
        return orders

    def _drop(self, scheduler: Any, request: Any, monotonic_s: float) -> None:
        live = self.mirror.lives[request.request_id]
        self.connector.to_ask(live)
        if request.status.name != "RUNNING":
            held_kv.give_up(scheduler, request)
            return
        engine.preempt(scheduler, request, monotonic_s)
        unseen = self._gets_nothing(live) if getattr(request, "drop_stale_output", False) else 0
        if unseen:
            self.mirror.scheduler.report(LOST, live.row, unseen)

    def _refuse_to_stall(self, orders: Orders) -> None:
        # an asynchronous engine always has a step in flight, if an empty one
        computing = any(step.prefill_tokens + step.decodes for step in self.clock.flying)
        busy = orders.plan.rows or orders.running or computing or self.mirror.loads.loading
        idle, ours = not busy, self.mirror.scheduler
        idle = idle and ours.state.totals["slots"] > 0  # else vLLM is paused, or requests of no plan have them all
        self._empty_plans = self._empty_plans + 1 if idle else 0
        if self._empty_plans > STALLED_AFTER and self._plannable() > 0:
            raise RuntimeError(f"{ours.policy.name} plans nothing although requests wait and none runs")

    def not_offered(self) -> Sequence[Collection[str]]:
        """Ids of waiting requests that vLLM would have passed over, and was not shown in the step just scheduled."""
        return self.mirror.not_yet, self.mirror.passed_over, self._adapters.left_out

    def _plannable(self) -> int:
        return int(self.mirror.scheduler.state.totals["queued"]) - len(self.mirror.passed_over)

    def granted(self, scheduler: Any, orders: Orders, output: Any) -> None:
        """vLLM has scheduled the step: what it granted, and when that will be done."""
        must_wait = partial(self._entry.must_wait, orders)
        self._room.note(scheduler, self.mirror, orders, output, must_wait)
        granted = self.mirror.granted(orders.plan, output, must_wait)
        predicted_s = granted.predicted_s(orders.plan, self.mirror.scheduler.model)
        loaded = self.connector.granted(self.mirror, output)
        tokens = granted.prefill_tokens, granted.decodes, encoder_inputs.embeds(scheduler, output), loaded
        self.clock.scheduled(self._scheduled_s, self._begin_s, predicted_s, *tokens)
        self._outputs.append(output)
        self._producing.append(granted.producing)
        lengths = self.mirror.waiting, self.mirror.running
        if lengths != self._shown:
            self._shown = lengths[0].copy(), lengths[1].copy()
            for served, waiting, running in zip(self.config.classes, *lengths, strict=True):
                self.metrics.queue(served.name, waiting=waiting, running=running)

    def preempted(self, request: Any, *, output_is_lost: bool) -> None:
        """vLLM has freed a request's KV. output_is_lost: as are the tokens that it is to get from steps in flight."""
        live = self.mirror.lives.get(request.request_id)
        if live is not None and live.held:  # else the plan itself has given it up
            self.mirror.lost(live, self._gets_nothing(live) if output_is_lost else 0)
            self.connector.to_ask(live)

    def _gets_nothing(self, live: Live) -> int:
        """vLLM will drop the request's tokens of the steps in flight; returns how many."""
        dropped = 0
        for i, rows in enumerate(self._producing):
            self._producing[i] = rows[rows != live.row]
            dropped += len(rows) - len(self._producing[i])
        return dropped

    def step_ended(self, output: Any, made: Any, monotonic_s: float) -> None:
        """The step that vLLM scheduled as `output` has ended; its tokens, `made`, came out now. Others are not ours."""
        if not any(output is flying for flying in self._outputs):
            return
        now_s = monotonic_s - self._start_s
        while self._outputs.popleft() is not output:  # never executed
            self.clock.flying.popleft()
            self._producing.popleft()
        predicted_s, measured_s, step = self.clock.ended(now_s)
        if step.prefill_tokens + step.decodes > 0:
            self.metrics.step(
                predicted_s=predicted_s, measured_s=measured_s, prefill_tokens=step.prefill_tokens, decodes=step.decodes
            )
            self.metrics.correction(self.clock.correction.scale)
        rows = self.mirror.drafts.accepted(output, made, self.mirror, self._producing.popleft(), step.decodes)
        if getattr(getattr(made, "kv_connector_output", None), "invalid_block_ids", None):
            self._doubtful = rows, now_s
        else:
            self._endings.times.came(rows, now_s)
        misfit = self.clock.misfit()
        if misfit is not None and self._misfit is None:
            card = self.mirror.scheduler.card.name
            logger.warning("Niyama: %s; %s does not fit this engine, measure one that does", misfit, card)
        self._misfit = misfit

    def not_loaded(self, request_ids: Collection[str]) -> None:
        """Some KV of these requests has not come: vLLM drops what the step that has ended made of it."""
        rows, now_s = self._doubtful or (np.zeros(0, np.int32), 0.0)
        for live in connectors.holders(self.mirror, request_ids):
            self.mirror.computed_anew(live, int((rows == live.row).sum()))
            rows = rows[rows != live.row]
        self._endings.times.came(rows, now_s)
        self._doubtful = None

    def gone(self, request: Any, monotonic_s: float) -> None:
        """A request ends: vLLM is about to free it."""
        self.mirror.outside.discard(request)
        self.connector.gone(request.request_id)
        if request.request_id not in self.mirror.lives:
            return
        complete = request.status.name in _COMPLETE
        live = self.mirror.gone(request.request_id, request.num_output_tokens if complete else 0)
        if not complete:
            self._gets_nothing(live)
        self._endings.note(live, monotonic_s - self._start_s, complete=complete)

    def tell(self, outputs: Mapping[int, Any]) -> None:
        """Write into the last outputs of requests that have ended how they were served."""
        self._endings.tell(outputs)

    def failed(self, error: Exception) -> None:
        """The scheduler has switched us off because of `error`. Raises nothing."""
        self.connector.stop()
        try:
            self.metrics.fallback()
        except Exception:  # a full disk under the metrics' files, say
            logger.exception("Niyama: the fallback could not be counted")
        self.close()

    def close(self) -> None:
        """Write out the decision log. Raises nothing."""
        self._log.close()
