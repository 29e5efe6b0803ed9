"""Descriptions of traces that commands are given: files of `trace`, and what a table carries."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifact.config import ConfigError
from artifact.results.tables import ResultError


def read_description(path: Path) -> dict[str, Any]:
    """What the command `trace` wrote; ConfigError for any other file."""
    try:
        found = json.loads(path.read_text())
    except ValueError as error:
        raise ConfigError(f"{path}: is no JSON ({error}); give what `trace --out` wrote") from None
    if not _describes(found):
        raise ConfigError(f"{path}: describes no trace; give what `trace --out` wrote")
    return found


def described_in(path: Path, provenance: Mapping[str, Any]) -> dict[str, Any]:
    """The description of its trace that a table carries; ResultError for a table of another command, without one."""
    if not _describes(provenance.get("trace")):
        raise ResultError(f"{path}: does not describe its trace; give tables that a step of the pipeline wrote")
    return provenance["trace"]


def _describes(found: Any) -> bool:
    return isinstance(found, dict) and isinstance(found.get("trace"), str)
