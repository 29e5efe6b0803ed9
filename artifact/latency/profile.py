"""A profile as arrays: the batches of measured steps and their times, from `python -m artifact profile` or kernels."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from artifact.config import ConfigError
from artifact.latency.kernels import Kernels
from artifact.latency.shapes import ModelShape
from artifact.results import tables
from niyama.latency import Batch
from niyama.vllm.profiling.step_grid import GRIDS, Grid

#: Column of the table -> field of `Batch`, in its order.
COLUMNS = {
    "decodes": "decodes",
    "decode_context_tokens": "decode_context",
    "prefill_tokens": "prefill_tokens",
    "prefill_work": "prefill_work",
    "prefix_tokens": "top_prefix",
}
CELL = ("decodes", "context_tokens", "prefix_tokens")  # steps of a cell differ in their chunk alone
WRITTEN = "what `python -m artifact profile` wrote"
REGIONS = ("all", "decode only", "mixed", "prefill only")


@dataclass(frozen=True)
class Profile:
    """Measured steps. batches: float[step, field of Batch]; seconds, shape and cell: [step], the last two are numbers.

    Repeats of a shape share its number: they are held out together. about: what the table says of its engine.
    """

    batches: np.ndarray
    seconds: np.ndarray
    shape: np.ndarray
    cell: np.ndarray
    about: Mapping[str, Any]

    def batch(self, step: int) -> Batch:
        """One step as the models take it."""
        decodes, context, prefill, work, prefix = self.batches[step]
        return Batch(int(decodes), int(context), int(prefill), float(work), int(prefix))

    def regions(self) -> dict[str, np.ndarray]:
        """Which steps are of decodes alone, of a prompt alone, and of both."""
        decodes, prefill = self.batches[:, 0] > 0, self.batches[:, 2] > 0
        masks = (np.ones(len(self.seconds), bool), ~prefill, decodes & prefill, ~decodes)
        return dict(zip(REGIONS, masks, strict=True))


def read_profile(path: Path) -> Profile:
    """The profile at `path`. ResultError when it cannot be read, ConfigError when it is no profile."""
    table = tables.read_table(path, WRITTEN)
    missing = {*COLUMNS, *CELL, "seconds"} - set(table.column_names)
    if missing:
        raise ConfigError(f"{path}: has no column {', '.join(sorted(missing))}; give {WRITTEN}")
    return profile_of(table.to_pylist(), tables.provenance(table))


def profile_of(rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any]) -> Profile:
    """Rows as `niyama.vllm.profiling.step_times` makes them. ConfigError for too few steps, or times that are none.

    Without the scheduling: an asynchronous engine schedules while the step before runs.
    """
    rows = list(rows)
    seconds = np.array([row["seconds"] - row.get("schedule_s", 0.0) for row in rows], float)
    if len(rows) < 20 or not (np.isfinite(seconds).all() and seconds.min() > 0):
        raise ConfigError(f"the profile has {len(rows)} steps; give at least 20, each with a positive time")
    batches = np.array([[row[column] for column in COLUMNS] for row in rows], float)
    return Profile(batches, seconds, _numbered(rows, (*CELL, "prefill_tokens")), _numbered(rows, CELL), dict(about))


def _numbered(rows: list[Mapping[str, Any]], columns: tuple[str, ...]) -> np.ndarray:
    """The same number for rows with the same values, counted from 0 in the order of appearance."""
    numbers: dict[tuple[Any, ...], int] = {}
    return np.array([numbers.setdefault(tuple(row[c] for c in columns), len(numbers)) for row in rows])


def kernel_rows(shape: ModelShape, grid: Grid = GRIDS["exhaustive"][0]) -> list[dict[str, Any]]:
    """Rows of a profile: the grid's steps that fit the KV memory, by the measured kernels of `shape`, no engine."""
    kernels, rows = Kernels(shape), []
    for decodes, context in grid.cells:
        for prefix, tokens in grid.chunks:
            held = decodes * context + prefix + tokens
            if tokens + decodes == 0 or held > shape.kv_tokens:
                continue
            row = {"decodes": decodes, "decode_context_tokens": decodes * context, "prefill_tokens": tokens}
            row |= {"prefix_tokens": prefix, "prefill_work": tokens * (prefix + 0.5 * tokens)}
            seconds = kernels.step(tokens, prefix, decodes, context)
            rows.append({**row, "seconds": seconds, "context_tokens": context})
    return rows
