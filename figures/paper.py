"""The paper's printed numbers (`paper_values.yaml`), looked up by our names of systems, traces and latency models."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from figures.style import SYNTHETIC

#: Class of Table 3 -> the latency that its SLO is about.
MEASURES = {"Q1": "ttft", "Q2": "ttlt", "Q3": "ttlt"}


@dataclass(frozen=True)
class Printed:
    """A number of the paper; `certain` is False where its label cannot be read for sure."""

    value: float
    where: str
    certain: bool = True


@cache
def values() -> dict[str, Any]:
    """Everything in the file. Callers must not change it."""
    return yaml.safe_load(Path(__file__).with_name("paper_values.yaml").read_text())


def scheme(system: str) -> str | None:
    """The paper's scheme that a system is compared with."""
    return next((name for name, systems in values()["schemes"].items() if system in systems), None)


def data_set(trace: str) -> str | None:
    """The paper's data set that a trace, or its synthetic one, is compared with."""
    base = trace.removesuffix(SYNTHETIC)
    return next((name for name, traces in values()["traces"].items() if base in traces), None)


def model(latency: str) -> str | None:
    """The paper's model that a latency model stands for."""
    return next((name for name, part in values()["models"].items() if part in latency), None)


def goodput(trace: str, system: str, latency: str) -> Printed | None:
    """Goodput per replica: Fig 7, and Table 5 for the two ablations, which Fig 7 has not."""
    name = scheme(system)
    for row in values()["fig7"]:
        if (row["trace"], row["model"]) == (data_set(trace), model(latency)) and name in row:
            return Printed(row[name], row["where"], name not in row.get("uncertain", ()))
    table = values()["table5"]
    if (table["trace"], table["model"]) == (data_set(trace), model(latency)):
        for row in table["rows"]:
            if row["scheme"] == name:
                return Printed(row["optimal_qps"], row["where"])
    return None


def prefill_goodput(trace: str, system: str, latency: str) -> Printed | None:
    """Goodput per prefill node of a disaggregated system: Fig 8."""
    for row in values()["fig8"]:
        if (row["trace"], row["model"]) == (data_set(trace), model(latency)) and scheme(system) in row:
            return Printed(row[scheme(system)], row["where"])
    return None


def overload_violations(trace: str, system: str, latency: str, low_qps: float, high_qps: float) -> dict[str, Any]:
    """Fig 12's violations of the system by group, as shares; empty for another trace, model or wave."""
    table = values()["fig12"]
    wave = table["trace"], table["model"], table["low_qps"], table["high_qps"]
    if wave != (data_set(trace), model(latency), low_qps, high_qps) or system == "qoserve-artifact":
        return {}
    return next((row for row in table["rows"] if row["scheme"] == scheme(system)), {})


def ablation(trace: str, system: str, latency: str) -> dict[str, Any] | None:
    """Table 5's row for a system: its optimal load, and the share violated at 6 requests/s."""
    table = values()["table5"]
    if (table["trace"], table["model"]) != (data_set(trace), model(latency)):
        return None
    return next((row for row in table["rows"] if row["scheme"] == scheme(system)), None)


def mix(system: str, name: str, load_qps: float) -> dict[str, Any] | None:
    """Table 6's row for a mix of classes, such as 70-15-15; it names no data set and has one load."""
    table = values()["table6"]
    own = (row for row in table["rows"] if (row["scheme"], row["mix"]) == (scheme(system), name))
    return next(own, None) if load_qps == table["load_qps"] else None


def other_slos(trace: str, system: str, latency: str) -> Printed | None:
    """Goodput under the other SLO set of section 4."""
    printed = values()["other_slos"]
    name = scheme(system)
    if (printed["trace"], printed["model"]) != (data_set(trace), model(latency)) or name not in printed["goodput"]:
        return None
    return Printed(printed["goodput"][name], printed["where"])


def fleet(trace: str, system: str, latency: str, name: str, load_qps: float) -> dict[str, Any] | None:
    """The paper's row for a fleet (Table 4, or the text for 4-3-3); it ran at one load only."""
    table = values()["table4"]
    if (table["trace"], table["model"], table["load_qps"]) != (data_set(trace), model(latency), load_qps):
        return None
    same = (row for row in table["rows"] if (row["scheme"], row["fleet"]) == (scheme(system), name))
    return next(same, None)


def planned_gpus(trace: str, system: str, latency: str, load_qps: float) -> Printed | None:
    """GPUs that the paper's Fig 1 gives the system."""
    name = values()["table4"]["planned"].get(scheme(system) or "")
    row = fleet(trace, system, latency, name, load_qps) if name else None
    return Printed(row["gpus"], "Fig 1, Table 4") if row else None


def deadline_s(group: str) -> float:
    """The SLO of a class of Table 3, for its latency."""
    return values()["slo"][group][f"{MEASURES[group]}_s"]
