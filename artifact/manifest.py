"""Which results tables there are: `tables/manifest.json`, written when the pipeline ends and checked by `verify`.

Every table carries the digest of its content (`tables.write_table`), which tells an edited value. The manifest tells a
table that is gone or was exchanged, and comparing two manifests compares two runs byte for byte.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from artifact.tables import ResultError, read_table, write_text

MANIFEST = Path("tables", "manifest.json")
AGAIN = "run `snakemake --cores all` to make it again"


def write_manifest(results: Path, tables: Iterable[Path]) -> Path:
    """List the tables, which lie somewhere under `results`. ResultError when one is not whole."""
    entries = {}
    for path in sorted(tables):
        rows = read_table(path).num_rows
        entries[path.stem] = {"path": path.relative_to(results).as_posix(), "sha256": _sha256(path), "rows": rows}
    path = results / MANIFEST
    write_text(path, json.dumps(entries, indent=1, sort_keys=True) + "\n")
    return path


def read_manifest(results: Path) -> dict[str, dict[str, object]]:
    """The entries by table name. ResultError when there is no manifest or it cannot be one."""
    path = results / MANIFEST
    try:
        entries = json.loads(path.read_text())
        for entry in entries.values():
            entry["path"], entry["sha256"]
    except OSError:
        raise ResultError(f"{path}: is missing; {AGAIN}") from None
    except (ValueError, AttributeError, KeyError, TypeError):
        raise ResultError(f"{path}: is damaged; delete it and {AGAIN}") from None
    return entries


def problems(results: Path) -> dict[str, str]:
    """Tables that are not what the manifest lists, by name: missing, truncated, edited or exchanged."""
    found = {}
    for name, entry in read_manifest(results).items():
        path = results / str(entry["path"])
        try:
            read_table(path)
        except ResultError as error:
            found[name] = str(error)
            continue
        if _sha256(path) != entry["sha256"]:
            found[name] = f"{path}: is not the file that the manifest lists; delete it and {AGAIN}"
    return found


def table_path(results: Path, name: str, elsewhere: Mapping[str, str]) -> Path:
    """Where a table is: where the manifest says; else, for one that was made by itself, `elsewhere` or in tables/."""
    entry = read_manifest(results).get(name)
    return results / str(entry["path"] if entry else elsewhere.get(name, f"tables/{name}.parquet"))


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
