"""What a trace itself says of a run: the classes of its requests, and of a replay how many there are and how fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from artifact.commands.progress import announce
from artifact.config import ConfigError, parse
from artifact.runs.run import trace_of
from artifact.runs.spec import ClassSpec, RunSpec
from niyama import load_card
from traces import ReplayArrivals, TooLong, Trace, classes_of, fitting, is_own, played

Fields = Mapping[str, Any]


def completed(
    fields: Fields, requests: int, replay: ReplayArrivals | None, speed: float, simulated: bool
) -> dict[str, Any]:
    """The fields of a RunSpec with what the trace says. requests: where nobody says how many, and it is no replay.

    ConfigError or TraceError where load, shares or times are missing, or say something else than the trace.
    """
    if replay is None and fields.get("load_qps") is None:
        raise ConfigError("--load is missing; give requests/s, or --replay for a trace's own times")
    known = {"requests": requests, **fields, "load_qps": fields.get("load_qps") or 1.0}
    classes = known.get("classes", RunSpec.model_fields["classes"].default)
    if replay is None and not is_own(str(fields["trace"])) and not any(c.when for c in classes):
        if known.get("too_long", "refuse") == "refuse":
            return {**known, "classes": _with_shares(classes, None)}
    known["arrivals"] = replay.model_dump() if replay else known.get("arrivals", "poisson")
    spec = parse(RunSpec, {**known, "classes": [c.model_copy(update={"share": 1 / len(classes)}) for c in classes]}, "")
    source = trace_of(spec)
    rules = {c.name: c.when for c in classes if c.when is not None}
    known["classes"] = _with_shares(classes, classes_of(source, [c.name for c in classes], rules))
    _say_understood(source)
    longest = spec.longest(load_card(spec.latency).kv_tokens if simulated else None)
    _say_too_long(source, spec.too_long, longest, replay)
    if replay is None:
        return known
    found = played(source, replay, None if spec.too_long == "refuse" else fitting(source, longest, spec.too_long))
    known["requests"] = fields.get("requests") or found.rows.size
    known["load_qps"] = fields.get("load_qps") or found.qps * speed
    announce(f"{source.name}: replay of {known['requests']} requests, recorded at {found.qps:g}/s")
    return known


def with_classes_of_the_trace(spec: RunSpec) -> RunSpec:
    """The run with the shares that its classes have in a user's own trace, where neither shares nor rules are given.

    ConfigError or TraceError where the trace does not say them, or says others.
    """
    if not is_own(spec.trace) or any("share" in c.model_fields_set for c in spec.classes):
        return spec
    return spec.model_copy(update={"classes": _with_shares(spec.classes, _codes(spec))})


def trace_says_classes(spec: RunSpec) -> bool:
    """Whether each row of a run's trace is of a class of its own, by a column or by rules: none is drawn."""
    return is_own(spec.trace) and _codes(spec) is not None


def _codes(spec: RunSpec) -> np.ndarray | None:
    rules = {c.name: c.when for c in spec.classes if c.when is not None}
    return classes_of(trace_of(spec), [c.name for c in spec.classes], rules)


def _say_too_long(source: Trace, too_long: TooLong, longest: int | None, replay: ReplayArrivals | None) -> None:
    """On stderr how many rows are dropped or truncated, of those that are played."""
    if too_long == "refuse" or longest is None:
        return
    fits = fitting(source, longest, "drop")
    if fits is not None:
        fits = fits if replay is None else fits[played(source, replay, None).rows]
        count = int(np.count_nonzero(~fits))
    if fits is not None and count:
        done = {"drop": "dropped", "truncate": "truncated"}[too_long]
        announce(f"{source.name}: {count} of {len(fits)} rows have more than {longest} tokens and are {done}")


def _say_understood(source: Trace) -> None:
    """On stderr what was understood of a user's file, and what dropped."""
    if source.understood is not None:
        announce(f"{source.name}: {'; '.join([str(source.understood), *source.notes])}")


def _with_shares(classes: tuple[ClassSpec, ...], codes: np.ndarray | None) -> tuple[ClassSpec, ...]:
    """Classes with the shares that their requests have; codes: each row's class, None: shares are given."""
    if codes is None:
        if missing := [c.name for c in classes if "share" not in c.model_fields_set]:
            raise ConfigError(f"class {missing[0]!r} has no share; give all one, or a `when` to all but one")
        return classes
    counts = np.bincount(codes, minlength=len(classes)) / len(codes)
    return tuple(c.model_copy(update={"share": float(n)}) for c, n in zip(classes, counts, strict=True))
