"""Columns of a trace file as arrays: token counts, times, labels; and which rows are wrong, or mean nothing.

A `Fault` names a row and what to write; the caller knows the row's line in the file.
"""

from __future__ import annotations

import json
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from traces import checks
from traces.lengths import HashIds, Labels

#: Units of time -> how many are a second.
UNITS = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
#: Seconds since 1970 that a number may stand for where nobody says its unit: 2001 to 2286.
_EPOCH_S = (1e9, 1e10)
_ZONE = r"(?i)(Z|UTC|[+-]\d{2}:?\d{2})$"
_NUMBER = r"^[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?$"
_TRUE, _FALSE = ("true", "yes", "1", "high", "important"), ("false", "no", "0", "low")


@dataclass(frozen=True)
class Fault(Exception):
    """The first row whose cell is wrong; row None: it is about all of them."""

    row: int | None
    value: object
    fix: str


def numbers(column: pa.ChunkedArray, fix: str) -> np.ndarray:
    """int64[n] where all are whole numbers as written, else float64[n]. Fault at the first that is none."""
    as_written, kind = column, column.type
    if pa.types.is_dictionary(kind):
        column = pc.cast(column, kind.value_type)
    if pa.types.is_string(column.type) or pa.types.is_large_string(column.type):
        column = _of_text(pc.utf8_trim_whitespace(column), fix)
    elif not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        raise Fault(0, _cell(column, 0), fix)
    _refuse(pc.is_null(column), column, fix)
    values = column.to_numpy().astype(np.int64 if pa.types.is_integer(column.type) else np.float64)
    if values.dtype.kind == "f":
        _refuse(~np.isfinite(values), as_written, fix)
    return np.asarray(values)


def _of_text(column: pa.ChunkedArray, fix: str) -> pa.ChunkedArray:
    for kind in (pa.int64(), pa.float64()):
        try:
            found = pc.cast(column, kind)
            if kind != pa.int64() or not pc.any(pc.match_substring(column, "x", ignore_case=True)).as_py():
                return found  # 0x1F is no number that people mean
        except pa.ArrowInvalid:
            pass
    _refuse(pc.invert(pc.fill_null(pc.match_substring_regex(column, _NUMBER), False)), column, fix)
    return pc.cast(pc.utf8_lower(column), pa.float64())


def _refuse(wrong: object, column: pa.ChunkedArray, fix: str) -> None:
    mask = wrong if isinstance(wrong, np.ndarray) else np.asarray(wrong)
    if mask.any():
        row = int(np.argmax(mask))
        raise Fault(row, _cell(column, row), fix)


def _cell(column: pa.ChunkedArray, row: int) -> object:
    return column[row].as_py() if len(column) > row else None


def tokens(column: pa.ChunkedArray) -> np.ndarray:
    """int64[n] of token counts, 0 included: such rows mean nothing, and the caller drops them."""
    values = numbers(column, checks.COUNT_FIX)
    wrong = (values < 0) | (values > checks.MAX_TOKENS) | (values != np.floor(values))
    _refuse(wrong, column, checks.COUNT_FIX)
    return values.astype(np.int64)


def equals(column: pa.ChunkedArray, value: str) -> np.ndarray:
    """bool[n]: whether a cell is that text."""
    return np.asarray(pc.fill_null(pc.equal(pc.cast(column, pa.string()), value), False))


def conversations(own: Labels, parents: pa.ChunkedArray) -> Labels:
    """Each request's conversation, by the first request of it. own: the request's own name; parents: of the one before,
    which is no request's name where there is none."""
    places = {name: code for code, name in enumerate(own.names)}
    before = np.arange(len(own.names))
    for code, parent in zip(own.codes.tolist(), pc.cast(parents, pa.string()).to_pylist(), strict=True):
        before[code] = places.get(str(parent).strip(), code)
    for _ in range(max(1, int(before.size).bit_length())):  # each time twice as far back
        before = before[before]
    return Labels(before[own.codes].astype(np.int32), own.names)


def is_filled(column: pa.ChunkedArray) -> np.ndarray:
    """bool[n]: whether a cell, such as an error's, says anything."""
    if pa.types.is_null(column.type):
        return np.zeros(len(column), bool)
    if pa.types.is_string(column.type):
        empty = pc.is_in(pc.utf8_trim_whitespace(column), pa.array(["", "null", "None", "[]", "{}"]))
        return ~np.asarray(pc.or_(pc.is_null(column), empty))
    return ~np.asarray(pc.is_null(column))


