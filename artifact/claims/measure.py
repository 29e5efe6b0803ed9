"""From a results table to the number that a claim is about: rows, a value per seed, a mean with its interval."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from artifact.claims.model import Claim, Filters, Measure
from artifact.results.tables import ResultError
from figures.frames import estimate
from figures.style import SYNTHETIC

#: How two values of one seed become one.
COMBINE: Mapping[str, Callable[[float, float], float]] = {
    "ratio": lambda of, against: of / against if against else math.nan,
    "difference": lambda of, against: of - against,
    "fewer": lambda of, against: 1.0 - of / against if against else math.nan,
    "more": lambda of, against: of / against - 1.0 if against else math.nan,
}
#: How the rows of one seed become one value; `only` and `same` are about how many there may be.
REDUCE: Mapping[str, Callable[[np.ndarray], float]] = {"mean": np.mean, "max": np.max, "min": np.min}
SHARES = ("%", "points")  # tables hold shares, people read percent
LOOKED_AT = ("seed", "busy", "requests", "trace", "latency")  # columns, in addition to those that a measure names
ONCE = None  # in place of a seed, for a value that does not depend on one


class NotMeasured(Exception):
    """The table does not hold what the claim is about; says what is missing."""


@dataclass(frozen=True)
class Measured:
    """The claim's number in its unit, with the 95 % interval over seeds (null: fewer than two), and what it is from."""

    value: float
    low: float | None
    high: float | None
    seeds: int
    requests: int | None  # of the shortest run
    traces: tuple[str, ...]
    latencies: tuple[str, ...]


def scale(claim: Claim) -> float:
    """From the table's number to the claim's unit."""
    return 100.0 if claim.unit in SHARES else 1.0


def combine(measure: Measure, of: float, against: float | None) -> float:
    """The measure's number from its two sides; the paper's printed numbers go through the same."""
    return of if against is None else COMBINE[measure.combine](of, against)


def measure(frame: pd.DataFrame, claim: Claim, override: Filters | None = None) -> Measured:
    """Compute the claim's number. NotMeasured where rows or values are missing; ResultError for a missing column."""
    what = claim.measure
    sides = [what.of] if what.against is None else [what.of, what.against]
    chosen = [_rows(frame, claim, what.filters(side, override)) for side in sides]
    if any(rows["busy"].eq(True).any() for rows in chosen if "busy" in rows):
        raise NotMeasured("the machine was too busy: the load client itself was late, so measure again on a quiet one")
    columns = [what.column, what.against_column or what.column][: len(sides)]
    values = [_by_seed(rows, what, column) for rows, column in zip(chosen, columns, strict=True)]
    seeds = _shared_seeds(values)
    pairs = [[by_seed.get(seed, by_seed.get(ONCE)) for by_seed in values] for seed in seeds]
    numbers = np.array([combine(what, *pair, *[None] * (2 - len(pair))) for pair in pairs]) * scale(claim)
    if not np.isfinite(numbers).all():
        without = [str(seed) for seed, number in zip(seeds, numbers, strict=True) if not math.isfinite(number)]
        raise NotMeasured(f"no value at seed {', '.join(without)}: nothing was seen to cross, or there was nothing")
    found, used = estimate(numbers), pd.concat(chosen)
    return Measured(
        float(numbers.mean()),
        found.low,
        found.high,
        len(numbers) if seeds != [ONCE] else _most_seeds(used),
        int(used["requests"].min()) if "requests" in used else None,
        *(tuple(dict.fromkeys(map(str, used[name]))) if name in used else () for name in ("trace", "latency")),
    )


def _rows(frame: pd.DataFrame, claim: Claim, filters: Filters) -> pd.DataFrame:
    """The rows that meet every filter and come from the claim's backend, with the columns that are looked at."""
    kept = np.ones(len(frame), dtype=bool)
    backend = {"backend": claim.backend} if "backend" in frame else {}
    for column, wanted in {**backend, **filters}.items():
        if column not in frame:
            raise ResultError(f"table {claim.measure.table!r} has no column {column!r}, which {claim.id} asks for")
        allowed = wanted if isinstance(wanted, list) else [wanted]
        found = kept & frame[column].isin(allowed).to_numpy()
        if column == "trace" and not found.any():
            found = kept & frame[column].isin([f"{name}{SYNTHETIC}" for name in allowed]).to_numpy()
        if not found.any():
            raise NotMeasured(f"no rows with {column} {' or '.join(map(str, allowed))}")
        kept = found
    what = claim.measure
    used = {*LOOKED_AT, what.column, what.against_column, what.along}
    return frame.loc[kept, [column for column in frame if column in used]]


def _by_seed(rows: pd.DataFrame, what: Measure, column: str) -> dict[Any, float]:
    """One value per seed; ONCE for one that holds whatever the seed."""
    if column not in rows:
        raise ResultError(f"table {what.table!r} has no column {column!r}")
    if what.reduce == "same":
        return {ONCE: _only(rows[column].drop_duplicates(), "different values")}
    if isinstance(rows[column].iloc[0], list | np.ndarray):
        return {seed: _number(v) for seed, v in enumerate(_only(rows[column], "rows", number=False))}
    if "seed" not in rows:
        return {ONCE: _reduced(rows, column, what)}
    return {int(seed): _reduced(own, column, what) for seed, own in rows.groupby("seed", sort=True)}


def _reduced(own: pd.DataFrame, column: str, what: Measure) -> float:
    """The value of one seed's rows."""
    if what.reduce == "only":
        return _only(own[column], "rows for a seed")
    numbers = np.array([_number(v) for v in own[column]])
    if what.reduce != "holds_until":
        return float(REDUCE[what.reduce](numbers))
    worst = pd.Series(numbers).groupby(own[what.along].to_numpy()).max()  # by rising load
    holds = np.logical_and.accumulate(worst.to_numpy() <= what.limit)
    return float(worst.index[holds.sum() - 1]) if holds[0] else math.nan


def _only(values: pd.Series, what: str, number: bool = True) -> Any:
    if len(values) != 1:
        raise ResultError(f"column {values.name!r} has {len(values)} {what} where a claim needs one: filter by more")
    return _number(values.iloc[0]) if number else values.iloc[0]


def _number(value: Any) -> float:
    return math.nan if value is None else float(value)


def _shared_seeds(values: list[dict[Any, float]]) -> list[Any]:
    """Seeds that every side has; a side without seeds goes with all of the other's."""
    seeded = [set(by_seed) for by_seed in values if ONCE not in by_seed]
    if not seeded:
        return [ONCE]
    shared = sorted(set.intersection(*seeded))
    if not shared:
        raise NotMeasured("the two sides have no seed in common")
    return shared


def _most_seeds(rows: pd.DataFrame) -> int:
    """Seeds behind a value that is one for all of them."""
    return int(rows["seed"].nunique()) if "seed" in rows else 1
