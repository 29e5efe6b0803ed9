"""The simulation of one replica by an engine in Python, which writes a decision log: the same results, only slower.

It is to the compiled simulator what the vLLM plug-in is to vLLM: everything passes through `niyama.scheduler`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np

from niyama.decision_log import DecisionLog
from niyama.latency import Batch, ModelCard, empty_batch, seconds, with_prefill
from niyama.latency.correction import Correction
from niyama.scheduler import Plan, Scheduler, Timing
from niyama.sim.noise import Noise, as_noise, noise_factor
from niyama.sim.replica import LOG_COLUMNS, in_order_of_removal
from niyama.sim.requests import Requests, arrival_of, delivered
from niyama.sim.run import SEED_STRIDE, Run, blank_run, check_run
from niyama.sim.set_up import ORACLE_ESTIMATOR
from niyama.sim.stepping import stall
from niyama.sim.system import System
from niyama.step import ALL_DECODED, CHUNK, DECODED, ENDED

TELL_EVERY = 1000  # iterations between reports of progress


def simulate_logged(
    system: System,
    requests: Requests,
    executor: ModelCard,
    predictor: ModelCard,
    decision_log: Path,
    *,
    noise: float | Noise = 0.0,
    seed: int = 0,
    log: bool = False,
    overlapped: bool = False,
    started_first: bool = False,
    correct: bool = False,
    delivery_s: float = 0.0,
    progress: Callable[[int], None] | None = None,
) -> Run:
    """`niyama.sim.simulate` for a system of one replica, with every decision written to the file `decision_log`.

    Raises ValueError as it does, for a system of several replicas and for an estimator that knows the future.
    """
    noise = as_noise(noise)
    kv_tokens = check_run(requests, executor, delivery_s)
    if system.replicas != 1:
        raise ValueError(
            f"decision log: system {system.name!r} has {system.replicas} replicas and a log has one scheduler; "
            "give a system of one replica"
        )
    if requests.emitted_tokens is not None:
        raise ValueError("decision log: requests come with emitted_tokens, which no log can say; leave them out")
    policy = system.pools[0].policy
    if policy.estimator == ORACLE_ESTIMATOR:
        raise ValueError(f"decision log: policy {policy.name!r} has estimator 'oracle', which no log can replay")
    sizes = {"kv_tokens": kv_tokens, "apps": int(requests.histories.max(initial=0)) + 1, "reuse_rows": False}
    sizes |= {"tenants": requests.tenants} if requests.tenants else {}
    writer = DecisionLog.open(decision_log, policy, predictor, **sizes)
    try:
        scheduler = Scheduler(policy, predictor, watch=writer.write, **sizes)
        told, numbers = delivered(requests, delivery_s), noise.numbers(seed * SEED_STRIDE)
        replica = _Replica(told, scheduler, executor, numbers, Correction(correct), progress)
        if overlapped:
            replica.serve_overlapped()
        else:
            replica.serve(started_first)
    finally:
        writer.close()
    run = replica.result(log)
    run.token_s[:] += delivery_s
    return run


class _Replica:
    """The world round a Scheduler: what arrives, what runs and for how long. A request's row is its number."""

    def __init__(
        self,
        requests: Requests,
        scheduler: Scheduler,
        executor: ModelCard,
        noise: np.ndarray,
        correction: Correction,
        progress: Callable[[int], None] | None,
    ) -> None:
        self._requests, self._scheduler, self._executor = requests, scheduler, executor.build()
        self._noise, self._correction, self._progress = noise, correction, progress
        self._run = blank_run(requests, np.zeros(len(requests), np.int32))
        self._output_tokens = requests.output_tokens.astype(np.int32)
        self._log: list[tuple[float, ...]] = []
        self._arrived = self._finished = self._iterations = 0

    def serve(self, started_first: bool) -> None:
        """Plan, execute, commit, to the end."""
        now_s, reported = 0.0, (0.0, 0.0, 0)
        while self._finished < len(self._requests):
            now_s = self._admit(now_s)
            plan = self._scheduler.step(Timing(now_s, *reported, *self._correction.told))
            if plan.batch.decodes + plan.batch.prefill_tokens == 0:
                raise stall(self._scheduler.policy, now_s, self._scheduler.state)
            chunks, decoding = list(zip(plan.rows, plan.tokens, strict=True)), self._decoding()
            batch = self._engine_batch(decoding, chunks) if started_first else plan.batch
            duration_s = self._execute(batch, now_s, plan.predicted_s, chunks)
            self._correction.learn(duration_s, float(seconds(self._scheduler.model, batch)), self._correction.scale)
            now_s, reported = now_s + duration_s, (now_s, now_s + duration_s, plan.batch.prefill_tokens)
            came = self._tokens_come(decoding, chunks, now_s)
            self._end(in_order_of_removal(came, self._ending(came)))

    def serve_overlapped(self) -> None:
        """The same, planning while the iteration before is in flight (`niyama.sim.overlapped`)."""
        now_s, predicted_s, scale, batch = 0.0, 0.0, 1.0, Batch(*empty_batch(0, 0))
        decoding, chunks, ending = np.zeros(0, np.int32), [], []
        while self._finished < len(self._requests):
            duration_s = 0.0
            if batch.decodes + batch.prefill_tokens > 0:
                duration_s = self._execute(batch, now_s, predicted_s, chunks)
            came = self._tokens_come(decoding, chunks, now_s + duration_s)
            ended, ending = ending, self._ending(came)
            self._end(ended)
            if self._finished == len(self._requests):
                return
            now_s = self._admit(now_s)
            held = {*self._held(), *(row for row, tokens in chunks if tokens > 0)}
            times_s = now_s + predicted_s, now_s, now_s + predicted_s
            plan = self._scheduler.step(Timing(*times_s, batch.prefill_tokens, *self._correction.told))
            if not (duration_s or plan.rows or plan.batch.decodes):
                raise stall(self._scheduler.policy, now_s, self._scheduler.state)
            decoding, chunks = self._granted(plan, held)
            batch = self._engine_batch(decoding, chunks)
            flown, scale = (predicted_s, scale), self._correction.scale
            predicted_s = float(seconds(self._scheduler.model, batch)) if batch.decodes + batch.prefill_tokens else 0.0
            now_s += duration_s
            if duration_s:
                self._correction.learn(duration_s, *flown)

    def _admit(self, now_s: float) -> float:
        """Report arrivals up to now, or up to the next one when nobody is there; returns the time then."""
        arrival_s = self._requests.arrival_s
        if self._arrived == self._finished:
            now_s = max(now_s, float(arrival_s[self._arrived]))
        while self._arrived < len(self._requests) and arrival_s[self._arrived] <= now_s:
            self._scheduler.arrive(arrival_of(self._requests, self._arrived))
            self._arrived += 1
        return now_s

    def _execute(self, batch: Batch, now_s: float, predicted_s: float, chunks: list[tuple[int, int]]) -> float:
        """Begin an iteration; returns how long it takes, in seconds."""
        duration_s = float(seconds(self._executor, batch)) * noise_factor(self._noise, self._iterations)
        s, first_s = self._scheduler.state, self._run.first_scheduled_s
        for row, _ in chunks:
            if np.isnan(first_s[row]):
                first_s[row] = now_s
        shape = batch.decodes, batch.decode_context, batch.prefill_tokens, sum(tokens > 0 for _, tokens in chunks)
        state = s.totals["queued"], s.totals["kv_free_blocks"], s.totals["min_slack_s"]
        self._log.append((0, now_s, duration_s, predicted_s, *shape, *state))
        self._iterations += 1
        if self._progress is not None and self._iterations % TELL_EVERY == 0:
            self._progress(self._finished)
        return duration_s

    def _running(self) -> np.ndarray:
        s = self._scheduler.state
        return s.running[: s.totals["running"]].copy()

    def _decoding(self) -> np.ndarray:
        """Those that get a token in the planned iteration."""
        running = self._running()
        return running[self._scheduler.table.left_out[running] == 0]

    def _held(self) -> list[int]:
        s = self._scheduler.state
        return [*self._running().tolist(), *s.prefilling[: s.totals["prefilling"]].tolist()]

    def _ending(self, rows: np.ndarray) -> list[int]:
        """Those of `rows` that have had their last token with the one that came just now."""
        return rows[self._scheduler.table.emitted_tokens[rows] + 1 == self._output_tokens[rows]].tolist()

    def _tokens_come(self, decoding: np.ndarray, chunks: list[tuple[int, int]], end_s: float) -> np.ndarray:
        """Report an iteration that ends at `end_s`; returns the rows that got a token, in the scheduler's order."""
        scheduler, t = self._scheduler, self._scheduler.table
        if 0 < len(decoding) == scheduler.state.totals["running"]:
            scheduler.report(ALL_DECODED, 0)
        else:
            for row in decoding.tolist():
                scheduler.report(DECODED, row)
        for row, tokens in chunks:
            scheduler.report(CHUNK, row, tokens)
        done = [row for row, tokens in chunks if t.computed_tokens[row] + tokens == t.target_tokens[row]]
        came = np.concatenate([decoding, np.array(done, np.int32)])
        self._run.token_s[self._run.token_start[came] + t.emitted_tokens[came]] = end_s
        return came

    def _end(self, rows: list[int]) -> None:
        for row in rows:
            self._scheduler.report(ENDED, row, int(self._output_tokens[row]))
        self._finished += len(rows)

    def _granted(self, plan: Plan, held: set[int]) -> tuple[np.ndarray, list[tuple[int, int]]]:
        """What an engine that plans ahead makes of a plan: who decodes, and the chunks as granted.

        held: requests that held KV before the plan; what it took from them they get back one iteration later.
        """
        t, running = self._scheduler.table, self._decoding()
        decoding = running[t.emitted_tokens[running] < self._output_tokens[running]]
        taken = {row for row in plan.rows if t.kv_blocks[row] == 0 and row in held}
        planned = zip(plan.rows, plan.tokens, strict=True)
        return decoding, [(row, 0 if row in taken else tokens) for row, tokens in planned]

    def _engine_batch(self, decoding: np.ndarray, chunks: list[tuple[int, int]]) -> Batch:
        """The batch in vLLM's order (`niyama.sim.replica.engine_batch`)."""
        t = self._scheduler.table
        batch = empty_batch(len(decoding), int(t.computed_tokens[decoding].sum()))
        for row, tokens in sorted(chunks, key=lambda chunk: t.kv_blocks[chunk[0]] == 0):
            if tokens > 0:
                batch = with_prefill(batch, int(t.computed_tokens[row]), tokens)
        return Batch(*batch)

    def result(self, log: bool) -> Run:
        """The raw times, as `simulate` returns them."""
        t, n = self._scheduler.table, len(self._requests)
        rows = self._log if log else []
        return replace(
            self._run,
            relegations=t.relegations[:n].copy(),
            still_relegated=t.relegated[:n].copy(),
            preemptions=t.preemptions[:n].copy(),
            iterations=self._iterations,
            un_relegations=int(self._scheduler.state.totals["un_relegations"]),
            log=np.array(rows, float).reshape(len(rows), 1 + len(LOG_COLUMNS)),
        )
