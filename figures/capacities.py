"""Rows of capacity tables: which one a figure shows, its numbers, and why there is none."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import pandas as pd

from figures import style
from figures.frames import floats, latencies


def cases(frame: pd.DataFrame, known: Iterable[str]) -> Iterator[tuple[pd.DataFrame, str, str, str]]:
    """The rows of each latency model and trace, those two names and a system; systems in the order of `known`."""
    for variant in latencies(frame):
        own = variant.rows(frame)
        for trace in style.in_order(own["trace"], style.TRACES):
            here = own[own["trace"] == trace]
            for system in style.in_order(here["system"], known):
                yield here, variant.latency, trace, system


def pick(frame: pd.DataFrame, system: str, criterion: str, run_length: str) -> pd.Series | None:
    """The row of a system, criterion and run length on one trace."""
    keys = {"system": system, "criterion": criterion, "run_length": run_length}
    found = np.logical_and.reduce([frame[name].to_numpy(dtype=object) == key for name, key in keys.items()])
    return frame.iloc[found.argmax()] if found.any() else None


def per_replica(row: pd.Series | None, column: str) -> float:
    """A column in requests/s per replica; nan when the row or its value is missing."""
    if row is None or pd.isna(row[column]):
        return math.nan
    return float(row[column]) / (1 if column.endswith("per_replica") else int(row["replicas"]))


def no_crossing(row: pd.Series) -> str:
    """Why a capacity is null, in a few words; empty when it is not."""
    if not pd.isna(row["capacity_qps_per_replica"]):
        return ""
    seeds = floats(row["seed_capacity_qps"])
    missing = int(pd.isna(seeds).sum())
    if 0 < missing < len(seeds):
        return f"no crossing in {missing} of {len(seeds)} seeds"
    if not pd.isna(row["passes_qps"]):
        return f"no crossing up to {row['passes_qps'] / row['replicas']:.3g}"
    return "no crossing" if pd.isna(row["fails_qps"]) else f"fails at {row['fails_qps'] / row['replicas']:.3g}"


def texts(rows: pd.DataFrame) -> list[str]:
    """Mean and interval of each row of a figure's table, or its remark where there is no capacity."""
    ends = rows[["capacity_qps", "interval_low_qps", "interval_high_qps"]].clip(lower=0.0).to_numpy()
    return [r if math.isnan(v[0]) else style.interval_text(*v) for v, r in zip(ends, rows["remark"], strict=True)]
