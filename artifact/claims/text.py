"""Verdicts as text: the terminal's lines, Markdown, a table for the report, and JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from artifact.claims.measure import SHARES, Measured
from artifact.claims.model import Claim, Source
from artifact.claims.verify import Bounds, Case, Status, Verdict
from artifact.results.frames import markdown
from figures import style

DIGITS = {"times": 2, "%": 1, "points": 1, "QPS": 2, "s": 2, "ms": 1, "tokens/s": 0, "tokens": 0, "GPUs": 0}
SUFFIX = {"times": "×", "%": " %", "points": " points"}
SIGNS = {"within": "", "at_least": "≥ ", "at_most": "≤ "}


def quantity(value: float, unit: str) -> str:
    """A number with its unit."""
    return _number(value, unit) + SUFFIX.get(unit, f" {unit}")


def _number(value: float, unit: str) -> str:
    return style.number_text(round(value, DIGITS[unit]) + 0.0, DIGITS[unit])  # + 0.0: no minus before a zero


def measured_text(measured: Measured | None, unit: str) -> str:
    """`1.40× [1.38, 1.42]`; only the number where there is no interval, an en dash where there is nothing."""
    if measured is None:
        return "–"
    text = quantity(measured.value, unit)
    if measured.low is None or measured.high is None:
        return text
    return f"{text} [{_number(measured.low, unit)}, {_number(measured.high, unit)}]"


def expected_text(claim: Claim, bounds: Bounds) -> str:
    """What is expected, with its tolerance."""
    expected, unit = claim.expected, claim.unit
    points = f"{expected.points:g}{' points' if unit in SHARES else ''}"
    by = f"{expected.percent:g} %" if expected.percent else points if expected.points else ""
    if bounds.value is None:
        ends = f"{_number(bounds.low, unit)} to {quantity(bounds.high, unit)}"
        return f"{ends} (± {by} included)" if by else ends
    sign = {"at_least": "− ", "at_most": "+ "}.get(expected.direction, "± ")
    return f"{SIGNS[expected.direction]}{quantity(bounds.value, unit)}" + (f" {sign}{by}" if by else "")


def case_text(case: Case, unit: str) -> str:
    """One of the other cases: its number, and a cross where it is not what is expected."""
    if case.measured is None:
        return f"{case.title} – ({case.why})"
    return f"{case.title} {measured_text(case.measured, unit)}{'' if case.holds else ' ✗'}"


def counts_text(verdicts: Iterable[Verdict]) -> str:
    """How many of each."""
    counts = Counter(str(verdict.status) for verdict in verdicts)
    return ", ".join(f"{number} {status}" for status, number in sorted(counts.items()))


def why_text(verdict: Verdict) -> str:
    """The reason, and for a claim that was skipped or broken what would settle it."""
    unsettled = verdict.status in (Status.SKIPPED, Status.BROKEN)
    gpu = "needs a GPU: " if verdict.status == Status.SKIPPED and verdict.claim.backend == "gpu" else ""
    return f"{gpu}{verdict.why}: `{verdict.source.command}`" if unsettled else verdict.why


def lines(
    verdicts: Sequence[Verdict], broken: Mapping[str, str], notes: Mapping[str, Sequence[str]] | None = None
) -> list[str]:
    """What the terminal shows: a line per claim, reasons and other cases beneath it, then notes on tables."""
    texts = [(v, measured_text(v.measured, v.claim.unit), expected_text(v.claim, v.bounds)) for v in verdicts]
    ids, measured, expected = (
        max(map(len, column)) for column in zip(*((v.claim.id, m, e) for v, m, e in texts), strict=True)
    )
    shown = []
    for v, number, wanted in texts:
        shown.append(f"{v.status:8s} {v.claim.id:{ids}s}  {number:{measured}s}  {wanted:{expected}s}  {v.claim.paper}")
        shown += [f"{'':9s}{text}" for text in (why_text(v), *_cases(v)) if text]
    shown += [f"BROKEN {text}" for text in broken.values()]
    shown += [f"NOTE {text}: {', '.join(names)}" for text, names in (notes or {}).items()]
    unexpected = [v.claim.id for v in verdicts if v.status == Status.XPASS]
    shown += [f"XPASS (expected to fail, and passes): {', '.join(unexpected)}"] if unexpected else []
    return [*shown, "", f"{len(verdicts)} claims: {counts_text(verdicts)}"]


def _cases(verdict: Verdict) -> list[str]:
    text = "; ".join(case_text(case, verdict.claim.unit) for case in verdict.also)
    return [f"also: {text}"] if text else []


def table(verdicts: Iterable[Verdict]) -> pd.DataFrame:
    """One row of text per claim."""
    return pd.DataFrame(
        [
            {
                "claim": v.claim.id,
                "paper": v.claim.paper,
                "what it says": v.claim.statement,
                "measured": measured_text(v.measured, v.claim.unit),
                "expected": expected_text(v.claim, v.bounds),
                "printed in": v.bounds.printed,
                "verdict": str(v.status),
                "why, and other cases": "; ".join([t for t in (why_text(v),) if t] + _cases(v)) or "–",
                "from": _source(v),
                "cost": _cost(v.source),
            }
            for v in verdicts
        ]
    )


def _source(verdict: Verdict) -> str:
    """Backend, latency models, traces and seeds behind the number."""
    found = verdict.measured
    seeds = "" if found is None else f"{found.seeds} seed{'s' * (found.seeds != 1)}"
    parts = [] if found is None else [*found.latencies, *map(style.trace_label, found.traces), seeds]
    return ", ".join([verdict.claim.backend, *parts])


def _cost(cost: Source) -> str:
    gpu = f", {cost.gpu_h:g} GPU-hours" if cost.gpu_h else ""
    return f"{cost.human_min:g} min of yours, {cost.compute_min:g} min of computing{gpu}, {cost.disk_mb:g} MB"


HEAD = """# Claims

