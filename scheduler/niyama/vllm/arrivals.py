"""When a request arrived, on the engine's monotonic clock, of which the API server knows only the wall clock's time.

Wall clocks step (NTP, a resumed VM) and those of two hosts differ, while a request is no more than its time in the API
server old: an age that this cannot explain is the clocks'.
"""

from __future__ import annotations

MAX_AGE_S = 60.0  # that a request may have waited in an API server
STEP_S = 0.01  # wall against monotonic clock: both are slewed alike, so that only steps tell them apart
SKEW_S = 1.0  # all requests of a client were at least that old: its clock is behind ours
WINDOW_S = 60.0  # as seen over one to two of these


class ArrivalClock:
    """Seconds since the start, from vLLM's monotonic and wall clocks."""

    def __init__(self, monotonic_s: float, wall_s: float) -> None:
        self._start_s, self._epoch_s = monotonic_s, wall_s
        self._least: dict[int, tuple[float, float, float]] = {}  # by client: window's start, least age in it and before

    def arrival_s(self, stamp_s: float, client: int, monotonic_s: float, wall_s: float) -> float:
        """When the request arrived that API server `client` stamped `stamp_s` and that is here now; never after now."""
        now_s = monotonic_s - self._start_s
        if abs(wall_s - self._epoch_s - now_s) > STEP_S:
            self._epoch_s = wall_s - now_s
        arrival_s = stamp_s - self._epoch_s
        skew_s = self._skew_s(client, now_s, now_s - arrival_s)
        if skew_s > SKEW_S:
            arrival_s += skew_s
        return arrival_s if now_s - MAX_AGE_S <= arrival_s <= now_s else now_s

    def _skew_s(self, client: int, now_s: float, age_s: float) -> float:
        """The least age lately, this one's included."""
        began_s, least_s, before_s = self._least.get(client, (now_s, age_s, age_s))
        if now_s - began_s > 2 * WINDOW_S:  # nothing is known of the window before
            began_s, least_s, before_s = now_s, age_s, age_s
        elif now_s - began_s > WINDOW_S:
            began_s, least_s, before_s = now_s, age_s, least_s
        least_s = min(least_s, age_s)
        self._least[client] = began_s, least_s, before_s
        return min(least_s, before_s)
