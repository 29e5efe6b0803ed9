"""The workload: what arrives when, how long it is, and whose it is; one specification, one set of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from traces.arrivals import Arrivals, Positive, SquareArrivals, arrival_times
from traces.catalog import SYNTHETIC_SUFFIX
from traces.checks import MAX_TOKENS
from traces.errors import TraceError
from traces.trace import Source, Trace

_SHARE_TOLERANCE = 1e-6
_PERMUTED_ROWS = 1_000_000

Fraction = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
# YAML and JSON know lists only, so tuples alone are exempt from strictness.
ClassShare = Annotated[tuple[Annotated[str, Field(min_length=1)], Fraction], Field(strict=False)]


class WorkloadSpec(BaseModel):
    """Everything that decides a workload. Two equal specifications over one trace give equal arrays."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")

    trace: Annotated[str, Field(min_length=1)] = Field(description="catalog name the lengths come from")
    requests: Annotated[int, Field(ge=1)] = Field(description="how many requests arrive")
    load_qps: Positive = Field(description="mean arrivals per second")
    seed: Annotated[int, Field(ge=0)] = Field(description="seed of every random axis")
    arrivals: Arrivals = Field(description="the arrival process")
    classes: Annotated[tuple[ClassShare, ...], Field(min_length=1, strict=False)] = Field(
        description="(name, share) of each QoS class; shares sum to 1"
    )
    low_importance_share: Fraction = Field(description="share of requests that are not important")
    max_total_tokens: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="drop trace rows whose prompt + output is longer"
    )

    @model_validator(mode="after")
    def _classes_are_a_partition(self) -> WorkloadSpec:
        names = [name for name, _ in self.classes]
        if len(set(names)) < len(names):
            raise ValueError(f"classes = {names} repeats a name: give each class one share")
        total = sum(share for _, share in self.classes)
        if abs(total - 1) > _SHARE_TOLERANCE:
            raise ValueError(f"classes = {list(self.classes)} has shares that sum to {total:g}: make them sum to 1")
        return self

    @model_validator(mode="after")
    def _square_states_its_mean(self) -> WorkloadSpec:
        wave = self.arrivals
        if isinstance(wave, SquareArrivals) and not np.isclose(wave.mean_qps, self.load_qps, rtol=1e-9, atol=0):
            raise ValueError(f"load_qps = {self.load_qps} is not the mean of the square wave: set {wave.mean_qps}")
        return self


def parse_spec(fields: Mapping[str, object]) -> WorkloadSpec:
    """A specification from plain values, such as parsed YAML.

    Raises TraceError with one line that names every bad field, its value and the fix.
    """
    try:
        return WorkloadSpec.model_validate(dict(fields))
    except ValidationError as error:
        faults = []
        for fault in error.errors():
            where = ".".join(map(str, fault["loc"]))
            text = fault["msg"].removeprefix("Value error, ")
            if fault["type"] == "missing":
                text = f"{where} is missing: add it"
            elif where:
                text = f"{where} = {fault['input']!r}: {text}"
            faults.append(text)
        raise TraceError(f"workload: {'; '.join(faults)}") from None


@dataclass(frozen=True, eq=False)
class Workload:
    """n requests in arrival order. Arrays are read-only."""

    arrival_s: np.ndarray  # float64[n], sorted, >= 0
    prompt_tokens: np.ndarray  # int32[n], >= 1
    output_tokens: np.ndarray  # int32[n], >= 1; the truth, which no scheduler may see
    qos_class: np.ndarray  # int16[n], index into class_names
    important: np.ndarray  # bool[n]
    class_names: tuple[str, ...]
    spec: WorkloadSpec | None  # None for a workload that came from a foreign file
    trace_name: str
    trace_source: Source
    trace_sha256: str | None = None
    trace_rows_dropped: int = 0  # rows of the trace above spec.max_total_tokens

    def __post_init__(self) -> None:
        n = len(self.arrival_s)
        dtypes = {
            "arrival_s": "f8",
            "prompt_tokens": "i4",
            "output_tokens": "i4",
            "qos_class": "i2",
            "important": "?",
        }
        for field, dtype in dtypes.items():
            array = getattr(self, field)
            if array.dtype != np.dtype(dtype) or array.shape != (n,):
                raise TraceError(f"workload: {field} is {array.dtype}{array.shape}, not {np.dtype(dtype)}({n},)")
            array.setflags(write=False)
        if n == 0 or self.arrival_s[0] < 0 or not np.isfinite(self.arrival_s).all():
            raise TraceError("workload: arrival_s needs at least one time, all finite and >= 0")
        if (np.diff(self.arrival_s) < 0).any():
            raise TraceError("workload: arrival_s decreases; sort the requests by arrival")
        if min(self.prompt_tokens.min(), self.output_tokens.min()) < 1:
            raise TraceError("workload: a token count is below 1; every request has a prompt and an output")
        if self.qos_class.min() < 0 or self.qos_class.max() >= len(self.class_names):
            raise TraceError(f"workload: qos_class leaves the {len(self.class_names)} class_names")

    def __len__(self) -> int:
        return len(self.arrival_s)


