"""Workloads on disk: parquet (exact, with its specification) and Mooncake-style JSONL (for other tools)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from traces.errors import TraceError
from traces.files import whole_file
from traces.lengths import Extras
from traces.workload import Workload, WorkloadSpec, parse_spec

_KEY = b"niyama.workload"
_FORMAT = 1
_COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "qos_class", "important")
_FACTS = ("trace_name", "trace_source", "trace_sha256", "trace_rows_dropped")


def write_workload(workload: Workload, path: Path | str) -> None:
    """Write parquet at `path`: one row per request, all else as JSON under the key `niyama.workload`."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from traces.own_format import columns_of

    about = {name: getattr(workload, name) for name in _FACTS}
    about["format"] = _FORMAT
    about["class_names"] = workload.class_names
    about["spec"] = None if workload.spec is None else _dumped(workload.spec)
    table = pa.table({name: getattr(workload, name) for name in _COLUMNS} | columns_of(workload.extras))
    with whole_file(Path(path)) as scratch:
        pq.write_table(table.replace_schema_metadata({_KEY: json.dumps(about)}), scratch)


def _dumped(spec: WorkloadSpec) -> dict[str, Any]:
    """Without the fields that came later, where they say nothing: files stay as they were."""
    later = {name for name in ("too_long", "rules") if getattr(spec, name) == WorkloadSpec.model_fields[name].default}
    return spec.model_dump(mode="json", exclude=later)


def is_workload(path: Path | str) -> bool:
    """Whether `write_workload` wrote it, and not another parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        return _KEY in (pq.read_schema(path).metadata or {})
    except (pa.ArrowInvalid, OSError):
        return False


def read_workload(path: Path | str) -> Workload:
    """The workload that `write_workload` wrote, bit for bit. Raises TraceError for any other file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (pa.ArrowInvalid, FileNotFoundError) as error:
        raise TraceError(f"{path} is not a readable parquet file ({error}); write it again") from None
    about = json.loads((table.schema.metadata or {}).get(_KEY, b"{}"))
    if about.get("format") != _FORMAT:
        raise TraceError(f"{path}: workload format is {about.get('format')!r}, not {_FORMAT}; write it again")
    return Workload(
        **{name: table[name].to_numpy() for name in _COLUMNS},
        class_names=tuple(about["class_names"]),
        spec=None if about["spec"] is None else parse_spec(about["spec"]),
        **{name: about[name] for name in _FACTS},
        extras=_extras(table),
    )


def _extras(table: Any) -> Extras:
    from traces import cells

    named: dict[str, Any] = {
        name: cells.optional_labels(table[name]) for name in ("tenant", "session") if name in table.column_names
    }
    return Extras(**named, hash_ids=cells.hash_ids(table["hash_ids"]) if "hash_ids" in table.column_names else None)


def write_jsonl(workload: Workload, path: Path | str) -> None:
    """Write one JSON object per request, for tools that read Mooncake traces.

    Fields: timestamp (ms, to the nanosecond), input_length and output_length (tokens), qos_class (its name),
    important.
    """
    names = workload.class_names
    columns = (getattr(workload, name).tolist() for name in _COLUMNS)
    with whole_file(Path(path)) as scratch, scratch.open("w", encoding="utf-8") as stream:
        for arrival_s, prompt, output, qos_class, important in zip(*columns, strict=True):
            row = {
                "timestamp": round(arrival_s * 1e3, 6),
                "input_length": prompt,
                "output_length": output,
                "qos_class": names[qos_class],
                "important": important,
            }
            stream.write(json.dumps(row) + "\n")
