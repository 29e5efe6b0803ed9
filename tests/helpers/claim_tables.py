"""Made-up tables and claims about them."""

from __future__ import annotations

from pathlib import Path

import yaml

from artifact.claims.model import Claim, Expected, Source

LINEAR = "a100-llama3-8b-linear"
GAIN = {"niyama": (4.0, 4.4, 4.2), "sarathi-edf": (2.0, 2.0, 3.0)}  # QPS by seed


def rows() -> list[dict]:
    """A made-up sweep: violations rise with the load, and seed k adds 0.001 k."""
    return [
        {
            "backend": "sim",
            "trace": "azure-code-2024-week-synth",
            "system": system,
            "latency": LINEAR,
            "requests": 1000,
            "load_qps": load,
            "seed": seed,
            "group": group,
            "gpus": 10 if system == "niyama" else 13,
            "violation_rate": 0.01 * (load - 2.0) * (1 if system == "niyama" else 5) + 0.001 * seed,
            "exact": True,
        }
        for system in GAIN
        for load in (2.0, 3.0, 4.0)
        for seed in range(3)
        for group in ("Q1", "Q2")
    ]


def capacities() -> list[dict]:
    same = {"backend": "sim", "trace": "t", "latency": LINEAR, "requests": 1000}
    return [{**same, "system": name, "by_seed": list(values)} for name, values in GAIN.items()]


def claim(**changes) -> Claim:
    """A claim about the table `runs`, with `measure` and `expected` replaced key by key."""
    values = {
        "id": "one",
        "paper": "Fig 7a",
        "statement": "It holds more.",
        "unit": "times",
        "measure": {"table": "runs", "column": "violation_rate", "where": {"group": "Q1"}},
        "expected": {"direction": "at_most", "value": 1.0, "because": "made up"},
    }
    for key, value in changes.items():
        values[key] = {**values[key], **value} if key == "measure" else value
    return Claim.model_validate(values)


SOURCES = {"runs": Source(target="results/tables/runs.parquet", human_min=1, compute_min=1, disk_mb=1)}


def write_claims(path: Path, *claims: Claim | dict) -> Path:
    """A file of claims about the table `runs`."""
    rows = [one if isinstance(one, dict) else one.model_dump(exclude_none=True, by_alias=True) for one in claims]
    tables = {name: source.model_dump(exclude_none=True) for name, source in SOURCES.items()}
    path.write_text(yaml.safe_dump({"tables": tables, "claims": rows}))
    return path


NIYAMA, EDF = {"system": "niyama"}, {"system": "sarathi-edf"}
AT4 = {"group": "Q1", "load_qps": 4.0}


SOUND = claim(measure={"where": AT4, "of": NIYAMA, "against": EDF, "combine": "ratio"}, same_hardware_as="Llama3-8B")


def with_expected(value: float, **more) -> Claim:
    expected = {"direction": "at_most", "value": value, "because": "made up"}
    return SOUND.model_copy(update={"expected": Expected.model_validate(expected), **more})
