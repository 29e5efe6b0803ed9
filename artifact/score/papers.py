"""The papers' claims beside what the suite says: for each peer a ratio to its paper's baseline, over cells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd

from artifact.config import Strict, parse, read_yaml
from artifact.score.compare import cells_of, comparable
from artifact.score.scorecard import Scorecard

PAPERS = Path(__file__).with_name("papers.yaml")
AXIS = {"capacity": "capacity_qps", "attained": "violated_above", "fairness": "fairness"}


class Claim(Strict):
    """What a paper says of a policy, and what is measured beside it."""

    policy: str
    baseline: str
    claim: str
    measure: Literal["capacity", "attained", "fairness"]
    why: str


def claims() -> list[Claim]:
    """All claims of the file."""
    return [parse(Claim, row, f"{PAPERS.name} row {i + 1}") for i, row in enumerate(read_yaml(PAPERS))]


def ratios(claim: Claim, cards: Mapping[str, Scorecard]) -> list[float]:
    """The policy's number over its baseline's in each cell that has both; infinite where the baseline holds nothing."""
    mine, other = cards.get(claim.policy), cards.get(claim.baseline)
    if mine is None or other is None:
        return []
    axis, found = AXIS[claim.measure], []
    for cell in cells_of([mine]):
        own, theirs = mine.values(cell, axis), other.values(cell, axis)
        if own is None or theirs is None or not comparable(mine, other, cell):
            continue
        a, b = float(np.mean(own)), float(np.mean(theirs))
        if claim.measure == "attained":
            a, b = 1.0 - a, 1.0 - b
        if a > 0 or b > 0:
            found.append(a / b if b > 0 else np.inf)
    return found


def claims_table(cards: Sequence[Scorecard]) -> pd.DataFrame:
    """A row for each claim that can be compared."""
    by_label, rows = {card.label: card for card in cards}, []
    for claim in claims():
        if found := ratios(claim, by_label):
            median = float(np.median(found))
            rows.append(
                {
                    "policy": f"`{claim.policy}`",
                    "its paper": claim.claim,
                    "here": f"{_text(median)} times `{claim.baseline}` ({_text(min(found))} to {_text(max(found))})",
                    "measured": f"{claim.measure}, median of {len(found)} cells and range",
                    "why they differ": claim.why,
                }
            )
    return pd.DataFrame(rows)


def _text(ratio: float) -> str:
    return f"{ratio:.2f}" if np.isfinite(ratio) else "∞"
