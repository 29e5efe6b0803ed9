"""Which of vLLM's tests do not pass under Niyama, and why: `expected.yaml`, and what it means for what came out.

    vllm: 0.32.0
    reasons:
      refused-pooling:
        why: a sentence
        outcome: refused                # or failed, or switched off
        says: pooling and embedding     # with refused: words of the refusal
        tests: [core/test_scheduler.py::test_a, ...]

A test without its parameters in brackets stands for all of them. `async_tests` is the list of the run `niyama-async`,
which gives every test the asynchronous class.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import yaml

FILE = Path(__file__).with_name("expected.yaml")
UNEXPLAINED = "unexplained"
OUTCOMES = ("failed", "refused", "switched off")
_HEAD = "# Written by `make vllm-suite UPDATE=1`; reasons are written, and tests moved between them, by hand.\n"


class ExpectationError(ValueError):
    """The file of expectations makes no sense; says where and what to do."""


@dataclass(frozen=True)
class Outcome:
    """What came out of one test: passed, skipped or one of OUTCOMES, and the first error's text."""

    outcome: str
    text: str = ""


@dataclass(frozen=True)
class Reason:
    """Why some tests do not pass, how they do not, and which by what is run (`niyama`, `niyama-async`)."""

    name: str
    why: str
    outcome: str
    says: str = ""
    tests: Mapping[str, tuple[str, ...]] = field(default_factory=dict)

    def accounts_for(self, outcome: Outcome) -> bool:
        """Whether a test that came out so came out as this reason says."""
        return outcome.outcome == self.outcome and self.says in outcome.text


_NOT_YET = Reason(UNEXPLAINED, "nobody has looked into these yet: each is an error", "failed")
_LISTS = {"niyama": "tests", "niyama-async": "async_tests"}


def load(release: str, path: Path = FILE) -> list[Reason]:
    """The reasons of the file, in its order. Raises ExpectationError."""
    values = yaml.safe_load(path.read_text(encoding="utf-8"))
    if str(values["vllm"]) != release:
        raise ExpectationError(f"{path.name} is for vLLM {values['vllm']} and {release} is installed; write it anew")
    return [_reason(name, about, path) for name, about in values["reasons"].items()]


def _reason(name: str, about: Mapping[str, Any], path: Path) -> Reason:
    unknown = set(about) - {"why", "outcome", "says", *_LISTS.values()}
    if unknown or about.get("outcome") not in OUTCOMES or not about.get("why"):
        raise ExpectationError(
            f"{path.name}: {name} has outcome {about.get('outcome')!r} and fields {', '.join(about)}; "
            f"give it why, outcome ({', '.join(OUTCOMES)}), says, {', '.join(_LISTS.values())}"
        )
    tests = {run: tuple(about.get(key) or ()) for run, key in _LISTS.items()}
    return Reason(name, about["why"], about["outcome"], about.get("says", ""), tests)


def save(release: str, reasons: Sequence[Reason], path: Path = FILE) -> None:
    """Write the file: one test a line."""
    values: dict[str, Any] = {"vllm": release, "reasons": {}}
    for reason in reasons:
        about = {"why": reason.why, "outcome": reason.outcome} | ({"says": reason.says} if reason.says else {})
        about |= {key: list(reason.tests[run]) for run, key in _LISTS.items() if reason.tests.get(run)}
        values["reasons"][reason.name] = about
    path.write_text(_HEAD + yaml.safe_dump(values, sort_keys=False, width=120), encoding="utf-8")


def covers(entry: str, test: str) -> bool:
    """Whether an entry of the file means that test."""
    return test == entry or test.startswith(f"{entry}[")


def reason_of(reasons: Iterable[Reason], run: str, test: str) -> Reason | None:
    """The reason under which the test is listed for that run."""
    return next((r for r in reasons if any(covers(entry, test) for entry in r.tests.get(run, ()))), None)


def problems(reasons: Sequence[Reason], run: str, came: Mapping[str, Outcome]) -> list[str]:
    """A line for each test that came out otherwise than expected, and for each entry that is no test; empty is good.

    came: outcomes of the tests that pass with vLLM's own classes; no other test is asked of ours.
    """
    lines = []
    for test, outcome in came.items():
        reason = reason_of(reasons, run, test)
        if outcome.outcome == "passed" and reason is not None:
            lines.append(f"{test} passes now, and is listed under {reason.name}: take it off the list")
        elif outcome.outcome != "passed" and reason is None:
            lines.append(f"{test} {outcome.outcome}, and is not listed: {outcome.text}")
        elif reason is not None and reason.name == UNEXPLAINED:
            lines.append(f"{test} {outcome.outcome}, and is listed without a reason: {outcome.text}")
        elif reason is not None and not reason.accounts_for(outcome):
            lines.append(f"{test} {outcome.outcome}, not as {reason.name} says: {outcome.text}")
    for reason in reasons:
        entries = reason.tests.get(run, ())
        lines += [
            f"{entry} is listed under {reason.name}, and there is no such test that vLLM's own classes pass"
            for entry in entries
            if not any(covers(entry, test) for test in came)
        ]
    return lines


def updated(reasons: Sequence[Reason], run: str, came: Mapping[str, Outcome]) -> list[Reason]:
    """The reasons with the lists of that run as it came out.

    A test keeps its reason as long as it comes out as that says; else the first refusal that says what it says is its
    reason, else none.
    """
    reasons = [
        *(r for r in reasons if r.name != UNEXPLAINED),
        *([r for r in reasons if r.name == UNEXPLAINED] or [_NOT_YET]),
    ]
    home: dict[str, str] = {}
    for test, outcome in came.items():
        if outcome.outcome == "passed":
            continue
        listed = reason_of(reasons, run, test)
        fitting = [r for r in [*([listed] if listed else []), *reasons] if r is listed or r.says]
        home[test] = next((r.name for r in fitting if r.accounts_for(outcome)), UNEXPLAINED)
    new = [replace(r, tests={**r.tests, run: _entries(r.name, home, came)}) for r in reasons]
    return [r for r in new if r.name != UNEXPLAINED or any(r.tests.values())]


def _entries(name: str, home: Mapping[str, str], came: Iterable[str]) -> tuple[str, ...]:
    """The tests whose reason it is; one entry for all parameters of a test if it is that of all."""
    variants: dict[str, list[str]] = {}
    for test in came:
        variants.setdefault(test.partition("[")[0], []).append(test)
    entries = []
    for bare, tests in variants.items():
        ours = [test for test in tests if home.get(test) == name]
        entries += [bare] if len(ours) == len(tests) else ours
    return tuple(entries)
