"""The emulated device's time: the machine's, or virtual time by which the whole in-process engine runs.

Seconds since the clock was made, never epochs: an epoch float rounds to 1e-7 s, and replays then differ.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

# Packages whose modules read the time through their attribute `time`.
TIMED_PACKAGES = ("vllm.v1.", "niyama.vllm.")


class RealClock:
    """Seconds of real time since the clock was made."""

    def __init__(self) -> None:
        self._start_s = time.monotonic()

    def now(self) -> float:
        """Seconds since the start."""
        return time.monotonic() - self._start_s

    def wait_until(self, moment_s: float) -> None:
        """Sleep until `moment_s`; return at once when it has passed."""
        while (left_s := moment_s - self.now()) > 0.0:
            time.sleep(left_s)


class VirtualClock:
    """Time that passes only when somebody waits; also what stands in for the module `time` while it runs."""

    def __init__(self) -> None:
        self.now_s = 0.0

    def now(self) -> float:
        """Seconds since the start."""
        return self.now_s

    def wait_until(self, moment_s: float) -> None:
        """Let time pass up to `moment_s`; never backwards."""
        self.now_s = max(self.now_s, moment_s)

    def sleep(self, duration_s: float) -> None:
        """`time.sleep`, at once."""
        self.now_s += max(0.0, duration_s)

    def now_ns(self) -> int:
        """Nanoseconds since the start."""
        return round(self.now_s * 1e9)

    time = monotonic = perf_counter = now
    time_ns = monotonic_ns = perf_counter_ns = now_ns

    def __getattr__(self, name: str) -> object:
        """Whatever does not tell the time of day or of a step (`strftime`, `thread_time`) is the real module's."""
        return getattr(time, name)


class VirtualTime:
    """A virtual clock in force: its `clock`, and `cover()` for modules imported since."""

    def __init__(self) -> None:
        self.clock = VirtualClock()
        self._covered: list[ModuleType] = []

    def cover(self) -> None:
        """Give every loaded module of TIMED_PACKAGES that imported `time` the virtual clock instead."""
        for name, module in list(sys.modules.items()):
            if name.startswith(TIMED_PACKAGES) and name != __name__ and getattr(module, "time", None) is time:
                module.time = self.clock
                self._covered.append(module)

    def uncover(self) -> None:
        """Give them the real time back."""
        while self._covered:
            self._covered.pop().time = time


_in_force: list[VirtualTime] = []


@contextmanager
def virtual_time() -> Iterator[VirtualTime]:
    """Run the block by a fresh virtual clock that starts at 0. RuntimeError when one is in force already."""
    if _in_force:
        raise RuntimeError("virtual time is in force already; a process has one virtual run at a time")
    in_force = VirtualTime()
    _in_force.append(in_force)
    try:
        in_force.cover()
        yield in_force
    finally:
        in_force.uncover()
        _in_force.clear()


def virtual_clock() -> VirtualClock:
    """The virtual clock in force. RuntimeError when there is none."""
    if not _in_force:
        raise RuntimeError("emulated: time is 'virtual' and no virtual clock runs here; use run_virtual, or 'real'")
    return _in_force[0].clock