Measured: mean over seeds with its 95 % interval (Student's t; ratios and differences seed by seed, on the same
workloads). A claim passes when the mean is what is expected. ✗: another case in which it is not. Costs are those of the
whole table that a claim is read from. XFAIL: it is expected to fail, for the likely reason given; XPASS: it passes all
the same.
"""


def markdown_text(verdicts: Sequence[Verdict], broken: Mapping[str, str]) -> str:
    """The table as a Markdown file."""
    wrong = "".join(f"- BROKEN: {text}\n" for text in broken.values())
    return f"{HEAD}\n{counts_text(verdicts)}.\n\n{wrong}\n{markdown(table(verdicts))}"


def json_text(verdicts: Sequence[Verdict], broken: Mapping[str, str]) -> str:
    """Everything, for programs; numbers in the claim's unit, null for what is not."""
    rows = [_row(verdict) for verdict in verdicts]
    return json.dumps({"claims": rows, "broken_tables": dict(broken)}, indent=1, ensure_ascii=False) + "\n"


def _row(v: Verdict) -> dict[str, Any]:
    limits, claim = v.bounds, v.claim
    return {
        "id": claim.id,
        "paper": claim.paper,
        "statement": claim.statement,
        "status": str(v.status),
        "xfail": claim.xfail,
        "why": v.why or None,
        "unit": claim.unit,
        "measured": _numbers(v.measured),
        "expected": limits.value,
        "lowest": _finite(limits.low),
        "highest": _finite(limits.high),
        "printed_in": limits.printed,
        "also": [{"case": c.title, "holds": c.holds, "why": c.why or None, **_numbers(c.measured)} for c in v.also],
        "backend": claim.backend,
        "command": v.source.command,
        "cost": v.source.model_dump(include={"human_min", "compute_min", "gpu_h", "disk_mb"}),
    }


def _numbers(measured: Measured | None) -> dict[str, Any]:
    if measured is None:
        return {}
    names = ("value", "low", "high", "seeds", "requests", "traces", "latencies")
    return {name: getattr(measured, name) for name in names}


def _finite(value: float) -> float | None:
    return value if abs(value) != float("inf") else None
