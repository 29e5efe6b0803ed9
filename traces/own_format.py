"""Our own format of a trace: what `python -m traces convert` writes, and every command that takes a trace reads.

One row a request: arrival_s (seconds; absent without times), prompt_tokens, output_tokens, and where the trace has them
qos_class, tenant, session, important, hash_ids. Parquet keeps times exactly, and so do JSON lines.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from traces.errors import TraceError
from traces.files import whole_file
from traces.lengths import Extras, Labels
from traces.trace import Trace

_ROWS_AT_ONCE = 100_000


def table_of(trace: Trace) -> pa.Table:
    """The trace in our columns."""
    columns = {} if trace.arrival_s is None else {"arrival_s": pa.array(trace.arrival_s)}
    columns |= {"prompt_tokens": pa.array(trace.prompt_tokens), "output_tokens": pa.array(trace.output_tokens)}
    return pa.table(columns | columns_of(trace.extras))


def columns_of(more: Extras) -> dict[str, pa.Array]:
    """What is known of the requests in addition, as columns."""
    named = {"qos_class": more.qos_class, "tenant": more.tenant, "session": more.session}
    columns = {name: _text(labels) for name, labels in named.items() if labels is not None}
    if more.important is not None:
        columns["important"] = pa.array(more.important)
    if more.hash_ids is not None:
        columns["hash_ids"] = pa.LargeListArray.from_arrays(more.hash_ids.ends, more.hash_ids.ids)
    return columns


def _text(labels: Labels) -> pa.Array:
    return pa.DictionaryArray.from_arrays(labels.codes, pa.array(labels.names, pa.string())).cast(pa.string())


def write_trace(trace: Trace, path: Path) -> None:
    """Write `path`: .parquet, or .jsonl, that one by .gz or .zst compressed. TraceError for another name."""
    for suffix, write in _WRITERS.items():
        if path.name.endswith(suffix):
            with whole_file(path) as scratch:
                write(table_of(trace), scratch)
            return
    raise TraceError(f"OUT is {str(path)!r}; end it in {', '.join(_WRITERS)}")


def _parquet(table: pa.Table, path: Path) -> None:
    pq.write_table(table, path)


def _json_lines(compression: str | None) -> Callable[[pa.Table, Path], None]:
    def write(table: pa.Table, path: Path) -> None:
        with pa.output_stream(str(path), compression=compression) as stream:
            for start in range(0, len(table), _ROWS_AT_ONCE):
                frame = table.slice(start, _ROWS_AT_ONCE).to_pylist()
                stream.write("".join(f"{json.dumps(row)}\n" for row in frame).encode())

    return write


_WRITERS = {
    ".parquet": _parquet,
    ".jsonl": _json_lines(None),
    ".jsonl.gz": _json_lines("gzip"),
    ".jsonl.zst": _json_lines("zstd"),
}
