"""The workload: what arrives when, how long it is, and whose it is; one specification, one set of arrays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from traces.arrivals import Arrivals, Positive, ReplayArrivals, SquareArrivals, arrival_times
from traces.catalog import SYNTHETIC_SUFFIX
from traces.classing import classes_of
from traces.errors import TraceError
from traces.lengths import NO_EXTRAS, Extras
from traces.replay import TooLong, cut, fitting, played
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

    too_long: TooLong = Field(default="drop", description="what becomes of rows above max_total_tokens")
    rules: Annotated[tuple[tuple[str, str], ...], Field(strict=False)] = Field(
        default=(), description="(class, rule) of classes that take the rows for which a rule is true"
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
    extras: Extras = NO_EXTRAS  # tenants, sessions, hash ids, where the trace has them

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
    if trace.name not in (spec.trace, spec.trace + SYNTHETIC_SUFFIX) and trace.asked != spec.trace:
        raise TraceError(f"trace = {spec.trace!r} in the specification, but {trace.name!r} was given: load the former")
    fits = fitting(trace, spec.max_total_tokens, spec.too_long)
    picked, arrival_s = _rows_and_times(spec, trace, fits)
    prompt_tokens, output_tokens = trace.prompt_tokens[picked], trace.output_tokens[picked]
    if spec.too_long == "truncate" and spec.max_total_tokens is not None:
        prompt_tokens, output_tokens = cut(prompt_tokens, output_tokens, spec.max_total_tokens)
    return Workload(
        arrival_s=arrival_s,
        prompt_tokens=prompt_tokens,
        output_tokens=output_tokens,
        qos_class=_classes(spec, trace, picked),
        important=_importance(spec, trace, picked),
        class_names=tuple(name for name, _ in spec.classes),
        spec=spec,
        trace_name=trace.name,
        trace_source=trace.source,
        trace_sha256=trace.sha256,
        trace_rows_dropped=0 if fits is None else int(np.count_nonzero(~fits)),
        extras=replace(trace.extras, qos_class=None, important=None).take(picked),
    )


def _rows_and_times(spec: WorkloadSpec, trace: Trace, fits: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
    """Which row each request is of, and when it arrives."""
    if isinstance(spec.arrivals, ReplayArrivals):
        found = played(trace, spec.arrivals, fits)
        if spec.requests > found.rows.size:
            raise TraceError(
                f"requests is {spec.requests}, and a replay of {trace.name} has {found.rows.size}; leave it out, or "
                "resample: leave --replay out"
            )
        first = slice(spec.requests)
        return found.rows[first], found.time_s[first] * (found.qps / spec.load_qps)
    rows = None if fits is None else np.flatnonzero(fits)
    if rows is not None and rows.size == 0:
        raise TraceError(
            f"max_total_tokens = {spec.max_total_tokens} drops every row of {trace.name}: set a larger one"
        )
    drawn = _draw_rows(len(trace) if rows is None else rows.size, spec.requests, _stream(spec.seed, "lengths"))
    rng = _stream(spec.seed, "arrivals")
    times = arrival_times(spec.arrivals, spec.requests, spec.load_qps, rng, trace.arrival_s)
    return (drawn if rows is None else rows[drawn]), times


def _classes(spec: WorkloadSpec, trace: Trace, picked: np.ndarray) -> np.ndarray:
    of_rows = classes_of(trace, [name for name, _ in spec.classes], dict(spec.rules))
    if of_rows is not None:
        return of_rows[picked]
    shares = np.array([share for _, share in spec.classes])
    steps = np.cumsum(shares)[:-1] / shares.sum()
    return np.searchsorted(steps, _stream(spec.seed, "classes").random(spec.requests), "right").astype("i2")


def _importance(spec: WorkloadSpec, trace: Trace, picked: np.ndarray) -> np.ndarray:
    if trace.extras.important is None:
        return np.asarray(_stream(spec.seed, "importance").random(spec.requests) >= spec.low_importance_share)
    if spec.low_importance_share:
        raise TraceError(
            f"low_importance_share is {spec.low_importance_share}, and {trace.name} says itself which requests are "
            "important; leave it out"
        )
    return trace.extras.important[picked]


def _stream(seed: int, axis: str) -> np.random.Generator:
    """The generator of one axis, independent of all other (seed, axis) pairs."""
    key = int.from_bytes(axis.encode(), "big")
    return np.random.default_rng(np.random.SeedSequence(seed, spawn_key=(key,)))


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
