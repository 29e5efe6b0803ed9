"""A parquet copy beside a large trace file, because parsing tens of millions of text rows is slow."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from traces.catalog import Entry
from traces.files import whole_file
from traces.lengths import Lengths
from traces.readers import read

log = logging.getLogger(__name__)

MIN_BYTES = 50_000_000  # smaller files parse in less than a second
_FORMAT = 1  # raise it when the readers change what they return
_KEY = b"niyama.parsed"


def read_through_cache(entry: Entry, path: Path, sha256: str, *, min_bytes: int = MIN_BYTES) -> Lengths:
    """As `readers.read`, but a file of at least `min_bytes` is parsed once and then read from
    `<file>.parquet`.

    `sha256` is that of the file at `path`: a copy made from other bytes is not used. A copy that cannot be
    read or written is reported in the log and costs time only. Raises TraceError as `readers.read` does.
    """
    if path.stat().st_size < min_bytes:
        return read(entry, path)
    copy = path.with_name(path.name + ".parquet")
    lengths = _load(copy, sha256) if copy.is_file() else None
    if lengths is not None:
        return lengths
    lengths = read(entry, path)
    try:
        _store(copy, lengths, sha256)
    except OSError as error:
        log.warning("%s could not be written (%s): %s will be parsed again next time", copy, error, path)
    return lengths


def _load(copy: Path, sha256: str) -> Lengths | None:
    """The lengths in `copy`, or None if it was made from other bytes or is damaged."""
    try:
        table = pq.read_table(copy)
    except (OSError, pa.ArrowInvalid) as error:
        log.warning("%s is not readable (%s) and will be rebuilt", copy, error)
        return None
    about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    if about.get("sha256") != sha256 or about.get("format") != _FORMAT:
        return None
    arrays = {name: table[name].to_numpy() for name in table.column_names}
    arrival_s = arrays.get("arrival_s")
    return Lengths(arrays["prompt_tokens"], arrays["output_tokens"], arrival_s, tuple(about["notes"]))


def _store(copy: Path, lengths: Lengths, sha256: str) -> None:
    columns: dict[str, np.ndarray] = {
        "prompt_tokens": lengths.prompt_tokens,
        "output_tokens": lengths.output_tokens,
    }
    if lengths.arrival_s is not None:
        columns["arrival_s"] = lengths.arrival_s
    about = {"sha256": sha256, "format": _FORMAT, "notes": lengths.notes}
    table = pa.table(columns).replace_schema_metadata({_KEY: json.dumps(about)})
    with whole_file(copy) as scratch:
        pq.write_table(table, scratch)
