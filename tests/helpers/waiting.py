"""How tests wait: for what must happen, however slow the machine is. No test asserts how long anything takes."""

from __future__ import annotations

import time
from collections.abc import Callable

#: Ends a test that hangs, and nothing else: fifty times what the slowest wait takes on an idle machine.
HANG_S = 1200.0


def wait_for(condition: Callable[[], object], what: str = "it") -> None:
    """Return once `condition()` holds; fail when it does not for so long that it never will."""
    end_s = time.monotonic() + HANG_S
    while not condition():
        assert time.monotonic() < end_s, f"{what} did not happen within {HANG_S:g} s"
        time.sleep(0.02)
