"""Whether the paper's claims come out: every claim of `claims/` computed from results tables, with a verdict.

A claim passes when its mean over seeds is what is expected. It is skipped when nothing in the results is about it, and
says what to run; it is broken when the results are not what the pipeline wrote.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from enum import StrEnum
from functools import partial
from pathlib import Path

import pandas as pd

from artifact.claims.measure import Measured, NotMeasured, combine, measure, scale
from artifact.claims.model import Claim, Claims, Filters, Printed, Source
from artifact.results.frames import load_table
from artifact.results.manifest import problems, table_path
from artifact.results.tables import ResultError
from figures import paper
from niyama import load_card


class Status(StrEnum):
    """What came of a claim. XFAIL: it failed as expected; XPASS: it passed, and was expected to fail."""

    PASS = "PASS"
    FAIL = "FAIL"
    XFAIL = "XFAIL"
    XPASS = "XPASS"
    SKIPPED = "SKIPPED"
    BROKEN = "BROKEN"


@dataclass(frozen=True)
class Bounds:
    """What is expected, in the claim's unit: the number itself (null: a range is), and where a measured one may lie."""

    value: float | None
    low: float
    high: float
    printed: str

    def hold(self, measured: Measured) -> bool:
        """Whether the mean over seeds lies within."""
        return self.low <= measured.value <= self.high


@dataclass(frozen=True)
class Case:
    """The same claim on other rows, shown with it: `measured` is None if the rows are missing; `why` explains."""

    title: str
    measured: Measured | None
    holds: bool | None
    why: str = ""


@dataclass(frozen=True)
class Verdict:
    """One line of the table."""

    claim: Claim
    source: Source
    bounds: Bounds
    status: Status
    why: str = ""
    measured: Measured | None = None
    also: tuple[Case, ...] = ()

    @property
    def counts_against(self) -> bool:
        """Whether it makes `verify` fail. An XPASS does not: better numbers are no fault of the results."""
        return self.status in (Status.BROKEN, Status.FAIL)


@dataclass
class Verifier:
    """Verdicts on one folder of results; tables are read when first asked for. ResultError without a manifest."""

    results: Path
    tables: dict[str, Source]
    broken: dict[str, str] = field(init=False)
    frames: dict[str, pd.DataFrame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.broken = problems(self.results)

    def verdict(self, claim: Claim) -> Verdict:
        """The verdict on one claim."""
        limits, name = bounds(claim), claim.measure.table
        verdict = partial(Verdict, claim, self.tables[name], limits)
        if name in self.broken:
            return verdict(Status.BROKEN, self.broken[name])
        try:
            frame = self._frame(name)
            measured = _measured(frame, claim)
        except NotMeasured as missing:
            return verdict(Status.SKIPPED, str(missing))
        except ResultError as error:
            return verdict(Status.BROKEN, str(error))
        also = tuple(_case(frame, claim, limits, title, filters) for title, filters in claim.also.items())
        status, why = _status(limits.hold(measured), claim.xfail)
        return verdict(status, why, measured, also)

    def _frame(self, name: str) -> pd.DataFrame:
        """The table as a DataFrame with its provenance in `attrs`."""
        if name not in self.frames:
            path = table_path(self.results, name, self.tables[name].path)
            if not path.exists():
                raise NotMeasured(f"{path} has not been made")
            self.frames[name] = load_table(path)
        return self.frames[name]


def verify(results: Path, claims: Claims) -> tuple[list[Verdict], dict[str, str]]:
    """A verdict on every claim, and what is wrong with tables, by name. ResultError without a manifest."""
    verifier = Verifier(results, claims.tables)
    return [verifier.verdict(claim) for claim in claims.claims], verifier.broken


def _status(passed: bool, xfail: str | None) -> tuple[Status, str]:
    if xfail is None:
        return (Status.PASS if passed else Status.FAIL), ""
    if passed:
        return Status.XPASS, f"it was expected to fail ({xfail}): take `xfail` off the claim"
    return Status.XFAIL, xfail


def bounds(claim: Claim) -> Bounds:
    """What the claim expects: the paper's numbers, combined as the measured ones are, with the tolerance."""
    expected, factor = claim.expected, scale(claim)
    if expected.low is not None and expected.high is not None:
        (low, printed), (high, _) = expected.low.look_up(), expected.high.look_up()
        low, high, value = low * factor, high * factor, None
    else:
        value, printed = _expected_value(claim, factor)
        low = high = value
    below, above = (max(expected.points, abs(end) * expected.percent / 100.0) for end in (low, high))
    low = -math.inf if expected.direction == "at_most" else low - below
    high = math.inf if expected.direction == "at_least" else high + above
    return Bounds(value, low, high, printed)


def _expected_value(claim: Claim, factor: float) -> tuple[float, str]:
    expected = claim.expected
    if expected.value is not None:
        return expected.value, str(expected.because)
    assert isinstance(expected.of, Printed), "the model allows nothing else"
    of, printed = expected.of.look_up()
    if expected.against is None:
        return of * factor, printed
    against, other = expected.against.look_up()
    return combine(claim.measure, of, against) * factor, printed if other == printed else f"{printed}, {other}"


def _measured(frame: pd.DataFrame, claim: Claim, override: Filters | None = None) -> Measured:
    """The number, unless the rows are of runs that say nothing about the claim."""
    form = frame.attrs.get("form")
    if claim.form is not None and form != claim.form:
        raise NotMeasured(f"the {form} form of the sweep was run, and it takes {claim.form}")
    measured = measure(frame, claim, override)
    if claim.least_requests and measured.requests is not None and measured.requests < claim.least_requests:
        raise NotMeasured(f"runs of {measured.requests:,} requests are too short; it takes {claim.least_requests:,}")
    for latency in measured.latencies if claim.same_hardware_as else ():
        if not on_same_hardware(claim.same_hardware_as, claim.backend, latency, frame.attrs):
            raise NotMeasured(
                f"{latency} is not of the paper's {claim.same_hardware_as}: absolute numbers do not compare"
            )
    return measured


def on_same_hardware(configuration: str, backend: str, latency: str, about: dict) -> bool:
    """Whether step times are those of a configuration of the paper: by the GPU in the provenance, else by the card."""
    wanted = paper.values()["configurations"][configuration]
    if backend == "gpu":
        return wanted["gpu"] in str(about.get("gpu", "")) and wanted["model"] in str(about.get("model", ""))
    try:
        card = load_card(latency)
    except ValueError:
        return False
    parts = card.hardware.replace(",", " ").split()
    return wanted["gpu"] in parts and f"TP{wanted['tensor_parallel']}" in parts and wanted["model"] in card.model


def _case(frame: pd.DataFrame, claim: Claim, limits: Bounds, title: str, filters: Filters) -> Case:
    try:
        measured = _measured(frame, claim, filters)
    except NotMeasured as missing:
        return Case(title, None, None, str(missing))
    return Case(title, measured, limits.hold(measured))
