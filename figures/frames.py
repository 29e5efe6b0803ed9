"""What figures need from tables: checked columns, the variants present, and means with their intervals."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from figures.estimates import Estimate, estimate, floats

Tables = Mapping[str, pd.DataFrame]

CRITERION_PAPER = "violation_rate_without_tbt"  # TTFT and TTLT only: what the authors' scripts measure
CRITERION_ALL = "violation_rate"  # token deadlines (Eq 2) counted too
CAPACITY_COLUMNS = (
    "trace",
    "system",
    "latency",
    "predictor",
    "requests",
    "seeds",
    "criterion",
    "run_length",
    "capacity_qps_per_replica",
    "interval_low_qps",
    "interval_high_qps",
    "passes_qps",
    "fails_qps",
    "fluid_bound_qps",
    "replicas",
    "seed_capacity_qps",
)
RUN_COLUMNS = ("trace", "system", "latency", "predictor", "load_qps", "requests", "seed", "group")
#: Of a table of named searches: `variant` in place of `run_length`.
SEARCH_COLUMNS = (*(column for column in CAPACITY_COLUMNS if column != "run_length"), "variant")


class FigureError(ValueError):
    """A table or a column that a figure needs is not there; says which."""


@dataclass(frozen=True)
class Variant:
    """One drawing of a figure: a latency model and, unless the figure shows all of them, a trace."""

    latency: str
    trace: str | None = None

    @property
    def slug(self) -> str:
        """Its part of a file name."""
        return f"{self.trace}-{self.latency}" if self.trace else self.latency

    def rows(self, frame: pd.DataFrame) -> pd.DataFrame:
        """The rows of `frame` that belong to it."""
        mask = frame["latency"] == self.latency
        if self.trace is not None:
            mask &= frame["trace"] == self.trace
        return frame[mask]


def require(tables: Tables, name: str, columns: Iterable[str]) -> pd.DataFrame:
    """The table called `name`, which must have these columns and at least one row. Raises FigureError."""
    if name not in tables:
        have = ", ".join(sorted(tables)) or "none"
        raise FigureError(f"table {name!r} is missing (given: {have}); run the step that writes {name}.parquet")
    missing = [column for column in columns if column not in tables[name].columns]
    if missing:
        raise FigureError(f"table {name!r} has no column {', '.join(map(repr, missing))}; it is of another version")
    if tables[name].empty:
        raise FigureError(f"table {name!r} has no rows")
    return tables[name]


def joined(tables: Tables, names: Iterable[str], columns: Iterable[str]) -> pd.DataFrame:
    """The rows of several tables with these columns, of the traces and latency models that the last one has."""
    wanted = list(dict.fromkeys(columns))
    parts = [require(tables, name, wanted) for name in names]
    whole = pd.concat([part[[*wanted, "backend"]] for part in parts], ignore_index=True)
    shown = parts[-1][["trace", "latency"]].drop_duplicates()
    return whole.merge(shown, on=["trace", "latency"])


def beside_plain(tables: Tables, name: str, label: str) -> pd.DataFrame:
    """A table of named searches, after the rows of `capacity` for the same systems, called `label`: the plain case."""
    own = require(tables, name, SEARCH_COLUMNS)
    plain = require(tables, "capacity", CAPACITY_COLUMNS)
    plain = plain[plain["run_length"] == "paper"].drop(columns="run_length").assign(variant=label)
    keys = ["trace", "latency", "system"]
    wanted = [*SEARCH_COLUMNS, "backend"]
    return pd.concat([plain.merge(own[keys].drop_duplicates(), on=keys)[wanted], own[wanted]], ignore_index=True)


def latencies(frame: pd.DataFrame) -> list[Variant]:
    """One variant per latency model, in table order."""
    return [Variant(str(latency)) for latency in frame["latency"].unique()]


def traces_and_latencies(frame: pd.DataFrame) -> list[Variant]:
    """One variant per pair of trace and latency model, in table order."""
    pairs = frame[["latency", "trace"]].drop_duplicates()
    return [Variant(str(latency), str(trace)) for latency, trace in pairs.itertuples(index=False)]


def estimate_of_log(values: Any) -> Estimate | None:
    """Geometric mean and the interval of the mean logarithm: for positive values on a logarithmic axis."""
    numbers = floats(values)
    found = estimate(np.log(numbers, out=np.full(len(numbers), np.nan), where=numbers > 0))
    if found is None:
        return None
    low, high = (None if v is None else math.exp(v) for v in (found.low, found.high))
    return Estimate(math.exp(found.mean), low, high)


def columns(name: str, found: Estimate | None) -> dict[str, float]:
    """Mean, low and high as columns `name`, `name`_low and `name`_high; nan where there is none."""
    triple = (found.mean, found.low, found.high) if found else (None, None, None)
    return {f"{name}{end}": math.nan if v is None else v for end, v in zip(("", "_low", "_high"), triple, strict=True)}


def by_load(frame: pd.DataFrame, column: str, how=estimate) -> Iterator[tuple[float, Estimate]]:
    """Load and estimate over seeds, by rising load; loads without a value are left out."""
    for load, rows in frame.groupby("load_qps", sort=True):
        found = how(rows[column])
        if found is not None:
            yield float(load), found
