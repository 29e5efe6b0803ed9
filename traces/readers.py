"""Readers: from the bytes of a published trace to validated arrays of lengths and arrival times."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pacsv

from traces import checks
from traces.catalog import Entry
from traces.errors import TraceError
from traces.lengths import Lengths, require_lengths


@dataclass(frozen=True)
class _CsvLayout:
    """Which columns of a CSV trace mean what."""

    prompt: str
    output: str
    time: str | None
    time_kind: Literal["iso", "seconds", "none"]
    zero_output_is_failure: bool = False


_CSV_LAYOUTS = {
    "azure-csv": _CsvLayout("ContextTokens", "GeneratedTokens", "TIMESTAMP", "iso"),
    "sharegpt-csv": _CsvLayout("num_prefill_tokens", "num_decode_tokens", None, "none"),
    # Both column layouts of BurstGPT (with and without session columns) share these names.
    "burstgpt-csv": _CsvLayout("Request tokens", "Response tokens", "Timestamp", "seconds", True),
}


def read(entry: Entry, path: Path | str) -> Lengths:
    """Read the file at `path` in the format of `entry`.

    Raises TraceError naming file, line (from 1), column, value and fix for the first bad row, and for a data
    set whose rows are not token lengths.
    """
    require_lengths(entry)
    if entry.reader in _CSV_LAYOUTS:
        return _read_csv(Path(path), _CSV_LAYOUTS[entry.reader])
    return _read_mooncake(Path(path))


def _read_csv(path: Path, layout: _CsvLayout) -> Lengths:
    try:
        table = _arrow_table(path, layout)
        clean = all(column.null_count == 0 for column in table.columns)
        table, dropped = _drop_failures(table, layout) if clean else (table, 0)
        clean = clean and _values_are_valid(table, layout)
    except pa.ArrowInvalid as error:
        raise _first_fault(path, layout) or TraceError(f"{path}: not a readable CSV file ({error})") from None
    if not clean:
        raise _first_fault(path, layout) or TraceError(f"{path}: has an empty or invalid cell; fetch it again")
    if table.num_rows == 0:
        raise TraceError(f"{path}: has no usable rows ({dropped} dropped as failures); fetch it again")
    notes = (f"{dropped} failed requests (0 output tokens) dropped",) if dropped else ()
    prompt = _values(table[layout.prompt]).astype(np.int32)
    output = _values(table[layout.output]).astype(np.int32)
    return _in_time_order(prompt, output, _seconds(table, layout), notes)


def _arrow_table(path: Path, layout: _CsvLayout) -> pa.Table:
    """The needed columns, typed. pyarrow reads 17 million rows in seconds, with no Python object per cell."""
    with path.open(encoding="utf-8-sig", newline="") as stream:
        rows = csv.reader(stream)
        header = next(rows, [])
        first = next(rows, [])
    types = {layout.prompt: pa.int64(), layout.output: pa.int64()}
    if layout.time is not None:
        types[layout.time] = pa.float64()
    missing = [name for name in types if name not in header]
    if missing:
        raise TraceError(f"{path}, line 1: header {header} lacks {missing}; this is not the expected file")
    if layout.time_kind == "iso" and layout.time is not None:
        sample = dict(zip(header, first, strict=False)).get(layout.time, "")
        zone = "UTC" if sample.endswith(("Z", "+00:00")) else None  # 2024 rows carry a zone, 2023 rows do not
        types[layout.time] = pa.timestamp("ns", zone)
    return pacsv.read_csv(
        path,
        parse_options=pacsv.ParseOptions(ignore_empty_lines=False),
        convert_options=pacsv.ConvertOptions(column_types=types, include_columns=list(types)),
    )


def _drop_failures(table: pa.Table, layout: _CsvLayout) -> tuple[pa.Table, int]:
    if not layout.zero_output_is_failure:
        return table, 0
    kept = table.filter(pc.not_equal(table[layout.output], 0))
    return kept, table.num_rows - kept.num_rows


def _values(column: pa.ChunkedArray) -> np.ndarray:
    """A column of numbers without nulls, from its memory: pyarrow's own conversion imports pandas, half a second."""
    whole = pa.concat_arrays(column.chunks) if column.num_chunks else pa.nulls(0, column.type)
    start = whole.offset
    values = np.frombuffer(whole.buffers()[1] or b"", whole.type.to_pandas_dtype())
    return values[start : start + len(whole)]


def _values_are_valid(table: pa.Table, layout: _CsvLayout) -> bool:
    for name in (layout.prompt, layout.output):
        values = _values(table[name])
        if values.size and (values.min() < 1 or values.max() > checks.MAX_TOKENS):
            return False
    return layout.time_kind != "seconds" or bool(np.isfinite(_values(table[layout.time])).all())


def _first_fault(path: Path, layout: _CsvLayout) -> TraceError | None:
    tests = {
        layout.prompt: (checks.is_count_text, checks.COUNT_FIX),
        layout.output: (checks.is_count_text, checks.COUNT_FIX),
    }
    if layout.time is not None:
        iso = layout.time_kind == "iso"
        time_test = (checks.is_time_text, checks.TIME_FIX) if iso else (checks.is_seconds_text, checks.SECONDS_FIX)
        tests = {layout.time: time_test, **tests}
    failed = (lambda row: row[layout.output] == "0") if layout.zero_output_is_failure else (lambda row: False)
    return checks.csv_fault(path, tests, failed)


def _seconds(table: pa.Table, layout: _CsvLayout) -> np.ndarray | None:
    """Arrival times as float64 seconds, from any origin; the caller moves it to 0."""
    if layout.time is None:
        return None
    if layout.time_kind == "seconds":
        return _values(table[layout.time])
    nanoseconds = _values(pc.cast(table[layout.time], pa.int64()))
    # Subtract before dividing: float64 seconds since 1970 would lose the last digits.
    return (nanoseconds - nanoseconds.min()) / 1e9


def _in_time_order(
    prompt: np.ndarray, output: np.ndarray, time_s: np.ndarray | None, notes: tuple[str, ...]
) -> Lengths:
    if time_s is None:
        return Lengths(prompt, output, None, notes)
    late = int(np.count_nonzero(np.diff(time_s) < 0))
    if late:
        order = np.argsort(time_s, kind="stable")
        prompt, output, time_s = prompt[order], output[order], time_s[order]
        notes = (*notes, f"{late} rows came before their predecessor in time: sorted by timestamp")
    return Lengths(prompt, output, time_s - time_s[0], notes)


def _read_mooncake(path: Path) -> Lengths:
    prompt, output, time_s = [], [], []
    for line, row in checks.json_rows(path):
        time_s.append(checks.json_cell(path, line, row, "timestamp", checks.is_seconds, checks.SECONDS_FIX) / 1e3)
        prompt.append(checks.json_cell(path, line, row, "input_length", checks.is_count, checks.COUNT_FIX))
        output.append(checks.json_cell(path, line, row, "output_length", checks.is_count, checks.COUNT_FIX))
    if not prompt:
        raise TraceError(f"{path}: has no rows; fetch it again")
    return _in_time_order(np.array(prompt, np.int32), np.array(output, np.int32), np.array(time_s, np.float64), ())
