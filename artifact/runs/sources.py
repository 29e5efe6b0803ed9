"""Traces by name, and what a table says of the one that it was made from."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from traces import Reading, Trace, describe, is_own, load_trace, local_dir_from_env


def trace(name: str, cache_dir: Path = Path("data"), reading: Reading | None = None) -> Trace:
    """A trace by name: local folder of NIYAMA_TRACES, cache, download, or its synthetic trace; or a user's file."""
    said = reading or Reading()
    state = None
    if is_own(name) and (path := Path(name)).is_file():
        state = (path.stat().st_mtime_ns, path.stat().st_size)  # another file of that name is another trace
    return _loaded(name, cache_dir, tuple(said.columns.items()), said.time_unit, said.tokenizer, state)


@cache
def _loaded(
    name: str,
    cache_dir: Path,
    columns: tuple[tuple[str, str], ...],
    time_unit: str | None,
    tokenizer: Path | None,
    state: tuple[int, int] | None,
) -> Trace:
    reading = Reading(dict(columns), time_unit, tokenizer)
    return load_trace(name, local_dir=local_dir_from_env(), cache_dir=cache_dir, reading=reading)


def about(source: Trace) -> dict[str, Any]:
    """What a trace is and its percentiles, for provenance: the same wherever its bytes lay."""
    spread = describe(source)
    return {
        "trace": source.name,
        "source": source.source if source.source in ("synthetic", "file") else "published",
        "sha256": source.sha256,
        "rows": len(source),
        "citation": source.citation,
        "licence": source.licence,
        "notes": list(source.notes),
        **({} if source.understood is None else {"understood": dict(source.understood.about())}),
        "lengths": {name: spread[name] for name in ("prompt_tokens", "output_tokens")},
    }


def describe_trace(name: str) -> dict[str, Any]:
    """`about` the trace of that name."""
    return about(trace(name))
