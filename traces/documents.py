"""JSON as rows of cells: nested objects, and documents that hold requests in shapes of their own."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from traces.errors import TraceError

#: Of `vllm bench serve`: lists with an element a request.
BENCH_LISTS = ("input_lens", "output_lens", "start_times", "errors")
#: Under which a document's list of requests may lie.
_LISTS = ("requests", "records", "data", "trace", "traces")

Columns = dict[str, pa.ChunkedArray]


def is_json_lines(line: str) -> bool:
    """Whether a first line is a row by itself, and not (the start of) a document."""
    try:
        row = json.loads(line)
    except json.JSONDecodeError:
        return False
    lists = [value for name in (BENCH_LISTS[0], "resourceSpans", *_LISTS) if isinstance(value := row.get(name), list)]
    return not any(value and isinstance(value[0], int | dict) for value in lists)


def flattened(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for name, value in row.items():
        flat |= flattened(value, f"{before}{name}.") if isinstance(value, dict) else {f"{before}{name}": value}
    return flat


def as_text(rows: Iterable[Mapping[str, Any]], wanted: list[str]) -> Columns:
    """Columns of rows as text, numbers as JSON writes them; None where a row has no such cell."""
    cells: dict[str, list[str | None]] = {name: [] for name in wanted}
    for row in rows:
        for name in wanted:
            value = row.get(name)
            cells[name].append(value if isinstance(value, str | None) else json.dumps(value))
    return {name: pa.chunked_array([pa.array(values, pa.string())]) for name, values in cells.items()}


def rows_of_document(path: Path, document: Any) -> list[Mapping[str, Any]]:
    """The requests of one JSON document. TraceError where none are found."""
    if isinstance(document, list) and document and all(isinstance(row, dict) for row in document):
        return list(_spans(document)) if "resourceSpans" in document[0] else document
    if isinstance(document, dict):
        if "resourceSpans" in document:
            return list(_spans([document]))
        if isinstance(document.get(BENCH_LISTS[0]), list):
            return _bench(path, document)
        for name in _LISTS:
            rows = document.get(name)
            if isinstance(rows, list) and rows and all(isinstance(row, dict) for row in rows):
                return rows
        raise TraceError(
            f"{path}: a JSON object with {', '.join(map(str, document))} holds no list of requests under "
            f"{', '.join(_LISTS)}; of `vllm bench serve` the result with --save-detailed has them; else write a list"
        )
    raise TraceError(f"{path}: holds no requests; write a JSON list of objects, or one object a line")


def _bench(path: Path, result: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    lists = {name: result[name] for name in BENCH_LISTS if isinstance(result.get(name), list)}
    if len(lengths := {len(values) for values in lists.values()}) > 1:
        raise TraceError(f"{path}: {', '.join(lists)} have {lengths} elements; all need one for each request")
    return [dict(zip(lists, row, strict=True)) for row in zip(*lists.values(), strict=True)]


def _spans(documents: Iterable[Mapping[str, Any]]) -> Iterator[Mapping[str, Any]]:
    """Spans of OpenTelemetry with their attributes. Those that count no prompt tokens are no requests to a model; those
    that count no output tokens made none, as embeddings and calls that failed."""
    for document in documents:
        for resource in document.get("resourceSpans", ()):
            for scope in resource.get("scopeSpans", ()):
                for span in scope.get("spans", ()):
                    attributes = {a["key"]: _value(a.get("value", {})) for a in span.get("attributes", ())}
                    if "gen_ai.usage.input_tokens" in attributes:
                        own = {"startTimeUnixNano": span.get("startTimeUnixNano"), "gen_ai.usage.output_tokens": 0}
                        yield own | attributes


def _value(value: Mapping[str, Any]) -> Any:
    return next(iter(value.values()), None)
