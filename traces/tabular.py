"""Files of rows as columns: CSV, JSON lines, one JSON document or parquet, compressed or not, told by their bytes.

A column is an arrow array of whatever type the file gives; in CSV all are text. Rows know their line in the file.
"""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.json as pajson
import pyarrow.parquet as pq

from traces.checks import bad_value
from traces.documents import Columns, as_text, flattened, is_json_lines, rows_of_document
from traces.errors import TraceError

_MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"BZh": "bz2", b"\x04\x22\x4d\x18": "lz4"}
_DELIMITERS = ",;\t|"
_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class Tabular:
    """A file whose columns are known and not yet read."""

    path: Path
    names: tuple[str, ...]
    read: Callable[[list[str]], Columns]
    line_of: Callable[[Iterable[int]], list[int]]  # of rows in ascending order
    place: str = "line"  # what a row's number in errors counts


def look_into(path: Path) -> Tabular:
    """See what kind of file it is and which columns it has. TraceError where it has none."""
    try:
        with path.open("rb") as stream:
            start = stream.read(8)
    except IsADirectoryError:
        raise TraceError(f"{path} is a folder; name a file") from None
    if start.startswith(b"PAR1"):
        return _parquet(path)
    head = ""
    with closing(open_text(path)) as text:
        for line in _decoded(path, text):
            if head := line.strip():
                break
    if not head:
        raise TraceError(f"{path} is empty; give a file with rows")
    if head[0] == "[" or (head[0] == "{" and not is_json_lines(head)):
        return _document(path)
    return _json_lines(path) if head[0] == "{" else _csv(path)


def open_bytes(path: Path) -> Any:
    """The file's bytes, decompressed where they say that they are compressed."""
    with path.open("rb") as stream:
        start = stream.read(8)
    kind = next((name for magic, name in _MAGIC.items() if start.startswith(magic)), None)
    raw = pa.OSFile(str(path))
    return raw if kind is None else pa.CompressedInputStream(raw, kind)


def open_text(path: Path) -> TextIO:
    """The file's text, whatever its line ends."""
    return io.TextIOWrapper(io.BufferedReader(open_bytes(path)), encoding="utf-8-sig", newline="")


def _decoded(path: Path, stream: TextIO) -> Iterator[str]:
    try:
        yield from stream
    except UnicodeDecodeError as error:
        raise TraceError(f"{path}: is not UTF-8 text ({error.reason}); save it as UTF-8") from None
    except (OSError, EOFError) as error:
        raise TraceError(f"{path}: cannot be decompressed ({error}); copy it again") from None


def _parquet(path: Path) -> Tabular:
    try:
        schema = pq.read_schema(path)
    except (pa.ArrowInvalid, OSError) as error:
        raise TraceError(f"{path}: is not a readable parquet file ({error}); copy it again") from None
    names = tuple(_leaf_names(schema))

    def read(wanted: list[str]) -> Columns:
        return _flat(pq.read_table(path, columns=sorted({name.split(".")[0] for name in wanted})), wanted)

    return Tabular(path, names, read, lambda rows: [row + 1 for row in rows], "row")


def _leaf_names(fields: Iterable[pa.Field], before: str = "") -> Iterator[str]:
    for one in fields:
        if pa.types.is_struct(one.type):
            yield from _leaf_names(one.type, f"{before}{one.name}.")
        else:
            yield f"{before}{one.name}"


def _flat(table: pa.Table, wanted: list[str]) -> Columns:
    """Columns by dotted name; one that is absent everywhere is left out."""
    while any(pa.types.is_struct(column.type) for column in table.columns):
        table = table.flatten()
    return {name: table[name] for name in wanted if name in table.column_names}


def _csv(path: Path) -> Tabular:
    with closing(open_text(path)) as stream:
        at, first = next((i, line) for i, line in enumerate(_decoded(path, stream), start=1) if line.strip())
    delimiter = max(_DELIMITERS, key=first.count)
    names = [cell.strip() for cell in next(csv.reader([first.strip()], delimiter=delimiter))]
    if all(_is_value(cell) for cell in names):  # no header: columns are called by their number
        names, at = [str(i + 1) for i in range(len(names))], at - 1
    if len(set(names)) < len(names):
        raise TraceError(f"{path}, line {at}: a column's name stands there twice: {', '.join(names)}; rename one")

    def read(wanted: list[str]) -> Columns:
        return _csv_columns(path, names, delimiter, at, wanted)

    def line_of(rows: Iterable[int]) -> list[int]:
        return _lines_of((line for line, _ in _csv_rows(path, delimiter) if line > at), rows)

    return Tabular(path, tuple(names), read, line_of)


