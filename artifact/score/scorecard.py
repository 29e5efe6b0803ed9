"""A policy's scorecard: one JSON file, which grows cell by cell, so that a stopped run goes on where it was."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from artifact.config import ConfigError
from artifact.results.tables import write_text
from artifact.score.axes import AXES
from artifact.score.suite import Cell

FORMAT = "niyama-scorecard-1"
REFERENCE = Path(__file__).parents[1] / "reference" / "scores"
_ADVICE = "give a file that `score --out` wrote"


@dataclass(frozen=True)
class Scorecard:
    """system: as on the command line; policy_sha256: of the file that it is in, none for a built-in one.

    cells: by name, what `measure` says of each, and the key of what it was made from; failed: why one has no numbers.
    """

    system: str
    policy_sha256: str | None = None
    cells: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    failed: Mapping[str, str] = field(default_factory=dict)

    @property
    def label(self) -> str:
        """The policy's name: of FILE.py:NAME the last part."""
        return self.system.rpartition(":")[2]

    def values(self, cell: str, axis: str) -> list[float] | None:
        """Each seed's value; None where the cell lacks the axis, or was not measured."""
        return self.cells[cell]["axes"].get(axis) if cell in self.cells else None

    def with_cell(self, name: str, found: Mapping[str, Any]) -> Scorecard:
        """With a cell's numbers, or why it has none."""
        cells = {n: c for n, c in self.cells.items() if n != name}
        failed = {n: c for n, c in self.failed.items() if n != name}
        if "error" in found:
            return replace(self, cells=cells, failed=failed | {name: found["error"]})
        return replace(self, cells=cells | {name: found}, failed=failed)

    def kept(self, cells: Iterable[Cell], keys: Mapping[str, str]) -> Scorecard:
        """Only these cells, in their order, and only those that were made from what `keys` says."""
        names = [cell.name for cell in cells]
        own = {n: self.cells[n] for n in names if n in self.cells and self.cells[n]["key"] == keys[n]}
        return replace(self, cells=own, failed={})


def policy_sha256(system: str) -> str | None:
    """Of the file of FILE.py:NAME."""
    file, _, _ = system.rpartition(":")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest() if file and Path(file).is_file() else None


def key_of(cell: Cell, made_by: str, policy: str | None) -> str:
    """What a cell's numbers were made from: cell, code and policy, in one hash."""
    said = json.dumps([cell.model_dump(mode="json", exclude={"about"}), made_by, policy], sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()[:16]


def write(path: Path, card: Scorecard) -> None:
    """Write it, whole or not at all."""
    content: dict[str, Any] = {"format": FORMAT, "system": card.system, "policy_sha256": card.policy_sha256}
    content |= {"cells": card.cells, "failed": card.failed}
    write_text(path, json.dumps(content, indent=1) + "\n")


def read(path: Path) -> Scorecard:
    """A scorecard; ConfigError where the file is none, or has no numbers."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); {_ADVICE}") from None
    except ValueError as error:
        raise ConfigError(f"{path}: is not JSON ({error}); {_ADVICE}") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ConfigError(f"{path}: is no scorecard (format {FORMAT}); {_ADVICE}")
    try:
        card = Scorecard(str(content["system"]), content["policy_sha256"], content["cells"], content["failed"])
        _check(card)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise ConfigError(f"{path}: is a damaged scorecard ({error}); score the policy again") from None
    return card


def _check(card: Scorecard) -> None:
    """ValueError where a cell has no numbers, or an axis that is unknown."""
    for name, cell in card.cells.items():
        seeds = {len(values) for values in cell["axes"].values()}
        if len(seeds) != 1:
            raise ValueError(f"cell {name} has axes of {sorted(seeds)} seeds")
        for axis, values in cell["axes"].items():
            if axis not in AXES:
                raise ValueError(f"cell {name} has axis {axis!r}")
            if not all(isinstance(v, int | float) and v == v for v in values):
                raise ValueError(f"cell {name}: {axis} has a value that is no number")
        for field_name in ("about", "trace", "latency", "predictor", "code", "key"):
            str(cell[field_name])
        float(cell["bound_qps"]), float(cell["load_qps"])


def reference() -> list[Scorecard]:
    """The scorecards that ship: our policies, the paper's baselines, and the peers."""
    return [read(path) for path in sorted(REFERENCE.glob("*.json"))]
