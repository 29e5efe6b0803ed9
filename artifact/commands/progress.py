"""What a command says while it works, on stderr: how far it is, what is left, and that the scheduler is compiled first.

On a terminal one line in place, elsewhere a line now and then. Estimates take the rest to be like what is done.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from artifact.runs.spec import RunSpec

LOG_EVERY_S = 30.0  # between lines where stderr is no terminal
WIDTH = 78  # of a line that is written over in place
COMPILING = "compiling the scheduler, once (about a minute) ..."
said: list[str] = []  # what this process says once, and has said


@cache
def announce_compilation() -> None:
    """Have the first compilation of the scheduler in this process said; one that is in the cache says nothing."""
    from numba.core import event

    class Listener(event.Listener):  # type: ignore[misc]  # numba has no types
        """Prints one line, for code of the package only."""

        def on_start(self, occurred: Any) -> None:
            function = occurred.data["dispatcher"].py_func
            if not said and (function.__module__ or "").partition(".")[0] == "niyama":
                said.append(COMPILING)
                announce(COMPILING)

        def on_end(self, occurred: Any) -> None:
            """Nothing."""

    event.register("numba:compile", Listener())


def duration_text(seconds: float) -> str:
    """`45 s`, `12 min` or `1 h 20 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def announce(text: str) -> None:
    """A line of its own."""
    print(text, file=sys.stderr, flush=True)


class Line:
    """Progress as text with the time that is left, in place on a terminal, else every LOG_EVERY_S."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock, self._terminal = clock, sys.stderr.isatty()
        self._start_s = self._said_s = clock()

    def say(self, text: str, done: float = 0.0) -> None:
        """`text`, with what is left when the share `done` (0 to 1) has been done; at 1 the line ends."""
        now_s = self._clock()
        spent_s, ended = now_s - self._start_s, done >= 1.0
        left = f", about {duration_text(spent_s * (1.0 - done) / done)} left" if 0.0 < done < 1.0 else ""
        line = f"{text}, {duration_text(spent_s)}{left}"
        if self._terminal:
            print(f"\r{line:{WIDTH}s}", end="\n" if ended else "\r", file=sys.stderr, flush=True)
        elif now_s - self._said_s >= LOG_EVERY_S:
            self._said_s = now_s
            announce(line)


def requests_done(total: int) -> Callable[[int], None]:
    """Tell how many of a run's requests have finished."""
    line = Line()
    return lambda done: line.say(f"{done:,} of {total:,} requests", done / total)


def run_started(total: int | None = None, searches: int | None = None) -> Callable[[RunSpec], None]:
    """Tell which run comes next, of `total`; where that is not known, of `searches` for a system's load and seed."""
    line, count, begun = Line(), 0, set()

    def tell(spec: RunSpec) -> None:
        nonlocal count
        begun.add((spec.system, spec.seed, spec.model_dump_json(include={"policy", "arrivals"})))
        share = count / total if total else (len(begun) - 1) / searches if searches else 0.0
        count += 1
        out_of = f" of {total}" if total else ""
        line.say(f"run {count}{out_of}: {spec.system} at {spec.load_qps:g} QPS", min(share, 0.99))

    return tell
