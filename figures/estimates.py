"""Means over seeds with their 95 % intervals: of figures, of claims, and of the tables of capacities."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.special import stdtrit


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval. `low` and `high` are None for a single seed."""

    mean: float
    low: float | None = None
    high: float | None = None

    def scaled(self, factor: float) -> Estimate:
        """The same in another unit."""
        low, high = (None if v is None else v * factor for v in (self.low, self.high))
        return Estimate(self.mean * factor, low, high)


def floats(values: Any) -> np.ndarray:
    """A list from a table as floats; null becomes nan."""
    return np.array([math.nan if value is None else value for value in values], dtype=float)


def estimate(values: Any) -> Estimate | None:
    """Mean and 95 % Student-t interval; None when there are no values or any is null."""
    numbers = floats(values)
    if len(numbers) == 0 or np.isnan(numbers).any():
        return None
    mean = float(numbers.mean())
    if len(numbers) == 1:
        return Estimate(mean)
    half = float(stdtrit(len(numbers) - 1, 0.975) * (numbers.std(ddof=1) / math.sqrt(len(numbers))))
    return Estimate(mean, mean - half, mean + half)