def _is_value(cell: str) -> bool:
    """Whether a first row's cell is no name."""
    return bool(cell) and (cell[0].isdigit() or cell[0] in "+-.")


def _csv_columns(path: Path, names: list[str], delimiter: str, header_line: int, wanted: list[str]) -> Columns:
    """The wanted columns as text; header_line: 0 without a header."""
    convert = pacsv.ConvertOptions(
        column_types=dict.fromkeys(names, pa.string()), include_columns=wanted, strings_can_be_null=False
    )
    options = pacsv.ReadOptions(column_names=names, skip_rows=header_line, block_size=_BLOCK_BYTES)
    for quoted_newlines in (False, True):  # to allow for them costs all cores but one
        parse = pacsv.ParseOptions(delimiter=delimiter, newlines_in_values=quoted_newlines)
        try:
            table = pacsv.read_csv(open_bytes(path), options, parse, convert)
            return {name: table[name] for name in wanted}
        except (pa.ArrowInvalid, OSError) as error:
            fault = _first_odd_row(path, len(names), delimiter)
            if fault is not None or quoted_newlines:
                why = TraceError(f"{path}: is not a readable CSV file ({error}); correct it")
                raise fault or why from None
    raise AssertionError("unreachable")


def _csv_rows(path: Path, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Line and cells of each row, the header's included; blank lines are none."""
    with closing(open_text(path)) as stream:
        rows = csv.reader(_decoded(path, stream), delimiter=delimiter)
        yield from ((rows.line_num, cells) for cells in rows if cells)


def _first_odd_row(path: Path, columns: int, delimiter: str) -> TraceError | None:
    for line, cells in _csv_rows(path, delimiter):
        if len(cells) != columns:
            text = delimiter.join(cells)[:80]
            return bad_value(
                path, line, f"row of {len(cells)} cells", text, f"write {columns} cells or delete the line"
            )
    return None


def _lines_of(lines: Iterator[int], rows: Iterable[int]) -> list[int]:
    """The lines of these rows, in ascending order, out of those of all rows."""
    found, line, at = [], 0, -1
    for row in rows:
        while at < row:
            line, at = next(lines), at + 1
        found.append(line)
    return found


def _text_lines(path: Path) -> Iterator[tuple[int, str]]:
    with closing(open_text(path)) as stream:
        yield from ((i, line) for i, line in enumerate(_decoded(path, stream), start=1) if line.strip())


def _json_lines(path: Path) -> Tabular:
    def line_of(rows: Iterable[int]) -> list[int]:
        return _lines_of((line for line, _ in _text_lines(path)), rows)

    try:  # whole, because a column may first stand in the last line
        table = pajson.read_json(open_bytes(path), pajson.ReadOptions(block_size=_BLOCK_BYTES))
        return Tabular(path, tuple(_leaf_names(table.schema)), lambda wanted: _flat(table, wanted), line_of)
    except (pa.ArrowInvalid, OSError):  # not JSON, or a column whose values are of several types
        rows = [flattened(_json_row(path, line, text)) for line, text in _text_lines(path)]
        names = dict.fromkeys(name for row in rows for name in row)
        return Tabular(path, tuple(names), lambda wanted: as_text(rows, wanted), line_of)


def _json_row(path: Path, line: int, text: str) -> dict[str, Any]:
    try:
        row = json.loads(text)
    except json.JSONDecodeError as error:
        raise bad_value(path, line, "row", text.strip()[:80], f"write one JSON object ({error.msg})") from None
    if not isinstance(row, dict):
        raise bad_value(path, line, "row", row, "write one JSON object")
    return row


def _document(path: Path) -> Tabular:
    with closing(open_text(path)) as stream:
        text = "".join(_decoded(path, stream))
    try:
        document = json.loads(text)
    except json.JSONDecodeError as error:
        if error.msg == "Extra data":  # several documents, one a line, as an OpenTelemetry collector writes them
            document = [_json_row(path, line, part) for line, part in _text_lines(path)]
        else:
            fix = "write one JSON document, or one object a line"
            raise TraceError(f"{path}, line {error.lineno}: is not JSON ({error.msg}); {fix}") from None
    rows = [flattened(row) for row in rows_of_document(path, document)]
    names = dict.fromkeys(name for row in rows for name in row)
    return Tabular(path, tuple(names), lambda wanted: as_text(rows, wanted), lambda at: [i + 1 for i in at], "request")
