"""What a valid cell is, said once for every format, with errors that name the place and the fix."""

from __future__ import annotations

from pathlib import Path

from traces.errors import TraceError

MAX_TOKENS = 2**31 - 1  # token counts are int32

COUNT_FIX = f"write a whole number from 1 to {MAX_TOKENS}"
SECONDS_FIX = "write a finite number, 0 or more"
TIME_FIX = "write a time such as 2024-05-10 00:00:00.009930+00:00"


def bad_value(path: Path, line: int, column: str, value: object, fix: str) -> TraceError:
    """The error for one cell: `line` counts from 1 in the file."""
    return TraceError(f"{path}, line {line}: {column} is {value!r}; {fix}")
