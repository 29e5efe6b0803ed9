"""Which results tables there are: `tables/manifest*.json`, written when the pipeline ends and checked by `verify`.

Every table carries the digest of its content (`tables.write_table`), which tells an edited value. A manifest tells a
table that is gone or was exchanged, and comparing two of them compares two runs byte for byte. The default target and
`paper` write one each.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from artifact.results.code_hash import changed_since, mixed
from artifact.results.data_hash import Code
from artifact.results.tables import ResultError, provenance, read_table, write_text

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
    entries: dict[str, dict[str, object]] = {}
    files = sorted(results.glob(PATTERN))
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
    """What is wrong, by name of the table or folder: tables that are not what the manifest lists (missing, truncated,
    edited, exchanged), and folders whose tables were made by different code."""
    found: dict[str, str] = {}
    codes: dict[str, dict[str, Code | None]] = {}
    for name, entry in read_manifests(results).items():
        path = results / str(entry["path"])
        try:
            code = provenance(read_table(path)).get("code")
        except ResultError as error:
            found[name] = str(error)
            continue
        if _sha256(path) != entry["sha256"]:
            found[name] = f"{path}: is not the file that the manifest lists; delete it and {AGAIN}"
            continue
        codes.setdefault(path.parent.name, {})[name] = code
    return found | {folder: text for folder, own in codes.items() if (text := _mixture(results / folder, own))}


def _mixture(folder: Path, codes: Mapping[str, Code | None]) -> str | None:
    """What to say of tables that stand in one folder and were made by different code; None when they were not."""
    if not (modules := mixed(codes.values())):
        return None
    older = [name for name, code in codes.items() if code and changed_since(code)]
    return (
        f"{folder}: holds tables made by different code ({named(modules)}), those of other code than this checkout's: "
        f"{', '.join(older)}; delete them and {AGAIN.replace('it', 'them')}"
    )


def made_elsewhere(results: Path) -> dict[str, list[str]]:
    """Names of tables that other code than this checkout's made, or that do not say, by what there is to say."""
    found: dict[str, list[str]] = {}
    for name, entry in read_manifests(results).items():
        with suppress(ResultError):  # `problems` tells
            if text := other_code(provenance(read_table(results / str(entry["path"])))):
                found.setdefault(text, []).append(name)
    return found


def other_code(about: Mapping[str, Any]) -> str:
    """How the code that made a table differs from this checkout's; empty when it does not."""
    if "code" not in about:
        return "the code that made it is not recorded"
    modules = changed_since(about["code"])
    return f"made by other code than this checkout's: {named(modules)} differ" if modules else ""


def named(modules: Sequence[str], most: int = 5) -> str:
    """The first modules, and how many more."""
    return ", ".join(modules[:most]) + (f" and {len(modules) - most} more" if len(modules) > most else "")


def table_path(results: Path, name: str, path: str | None = None) -> Path:
    """Where a table is: where the manifest says; else, for one that was made by itself, at `path` or in tables/."""
    entry = read_manifests(results).get(name)
    return results / str(entry["path"] if entry else path or f"tables/{name}.parquet")


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
