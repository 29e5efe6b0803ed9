"""docs/TABLES.md: every results table and column, from tables.yaml."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from artifact.results.schema import SCHEMA, load_schema

INTRO = f"""# Results tables

<!-- Written by `python -m artifact tables --page docs/TABLES.md` from artifact/results/{SCHEMA.name}. -->

Parquet files under `results/tables/` (ours: `artifact/reference/tables/`; of vLLM: `artifact/reference/servers/`).
`artifact/results/metrics.py` defines every metric. The metadata holds the provenance: backend, latency model, the
trace's SHA-256, and a hash of each module, card and data file that made the table; a SHA-256 covers it and the values.
A table that was edited is not read, and a table with a column that is not listed here is not written. A null means that
it did not happen, or that no crossing was seen.
"""
RAW = (
    "`simulate --out DIR` writes one run's raw times: `requests.parquet` (every token's time) and `iterations.parquet`."
)


def page() -> str:
    """The page as Markdown."""
    raw = load_schema().raw
    shared = [(f"*{name}*", ", ".join(map(_code, columns))) for name, columns in raw["sets"].items()]
    listed = {_code(name): entry for name, entry in raw["tables"].items()}
    for kind, entry in raw["kinds"].items():
        listed[f"{', '.join(map(_code, entry['names']))}, and any other {kind} of a configuration"] = entry
    tables = [(name, entry["row"], _columns(entry, raw["sets"])) for name, entry in listed.items()]
    parts = [
        INTRO,
        "## Tables\n",
        _markdown(("table", "one row", "columns"), tables),
        f"{RAW}\n",
        "Columns in *italics* are these together:\n",
        _markdown(("together", "columns"), shared),
    ]
    for title, entries in raw["columns"].items():
        rows = [(", ".join(map(_code, e["names"])), e.get("unit", ""), e["type"], e["meaning"]) for e in entries]
        parts += [f"## {title}\n", _markdown(("column", "unit", "type", "meaning"), rows)]
    return "\n".join(parts)


def _columns(entry: Mapping[str, Any], sets: Mapping[str, Any]) -> str:
    return ", ".join(f"*{name}*" if name in sets else _code(name) for name in entry["columns"])


def _code(name: str) -> str:
    return f"`{name}`"


def _markdown(head: Sequence[str], rows: Iterable[Iterable[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)