def seconds(column: pa.ChunkedArray, said: str | None, layout_unit: str | None) -> tuple[np.ndarray, str]:
    """float64[n] of times from any origin, and how their unit is known. said: the unit of numbers, by the user."""
    kind = column.type
    dates = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if dates or (pa.types.is_string(kind) and len(column) and not _starts_as_number(column)):
        if said is not None:
            raise Fault(None, "a date", f"--time-unit {said} is for numbers; leave it out")
        if not dates:
            return _from_ns(_nanoseconds(pc.utf8_trim_whitespace(column))), "ISO 8601"
        _refuse(pc.is_null(column), column, checks.TIME_FIX)
        zone = getattr(kind, "tz", None)
        return _from_ns(np.asarray(pc.cast(pc.cast(column, pa.timestamp("ns", zone)), pa.int64()))), "dates"
    values = numbers(column, checks.SECONDS_FIX)
    _refuse(values < 0, column, checks.SECONDS_FIX)
    since_1970 = _epoch_unit(values)
    unit = said or (layout_unit if layout_unit == since_1970 else None)
    if unit is not None:
        return _scaled(values, UNITS[unit], since_1970), unit
    if layout_unit is not None and (since_1970 is None or UNITS[layout_unit] > UNITS["ms"]):
        return _scaled(values, UNITS[layout_unit], None), layout_unit
    if since_1970 is not None and (layout_unit is None or UNITS[since_1970] > UNITS[layout_unit]):
        return _scaled(values, UNITS[since_1970], since_1970), f"{since_1970} since 1970, by their size"
    raise Fault(None, f"{values.min():g} to {values.max():g}", f"say their unit: --time-unit {'|'.join(UNITS)}")


def _epoch_unit(values: np.ndarray) -> str | None:
    """The unit in which all of them are times between 2001 and 2286."""
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    fits = (unit for unit, per_s in UNITS.items() if low >= _EPOCH_S[0] * per_s and high < _EPOCH_S[1] * per_s)
    return next(fits, None)


def _starts_as_number(column: pa.ChunkedArray) -> bool:
    return bool(pc.match_substring_regex(pc.utf8_trim_whitespace(column[:1].combine_chunks()), _NUMBER)[0].as_py())


def _scaled(values: np.ndarray, per_s: int, since_1970: str | None) -> np.ndarray:
    """Subtracted before divided: float64 seconds since 1970 would lose the last digits."""
    if since_1970 is not None and per_s != 1:
        values = values - values.min()
    return values.astype(np.float64) if per_s == 1 else values / float(per_s)


def _from_ns(values: np.ndarray) -> np.ndarray:
    return (values - values.min()) / 1e9 if values.size else values / 1e9


def _nanoseconds(column: pa.ChunkedArray) -> np.ndarray:
    """int64[n] since 1970 of ISO 8601 times, with or without a zone, but not some with and some without."""
    zoned = np.asarray(pc.fill_null(pc.match_substring_regex(column, _ZONE), False))
    if zoned.any() and not zoned.all():
        _refuse(~zoned, column, "write a zone, as other lines do, such as Z or +01:00")
    try:
        kind = pa.timestamp("ns", "UTC" if zoned.any() else None)
        return np.asarray(pc.cast(pc.cast(column, kind), pa.int64()))
    except pa.ArrowInvalid:  # not the few forms that are fast
        import pandas as pd

        times = pd.to_datetime(column.to_pandas(), format="ISO8601", utc=True, errors="coerce")
        _refuse(times.isna().to_numpy(), column, checks.TIME_FIX)
        return times.dt.tz_localize(None).to_numpy("datetime64[ns]").astype(np.int64)


def labels(column: pa.ChunkedArray, fix: str) -> Labels:
    """Names by row, in the order in which they first appear. Fault at an empty one."""
    text = pc.utf8_trim_whitespace(pc.cast(column, pa.string()))
    _refuse(pc.fill_null(pc.equal(text, ""), True), column, fix)
    coded = text.combine_chunks().dictionary_encode()
    return Labels(np.asarray(coded.indices).astype(np.int32), tuple(coded.dictionary.to_pylist()))


def optional_labels(column: pa.ChunkedArray) -> Labels:
    """The same where a row may have none: it is then alone."""
    text = pc.cast(column, pa.string())
    alone = pa.array([f"row {i}" for i in range(len(text))]) if text.null_count else None
    return labels(text if alone is None else pc.coalesce(text, pa.chunked_array([alone])), "write a name")


def important(column: pa.ChunkedArray) -> np.ndarray:
    """bool[n]: true, yes, 1, high, important; or their opposites."""
    fix = f"write one of {', '.join(_TRUE)}; or {', '.join(_FALSE)}"
    if pa.types.is_boolean(column.type):
        _refuse(pc.is_null(column), column, fix)
        return np.asarray(column)
    text = pc.utf8_lower(pc.utf8_trim_whitespace(pc.cast(column, pa.string())))
    known = pc.is_in(text, pa.array([*_TRUE, *_FALSE]))
    _refuse(pc.invert(known), column, fix)
    return np.asarray(pc.is_in(text, pa.array(_TRUE)))


def hash_ids(column: pa.ChunkedArray) -> HashIds | None:
    """The blocks of each prompt; None where they are no lists of whole numbers."""
    whole, lists = column.combine_chunks(), pa.list_(pa.int64())
    try:
        if pa.types.is_string(whole.type):
            whole = pa.array([json.loads(cell) if cell else [] for cell in whole.to_pylist()], lists)
    except (ValueError, TypeError, pa.ArrowException):
        return None
    is_list = pa.types.is_list(whole.type) or pa.types.is_large_list(whole.type)
    if not is_list or not pa.types.is_integer(whole.type.value_type):
        return None
    counts = np.asarray(pc.fill_null(pc.list_value_length(whole), 0))
    ends = np.concatenate(([0], np.cumsum(counts))).astype(np.int64)
    return HashIds(np.asarray(whole.flatten()).astype(np.int64), ends)
