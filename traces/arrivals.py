"""When requests arrive: processes of a stated mean load, all driven by one stream of random gaps.

Every process but the trace's own is a unit-rate process (mean gap 1) that is then scaled or time-warped, so
the same seed gives the same gaps at every load: common random numbers.
"""

from __future__ import annotations

import csv
from functools import lru_cache
from importlib import resources
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from traces.catalog import find_entry
from traces.errors import TraceError

# With less, times would be so large, or phases so short, that they are lost in rounding.
Positive = Annotated[float, Field(ge=1e-6, le=1e9, allow_inf_nan=False)]

Second = Annotated[float, Field(ge=0, le=1e12, allow_inf_nan=False)]

SECONDS_PER_HOUR = 3600.0
HOURS_PER_WEEK = 168


class _Process(BaseModel):
    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class PoissonArrivals(_Process):
    """Independent exponential gaps of mean 1 / load_qps: the paper's default."""

    kind: Literal["poisson"] = "poisson"


class GammaArrivals(_Process):
    """Independent gamma gaps of mean 1 / load_qps and coefficient of variation `cv` (1 is Poisson)."""

    kind: Literal["gamma"] = "gamma"
    cv: Annotated[float, Field(gt=1e-6, le=100, allow_inf_nan=False)]


class TraceArrivals(_Process):
    """The trace's own timestamps, stretched so that the whole has mean load_qps, repeated end to end."""

    kind: Literal["trace"] = "trace"


class ReplayArrivals(_Process):
    """The trace as recorded: each row at its own time, with its own length, stretched to load_qps.

    `window`: only the rows from `a` to before `b` seconds of the trace.
    """

    kind: Literal["replay"] = "replay"
    window: Annotated[tuple[Second, Second], Field(strict=False)] | None = None

    @model_validator(mode="after")
    def _window_has_length(self) -> ReplayArrivals:
        if self.window is not None and not self.window[0] < self.window[1]:
            raise ValueError(f"window is {self.window[0]:g}:{self.window[1]:g}; its end comes after its start")
        return self


class SquareArrivals(_Process):
    """Poisson arrivals whose rate starts at `low_qps` and toggles to `high_qps` and back every `dwell_s`.

    The paper's transient load is 2 and 5 QPS with a dwell of 900 s. The mean is (low + high) / 2, which
    load_qps must state.
    """

    kind: Literal["square"] = "square"
    low_qps: Positive
    high_qps: Positive
    dwell_s: Positive

    @property
    def mean_qps(self) -> float:
        """Mean rate over a whole period of two dwells."""
        return (self.low_qps + self.high_qps) / 2


class HourOfWeekArrivals(_Process):
    """Poisson arrivals that follow the Azure 2024 week hour by hour (UTC, from Monday 00:00), scaled to
    load_qps.

    `compress` plays the week that many times faster: with 60, an hour of the week lasts one minute.
    """

    kind: Literal["hour-of-week"] = "hour-of-week"
    service: Literal["code", "conv"]
    compress: Positive


def _from_bare_name(value: object) -> object:
    return {"kind": value} if isinstance(value, str) else value


Arrivals = Annotated[
    PoissonArrivals | GammaArrivals | TraceArrivals | ReplayArrivals | SquareArrivals | HourOfWeekArrivals,
    Field(discriminator="kind"),
    BeforeValidator(_from_bare_name),  # `arrivals: poisson` reads better than a one-key mapping
]


def arrival_times(
    process: Arrivals, n: int, load_qps: float, rng: np.random.Generator, trace_s: np.ndarray | None
) -> np.ndarray:
    """float64[n] of sorted arrival times in seconds from the start of the run, all >= 0.

    `trace_s` are the trace's own timestamps (seconds), which only `trace` arrivals read. Raises TraceError if
    those are needed but absent or all at one instant.
    """
    if isinstance(process, TraceArrivals):
        return _replay(trace_s, n, load_qps)
    if isinstance(process, ReplayArrivals):
        raise TraceError("replay keeps rows and times together; it is no process of times alone")
    if isinstance(process, GammaArrivals):
        shape = process.cv**-2
        return np.cumsum(rng.standard_gamma(shape, n)) / shape / load_qps
    unit = np.cumsum(rng.standard_exponential(n))
    if isinstance(process, PoissonArrivals):
        return unit / load_qps
    if isinstance(process, SquareArrivals):
        return _warp(unit, process.dwell_s, np.array([process.low_qps, process.high_qps]))
    requests = hourly_requests(process.service)
    return _warp(unit, SECONDS_PER_HOUR / process.compress, requests * (load_qps / requests.mean()))


def _warp(unit: np.ndarray, step_s: float, rate_qps: np.ndarray) -> np.ndarray:
    """Turn unit-rate times into times of a process whose rate walks through `rate_qps`, one per `step_s`, for
    ever.

    A non-homogeneous Poisson process is the unit one seen through the inverse of its expected count.
    """
    edges_s = step_s * np.arange(rate_qps.size + 1)
    expected = np.concatenate(([0.0], np.cumsum(rate_qps) * step_s))
    cycle = np.floor(unit / expected[-1])
    inside = np.clip(unit - cycle * expected[-1], 0.0, expected[-1])
    arrival_s = cycle * edges_s[-1] + np.interp(inside, expected, edges_s)
    return np.maximum.accumulate(arrival_s)  # rounding at a cycle's edge must not turn time back


def _replay(trace_s: np.ndarray | None, n: int, load_qps: float) -> np.ndarray:
    if trace_s is None:
        raise TraceError("arrivals is 'trace', but this trace has no timestamps; use poisson or another process")
    rows = trace_s.size
    span_s = float(trace_s[-1] - trace_s[0])
    if rows < 2 or span_s <= 0:
        raise TraceError(f"arrivals is 'trace', but its {rows} timestamps span {span_s} s; use another process")
    cycle_s = span_s * rows / (rows - 1)  # one mean gap between the last row and the first of the next pass
    stretch = rows / (cycle_s * load_qps)
    index = np.arange(n)
    return (trace_s[index % rows] - trace_s[0] + (index // rows) * cycle_s) * stretch


@lru_cache(maxsize=2)
def hourly_requests(service: Literal["code", "conv"]) -> np.ndarray:
    """float64[168], read-only: requests per hour of the Azure 2024 week, from Monday 00:00 UTC."""
    name = find_entry("azure-2024-hourly").embedded
    lines = (resources.files("traces") / str(name)).read_text(encoding="utf-8").splitlines()
    rows = sorted(csv.DictReader(lines), key=lambda row: int(row["utc_hour_of_week"]))
    counts = np.array([float(row[f"requests_{service}"]) for row in rows])
    if counts.shape != (HOURS_PER_WEEK,) or counts.min() <= 0:
        raise TraceError(f"{name}: needs {HOURS_PER_WEEK} positive counts, has {counts.size}; reinstall the package")
    counts.setflags(write=False)
    return counts
