"""Parts of a table, made by several jobs, joined into one."""

from __future__ import annotations

from pathlib import Path

from artifact.results.code_hash import joined_code
from artifact.results.descriptions import described_in
from artifact.results.tables import joined, provenance, read_table, write_table
from artifact.runs.run import BACKEND


def merge(paths: list[Path], out: Path) -> None:
    """Join tables of one kind; each one's provenance goes along. ResultError when different code made them."""
    parts = [read_table(path, "tables that our commands wrote") for path in paths]
    code = joined_code({str(path): provenance(part).get("code") for path, part in zip(paths, parts, strict=True)})
    sources = {}
    for path, part in zip(paths, parts, strict=True):
        about = provenance(part)
        sources |= about.get("traces", {})
        if "trace" in about:
            source = described_in(path, about)
            sources[source["trace"]] = source
    backends = sorted({provenance(part).get("backend", BACKEND) for part in parts})
    write_table(out, joined(parts), backend=", ".join(backends), traces=sources, **code)
