"""Keeps a fleet's processes up: what ends is restarted, later each time, while the others go on.

For fleets that serve; what is measured is never restarted, because the rest would be measured under its load.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from artifact.servers.process import ServerError

#: Before the first restart, and the most; doubled each time in between.
FIRST_WAIT_S, MOST_WAIT_S = 1.0, 60.0
#: A process that ends so many times in a row is given up; one that was up for STEADY_S starts from nothing.
MOST_RESTARTS, STEADY_S = 6, 600.0


class Restartable(Protocol):
    """What is kept up: a `ServerProcess`, or alike."""

    name: str
    status: int | None
    is_healthy: bool

    def restart(self) -> None:
        """Start it anew."""

    def log_tail(self) -> str:
        """Where its log is and how it ends."""


@dataclass
class _Kept:
    """One process. restarts: in a row. due_s: when to restart it. ready_s: since when it is up. None: it is not."""

    process: Restartable
    group: int
    ready_s: float | None
    restarts: int = 0
    started_s: float = 0.0
    due_s: float | None = None
    given_up: bool = False


class Keeper:
    """Looks after processes that are up. Mutable.

    groups: of processes that do for each other; nothing is served without one of each. tell: takes a line of text.
    start_timeout_s: the longest that a start may take.
    """

    def __init__(
        self,
        groups: Sequence[Sequence[Restartable]],
        tell: Callable[[str], None],
        start_timeout_s: float,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tell, self._start_timeout_s, self._now = tell, start_timeout_s, now
        self._kept = [_Kept(process, i, ready_s=now()) for i, group in enumerate(groups) for process in group]

    def look(self) -> None:
        """Look at each once, and do what is due. ServerError when all of a group are given up."""
        for kept in self._kept:
            if kept.due_s is not None:
                self._restart_when_due(kept)
            elif not kept.given_up and kept.process.status is not None:
                self._ended(kept, f"ended with status {kept.process.status}")
            elif not kept.given_up and kept.ready_s is None:
                self._await_ready(kept)

    def _restart_when_due(self, kept: _Kept) -> None:
        now_s = self._now()
        if now_s >= kept.due_s:
            kept.due_s, kept.started_s = None, now_s
            kept.process.restart()

    def _await_ready(self, kept: _Kept) -> None:
        took_s = self._now() - kept.started_s
        if kept.process.is_healthy:
            kept.ready_s = self._now()
            self._tell(f"server {kept.process.name} is back after {took_s:.0f} s")
        elif took_s > self._start_timeout_s:
            self._ended(kept, f"is not healthy {took_s:.0f} s after its restart")

    def _ended(self, kept: _Kept, how: str) -> None:
        now_s, name = self._now(), kept.process.name
        if kept.ready_s is not None and now_s - kept.ready_s >= STEADY_S:
            kept.restarts = 0
        kept.ready_s = None
        if kept.restarts >= MOST_RESTARTS:
            self._give_up(kept, how)
            return
        wait_s = min(MOST_WAIT_S, FIRST_WAIT_S * 2**kept.restarts)
        kept.restarts, kept.due_s = kept.restarts + 1, now_s + wait_s
        others = sum(other.ready_s is not None for other in self._kept if other is not kept)
        rest = f"{others} other process(es) go on" if others else "nothing else is up"
        self._tell(
            f"server {name} {how}; restart {kept.restarts} of {MOST_RESTARTS} in {wait_s:g} s, {rest}; "
            f"{kept.process.log_tail()}"
        )

    def _give_up(self, kept: _Kept, how: str) -> None:
        kept.given_up = True
        text = f"server {kept.process.name} {how} after {kept.restarts} restarts in a row, and is given up"
        if all(other.given_up for other in self._kept if other.group == kept.group):
            raise ServerError(f"{text}; {kept.process.log_tail()}")
        self._tell(f"{text}; run again when it is mended; {kept.process.log_tail()}")
