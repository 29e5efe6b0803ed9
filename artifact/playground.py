"""A sweep small enough to play with: other SLOs, mix and loads, and the figure of violations about a second later."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from artifact.experiments.grid import run_rows
from artifact.runs.run import BACKEND
from artifact.runs.spec import ClassSpec, RunSpec, every

SYSTEMS = ("sarathi-fcfs", "sarathi-edf", "niyama")
TRACE = "azure-code-2024-week-synth"  # synthetic: there without a download


def mixed(shares: Mapping[str, float], slos: Mapping[str, Mapping[str, float]]) -> tuple[ClassSpec, ...]:
    """QoS classes from shares in any unit (1:1:1, or per cent) and SLOs in s (`ttft_s` and `tbt_s`, or `ttlt_s`).

    ValueError when nothing has a share, or a class no SLOs that make sense.
    """
    total = sum(shares.values())
    if not total > 0:
        raise ValueError(f"shares is {dict(shares)}; give at least one class a share above 0")
    return tuple(ClassSpec(name=name, share=share / total, **slos[name]) for name, share in shares.items())


def violations(
    classes: tuple[ClassSpec, ...],
    loads_qps: Sequence[float],
    requests: int,
    seeds: int = 1,
    trace: str = TRACE,
    systems: Sequence[str] = SYSTEMS,
    **more: Any,
) -> dict[str, pd.DataFrame]:
    """The table `summary` of every system at every load, as figures take it.

    more: other fields of RunSpec, such as low_importance_share or latency. ConfigError on values that make no sense.
    """
    one = {"trace": trace, "system": systems[0], "load_qps": float(loads_qps[0]), "requests": requests}
    specs = every(RunSpec(**one, classes=classes, **more), systems, loads_qps, seeds)
    frame = pd.DataFrame(run_rows(specs))
    frame.attrs = {"backend": BACKEND, "classes": [one.model_dump() for one in classes]}
    return {"summary": frame}


def at_load(tables: Mapping[str, pd.DataFrame], load_qps: float) -> pd.DataFrame:
    """Violated requests in per cent at one load: a row per system, a column per group; means over seeds."""
    frame = tables["summary"]
    rows = frame[frame["load_qps"] == load_qps]
    wide = rows.pivot_table(index="system", columns="group", values="violation_rate", sort=False)
    return (100 * wide).round(1).rename_axis(columns=f"violated at {load_qps:g} QPS (%)")
