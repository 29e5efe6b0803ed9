"""Traces by name, and what a table says of the one that it was made from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from traces import Trace, describe, load_trace, local_dir_from_env


@cache
def trace(name: str, cache_dir: Path = Path("data")) -> Trace:
    """A trace by name: local folder of NIYAMA_TRACES, cache, download, or its synthetic trace."""
    return load_trace(name, local_dir=local_dir_from_env(), cache_dir=cache_dir)


def about(source: Trace) -> dict[str, Any]:
    """What a trace is and its percentiles, for provenance: the same wherever its bytes lay."""
    spread = describe(source)
    return {
        "trace": source.name,
        "source": "synthetic" if source.source == "synthetic" else "published",
        "sha256": source.sha256,
        "rows": len(source),
        "citation": source.citation,
        "licence": source.licence,
        "notes": list(source.notes),
        "lengths": {name: spread[name] for name in ("prompt_tokens", "output_tokens")},
    }


def describe_trace(name: str) -> dict[str, Any]:
    """`about` the trace of that name."""
    return about(trace(name))
