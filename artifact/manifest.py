"""Which results tables there are: `tables/manifest*.json`, written when the pipeline ends and checked by `verify`.

Every table carries the digest of its content (`tables.write_table`), which tells an edited value. A manifest tells a
table that is gone or was exchanged, and comparing two of them compares two runs byte for byte. The default target and
`paper` write one each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path

from artifact.tables import ResultError, read_table, write_text

PATTERN = "tables/manifest*.json"
AGAIN = "run `snakemake --cores all` to make it again"


def write_manifest(results: Path, out: Path, tables: Iterable[Path]) -> None:
    """List the tables, which lie somewhere under `results`, in the file `out`. ResultError when one is not whole."""
    entries = {}
    for path in sorted(tables):
        rows = read_table(path).num_rows
        entries[path.stem] = {"path": path.relative_to(results).as_posix(), "sha256": _sha256(path), "rows": rows}
    write_text(out, json.dumps(entries, indent=1, sort_keys=True) + "\n")


def read_manifests(results: Path) -> dict[str, dict[str, object]]:
    """The entries by table name. ResultError when there is no manifest or one is damaged."""
    entries, files = {}, sorted(results.glob(PATTERN))
    if not files:
        raise ResultError(f"{results / PATTERN}: is missing; {AGAIN}")
    for path in files:
        try:
            own = json.loads(path.read_text())
            entries |= {name: {"path": entry["path"], "sha256": entry["sha256"]} for name, entry in own.items()}
        except (ValueError, AttributeError, KeyError, TypeError):
            raise ResultError(f"{path}: is damaged; delete it and {AGAIN}") from None
    return entries


def problems(results: Path) -> dict[str, str]:
    """Tables that are not what the manifest lists, by name: missing, truncated, edited or exchanged."""
    found = {}
    for name, entry in read_manifests(results).items():
        path = results / str(entry["path"])
        try:
            read_table(path)
        except ResultError as error:
            found[name] = str(error)
            continue
        if _sha256(path) != entry["sha256"]:
            found[name] = f"{path}: is not the file that the manifest lists; delete it and {AGAIN}"
    return found


def table_path(results: Path, name: str, path: str | None = None) -> Path:
    """Where a table is: where the manifest says; else, for one that was made by itself, at `path` or in tables/."""
    entry = read_manifests(results).get(name)
    return results / str(entry["path"] if entry else path or f"tables/{name}.parquet")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
