"""The classes of a table's runs: names from its groups, SLOs from its metadata. Nothing is taken to be Table 3's.

A table that the pipeline wrote has no SLOs in its metadata; classes that are called as those of Table 3 are taken to
have Table 3's SLOs only if no row of the table speaks against it.
"""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd

from figures import paper
from figures.frames import CRITERION_PAPER
from figures.groups import is_group

SHARE_LATE = {"p50": 0.5, "p95": 0.05, "p99": 0.01}  # of the requests beyond a quantile
NEAR = 0.003  # a violated share so near to SHARE_LATE says nothing: quantiles are interpolated


@dataclass(frozen=True)
class Class:
    """A class of requests, the latency that its SLO is about (`ttft` or `ttlt`), and the SLO; None: not known."""

    name: str
    measure: str
    slo_s: float | None
    tbt_s: float | None = None

    @property
    def title(self) -> str:
        """`Q1 TTFT`."""
        return f"{self.name} {self.measure.upper()}"


def names(frame: pd.DataFrame) -> list[str]:
    """Names of the classes, in the order of the rows."""
    return [name for name in dict.fromkeys(frame["group"]) if not is_group(str(name))]


def classes(frame: pd.DataFrame) -> list[Class]:
    """The classes of the runs of a table with a row per run and group."""
    recorded = {about["name"]: about for about in frame.attrs.get("classes", ())}
    return [_class(name, frame[frame["group"] == name], recorded.get(name)) for name in names(frame)]


def _class(name: str, rows: pd.DataFrame, recorded: dict | None) -> Class:
    if recorded is not None:
        measure = "ttlt" if recorded.get("ttft_s") is None else "ttft"
        return Class(name, measure, recorded[f"{measure}_s"], recorded.get("tbt_s"))
    printed = paper.values()["slo"].get(name)
    if "late_token_share" in rows:  # only interactive requests have token deadlines
        measure = "ttft" if rows["late_token_share"].notna().any() else "ttlt"
    else:
        measure = paper.MEASURES.get(name, "ttlt")
    if printed is None or measure != paper.MEASURES[name] or not _agree(rows, measure, paper.deadline_s(name)):
        return Class(name, measure, None)
    return Class(name, measure, paper.deadline_s(name), printed.get("tbt_s"))


def _agree(rows: pd.DataFrame, measure: str, slo_s: float) -> bool:
    """Whether each quantile of the latency is on that side of the SLO on which the violated share says it is."""
    for quantile, share in SHARE_LATE.items():
        column = f"{measure}_{quantile}_s"
        if {column, CRITERION_PAPER} <= set(rows.columns):
            far = rows[(rows[CRITERION_PAPER] - share).abs() > NEAR]
            if ((far[column] > slo_s) != (far[CRITERION_PAPER] > share)).any():
                return False
    return True