def build(spec: WorkloadSpec, trace: Trace) -> Workload:
    """The workload that `spec` describes, with lengths from `trace` (the one it names, or the synthetic one for it).

    Lengths, arrivals, classes and importance each have a random stream of their own, a function of seed and
    axis only: workloads of one seed agree request by request across loads and systems, and a longer one
    extends a shorter one. Raises TraceError if the trace is another one, or no row fits max_total_tokens.
    """
    if trace.name not in (spec.trace, spec.trace + SYNTHETIC_SUFFIX):
        raise TraceError(f"trace = {spec.trace!r} in the specification, but {trace.name!r} was given: load the former")
    rows, dropped = _usable_rows(spec, trace)
    drawn = _draw_rows(len(trace) if rows is None else rows.size, spec.requests, _stream(spec.seed, "lengths"))
    picked = drawn if rows is None else rows[drawn]
    shares = np.array([share for _, share in spec.classes])
    steps = np.cumsum(shares)[:-1] / shares.sum()
    return Workload(
        arrival_s=arrival_times(
            spec.arrivals, spec.requests, spec.load_qps, _stream(spec.seed, "arrivals"), trace.arrival_s
        ),
        prompt_tokens=trace.prompt_tokens[picked],
        output_tokens=trace.output_tokens[picked],
        qos_class=np.searchsorted(steps, _stream(spec.seed, "classes").random(spec.requests), "right").astype("i2"),
        important=_stream(spec.seed, "importance").random(spec.requests) >= spec.low_importance_share,
        class_names=tuple(name for name, _ in spec.classes),
        spec=spec,
        trace_name=trace.name,
        trace_source=trace.source,
        trace_sha256=trace.sha256,
        trace_rows_dropped=dropped,
    )


def _stream(seed: int, axis: str) -> np.random.Generator:
    """The generator of one axis, independent of all other (seed, axis) pairs."""
    key = int.from_bytes(axis.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))


def _usable_rows(spec: WorkloadSpec, trace: Trace) -> tuple[np.ndarray | None, int]:
    """Indices of the rows that fit (None: all of them), and how many do not."""
    if spec.max_total_tokens is None:
        return None, 0
    # Written as a difference because the sum of two int32 could overflow.
    room = np.int32(min(spec.max_total_tokens, MAX_TOKENS)) - trace.output_tokens
    rows = np.flatnonzero(trace.prompt_tokens <= room)
    if rows.size == 0:
        raise TraceError(
            f"max_total_tokens = {spec.max_total_tokens} drops every row of {trace.name}: set a larger one"
        )
    return rows, len(trace) - rows.size


def _draw_rows(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """int[n] of row indices: a fresh permutation for each pass over the trace."""
    if rows > _PERMUTED_ROWS and n <= rows // 8:
        return _draw_distinct(rows, n, rng)
    passes = -(-n // rows)
    order = np.broadcast_to(np.arange(rows, dtype=np.int32), (passes, rows))
    return rng.permuted(order, axis=1).ravel()[:n]


def _draw_distinct(rows: int, n: int, rng: np.random.Generator) -> np.ndarray:
    """The first n entries of a random permutation, without the cost of permuting tens of millions of rows.

    Independent draws with later repeats struck out are exactly that, and do not depend on n.
    """
    drawn = np.empty(0, dtype=np.int64)
    while True:
        drawn = np.concatenate((drawn, rng.integers(0, rows, size=n + n // 8 + 64)))
        _, first = np.unique(drawn, return_index=True)
        if first.size >= n:
            return drawn[np.sort(first)[:n]]
