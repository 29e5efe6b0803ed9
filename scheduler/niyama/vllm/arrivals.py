"""When a request arrived, on the engine's monotonic clock, of which the API server knows only the wall clock's time.

Wall clocks step (NTP, a resumed VM) and those of two hosts differ, while a request is no more than its time in the API
server old: an age that this cannot explain is the clocks'.
"""

from __future__ import annotations

import math
from typing import NamedTuple

MAX_AGE_S = 60.0  # that a request may have waited in an API server
STEP_S = 0.01  # wall against monotonic clock: both are slewed alike, so that only steps tell them apart
SKEW_S = 1.0  # all requests of a client were at least that old: its clock is behind ours
WINDOW_S = 60.0  # as seen over one to two of these ...
SEVERAL = 5  # ... and over so many requests: a few may well have taken that long to tokenize
LONE_S = 5.0  # with fewer, an age beyond this is the clocks' too


class _Window(NamedTuple):
    """A while of one client's requests."""

    began_s: float
    requests: int = 0
    least_s: float = math.inf  # the least age


class ArrivalClock:
    """Seconds since the start, from vLLM's monotonic and wall clocks."""

    def __init__(self, monotonic_s: float, wall_s: float) -> None:
        self._start_s, self._epoch_s = monotonic_s, wall_s
        self._stepped_at_s = -math.inf  # the wall clock, as it would have gone on, where it was seen to have leapt
        self._windows: dict[int, tuple[_Window, _Window]] = {}  # by client: the present one and the one before

    def arrival_s(self, stamp_s: float, client: int, monotonic_s: float, wall_s: float) -> float:
        """When the request arrived that API server `client` stamped `stamp_s` and that is here now; never after now."""
        now_s = monotonic_s - self._start_s
        self._follow(now_s, wall_s)
        if stamp_s <= self._stepped_at_s:  # in transit when the clock leapt: which clock's stamp it has cannot be told
            return now_s
        arrival_s = stamp_s - self._epoch_s
        arrival_s += self._skew_s(client, now_s, now_s - arrival_s)
        return arrival_s if now_s - MAX_AGE_S <= arrival_s <= now_s else now_s

    def _follow(self, now_s: float, wall_s: float) -> None:
        """Take the wall clock's steps along; after a large one all that is known of the clients' clocks is void."""
        step_s = wall_s - self._epoch_s - now_s
        if abs(step_s) <= STEP_S:
            return
        self._epoch_s = wall_s - now_s
        if abs(step_s) > SKEW_S:
            self._stepped_at_s = wall_s - step_s if step_s > 0.0 else -math.inf  # a stamp from the future is now anyway
            self._windows.clear()

    def _skew_s(self, client: int, now_s: float, age_s: float) -> float:
        """By how much a request of that age looks too old, going by the least ages lately, its own included."""
        nothing = _Window(now_s)
        present, before = self._windows.get(client, (nothing, nothing))
        if now_s - present.began_s > 2 * WINDOW_S:  # nothing is known of the window before
            present, before = nothing, nothing
        elif now_s - present.began_s > WINDOW_S:
            present, before = nothing, present
        present = _Window(present.began_s, present.requests + 1, min(present.least_s, age_s))
        self._windows[client] = present, before
        least_s = min(present.least_s, before.least_s)
        if least_s <= SKEW_S:
            return 0.0
        if present.requests + before.requests >= SEVERAL:
            return least_s
        return age_s if age_s > LONE_S else 0.0
