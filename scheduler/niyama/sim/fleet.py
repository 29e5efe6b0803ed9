"""Replicas on one clock: sent requests, run up to a time, and asked how they are."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numba.core.config import DISABLE_JIT

from niyama.faults import refuse_fault, rule_error
from niyama.kernel import Kernel
from niyama.latency import LatencyModel
from niyama.policies import Policy
from niyama.queues import new_queues
from niyama.sim.overlapped import Flight
from niyama.sim.replica import World
from niyama.sim.stepping import COLUMNS, SLICE_ITERATIONS, Parts, addresses, publish, run_until, stall

FIRST_QUEUE = 4096  # requests that a replica's queues have room for at first


@dataclass
class Replica:
    """One replica of a fleet. Only this module's functions change it."""

    world: World
    kernel: Kernel
    policy: Policy
    executor: LatencyModel
    flight: Flight | None
    room: int = FIRST_QUEUE

    @property
    def parts(self) -> Parts:
        """What `niyama.sim.stepping` runs."""
        return self.world, self.kernel, self.executor, self.flight

    @property
    def unfinished(self) -> int:
        """Requests that were sent here and have not ended."""
        return int(self.world.progress["sent"]) - int(self.world.progress["finished"])

    def send(self, rows: np.ndarray) -> bool:
        """Requests that the router sends here, in order of arrival; answers whether an array was replaced for them."""
        progress = self.world.progress
        sent, grown = int(progress["sent"]), False
        if sent + len(rows) > len(self.world.order):
            order = np.zeros(2 * (sent + len(rows)), np.int32)
            order[:sent] = self.world.order[:sent]
            self.world, grown = self.world._replace(order=order), True
        self.world.order[sent : sent + len(rows)] = rows
        progress["sent"] = sent + len(rows)
        if self.unfinished > self.room:
            self._grow()
            grown = True
        return grown

    def _grow(self) -> None:
        """Queues with room for all that are unfinished."""
        self.room = 2 * self.unfinished
        queues, old = new_queues(self.room), self.kernel.state.queues
        width = old.keys.shape[1]
        queues.keys[:, :width], queues.ids[:, :width], queues.size[:] = old.keys, old.ids, old.size
        self.kernel = self.kernel._replace(state=self.kernel.state._replace(queues=queues))


class Fleet:
    """Replicas on one clock."""

    def __init__(self, replicas: list[Replica]) -> None:
        self.replicas = replicas
        self.seen = np.zeros((2, len(replicas), COLUMNS))  # published one period before, and last
        self._chunks = np.array([one.policy.max_chunk_tokens for one in replicas], np.int64)
        self._where = np.array([addresses(one.parts) for one in replicas]) if not DISABLE_JIT else np.zeros((0, 0))
        self._publish()
        self.seen[0] = self.seen[1]

    @property
    def finished(self) -> int:
        """Requests."""
        return sum(int(one.world.progress["finished"]) for one in self.replicas)

    def send(self, first_row: int, replica: np.ndarray) -> None:
        """The requests from that row on, each to its replica."""
        for k in np.unique(replica):
            rows = first_row + np.flatnonzero(replica == k).astype(np.int32)
            if self.replicas[k].send(rows) and not DISABLE_JIT:
                self._where[k] = addresses(self.replicas[k].parts)

    def run(self, until_s: float) -> Iterator[tuple[int, np.ndarray]]:
        """Iterations of all replicas up to a time; then they publish. Yields (replica, slice of its iteration log).

        A run stops where a log is full. RuleError or ValueError where a policy's rule fails, or plans nothing.
        """
        parts = [one.parts for one in self.replicas]
        while True:
            try:
                done = run_until(self._where, parts, until_s, SLICE_ITERATIONS)
            except Exception as error:  # of a rule in plain Python; which replica's is not known
                raise rule_error(self.replicas[0].policy, error) from error
            if done < len(parts):
                one = self.replicas[done]
                refuse_fault(one.policy, one.kernel.state, one.kernel.model)
                raise stall(one.policy, float(one.world.progress["now_s"]), one.kernel.state)
            again = False
            for k, one in enumerate(self.replicas if len(self.replicas[0].world.log) or until_s == np.inf else ()):
                progress = one.world.progress
                if progress["logged"]:
                    yield k, one.world.log[: int(progress["logged"])].copy()
                    progress["logged"] = 0
                again |= bool(one.unfinished and float(progress["now_s"]) < until_s)
            if not again:
                break
        self._publish()

    def _publish(self) -> None:
        self.seen[0] = self.seen[1]
        publish(self._where, [one.parts for one in self.replicas], self._chunks, self.seen[1])
