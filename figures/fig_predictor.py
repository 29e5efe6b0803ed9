"""What a wrong predictor costs: noise on step times, and another model than the executor's. Not in the paper."""

from __future__ import annotations

import pandas as pd

from figures import capacity_dots
from figures.frames import SEARCH_COLUMNS, Tables, Variant, require

TITLE = "Predictor error and hardware mismatch (not in the paper)"
INPUTS = ("predictor_error",)
ORACLE = "(oracle)"  # marks a predictor that is the executor's own model


def _label(variant: str, predictor: str) -> tuple[int, str]:
    """A lane's place and name: variants named after the predictor's kind say what it is to the executor instead."""
    kind, comma, rest = variant.partition(",")
    if ORACLE in predictor:
        return 0, f"own model{comma}{rest}"
    return (1, f"other model{comma}{rest}") if predictor.endswith(f"-{kind}") else (2, f"{variant}:\n{predictor}")


def _frame(tables: Tables) -> pd.DataFrame:
    """Searches by what the predictor is to the executor: its own, another of the same GPU, of other hardware."""
    frame = require(tables, "predictor_error", SEARCH_COLUMNS)
    labels = [_label(*pair) for pair in zip(frame["variant"], frame["predictor"], strict=True)]
    frame = frame.assign(variant=[name for _, name in labels], place=[place for place, _ in labels])
    return frame.sort_values("place", kind="stable").drop(columns="place")


_LANES = capacity_dots.Lanes(_frame)
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    own = variant.rows(_frame(tables))
    others = own[~own["predictor"].str.contains(ORACLE, regex=False)]
    kinds = others["variant"].str.partition(",")[0].str.partition(":")[0]
    used = dict(zip(kinds, others["predictor"], strict=True))
    cards = "".join(f"{name}: {card}; " for name, card in used.items())
    return (
        f"Goodput when the predictor is wrong, steps executed by latency model {variant.latency}; not in the paper. "
        f"Predictors: own model: the executor's; {cards}noise: standard deviation of the "
        "logarithm of step times. "
        "Margin 1: predictions are taken as they come, where the default adds 20 %. "
        f"{capacity_dots.READING}"
    )
