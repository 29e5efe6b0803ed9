"""What a valid row is, said once for every text format, with errors that name the place and the fix."""

from __future__ import annotations

import csv
import json
import math
import re
from collections.abc import Callable, Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from traces.errors import TraceError

MAX_TOKENS = 2**31 - 1  # token counts are int32

COUNT_FIX = f"write a whole number from 1 to {MAX_TOKENS}"
SECONDS_FIX = "write a finite number"
TIME_FIX = "write a time such as 2024-05-10 00:00:00.009930+00:00"


def bad_value(path: Path, line: int, column: str, value: object, fix: str) -> TraceError:
    """The error for one cell: `line` counts from 1 in the file."""
    return TraceError(f"{path}, line {line}: {column} is {value!r}; {fix}")


def is_count(value: object) -> bool:
    """True for a token count that JSON gave as an integer (a boolean is not one)."""
    return isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= MAX_TOKENS


def is_count_text(text: str) -> bool:
    """True for the decimal digits of a token count."""
    return re.fullmatch(r"[0-9]{1,10}", text) is not None and 1 <= int(text) <= MAX_TOKENS


def is_seconds(value: object) -> bool:
    """True for a finite number."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def is_seconds_text(text: str) -> bool:
    """True for the text of a finite number."""
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def is_time_text(text: str) -> bool:
    """True for an ISO 8601 date and time."""
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True


def csv_fault(
    path: Path,
    tests: Mapping[str, tuple[Callable[[str], bool], str]],
    skip: Callable[[Mapping[str, str]], bool],
) -> TraceError | None:
    """The error for the first bad row of a CSV file, or None if there is none.

    `tests` maps a column to its test and fix; rows for which `skip` holds are not tested. This walk is slow;
    the readers take it only once they know that a fault exists.
    """
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows)
        for cells in rows:
            if len(cells) != len(header):
                fix = f"write {len(header)} cells or delete the line"
                return bad_value(path, rows.line_num, f"row of {len(cells)} cells", ",".join(cells), fix)
            row = dict(zip(header, cells, strict=True))
            for column, (passes, fix) in tests.items():
                if not passes(row[column]) and not skip(row):
                    return bad_value(path, rows.line_num, column, row[column], fix)
    return None


def json_rows(path: Path) -> Iterator[tuple[int, dict[str, object]]]:
    """Each line of a JSONL file as (line number from 1, object). Raises TraceError for anything else."""
    for line, text in _lines(path):
        try:
            row = json.loads(text)
        except json.JSONDecodeError as error:
            raise bad_value(path, line, "row", text.strip()[:80], f"write one JSON object ({error.msg})") from None
        if not isinstance(row, dict):
            raise bad_value(path, line, "row", row, "write one JSON object")
        yield line, row


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    with path.open(encoding="utf-8") as stream:
        try:
            yield from enumerate(stream, start=1)
        except UnicodeDecodeError as error:
            raise TraceError(f"{path}: is not UTF-8 ({error.reason}); write one JSON object a line") from None


def json_cell(
    path: Path, line: int, row: Mapping[str, object], column: str, passes: Callable[[object], bool], fix: str
) -> Any:
    """`row[column]`, if present and valid. Raises TraceError otherwise."""
    if column not in row:
        raise TraceError(f"{path}, line {line}: {column} is missing; {fix}")
    if not passes(row[column]):
        raise bad_value(path, line, column, row[column], fix)
    return row[column]
