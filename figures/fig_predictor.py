"""What a wrong predictor costs: noise on step times, and another model than the executor's. Not in the paper."""

from __future__ import annotations

import pandas as pd

from figures import capacity_dots
from figures.frames import SEARCH_COLUMNS, Tables, Variant, require

TITLE = "Predictor error and hardware mismatch (not in the paper)"
INPUTS = ("predictor_error",)
ORACLE = "(oracle)"  # marks a predictor that is the executor's own model


def _frame(tables: Tables) -> pd.DataFrame:
    """Searches, the variant's first word (the predictor) replaced by what it is to the executor; oracles first."""
    frame = require(tables, "predictor_error", SEARCH_COLUMNS)
    oracle = frame["predictor"].str.contains(ORACLE, regex=False)
    rest = [f",{more}" if more else "" for _, _, more in frame["variant"].str.partition(",").to_numpy()]
    label = oracle.map({True: "own model", False: "other model"}) + rest
    return frame.assign(variant=label, other=~oracle).sort_values("other", kind="stable").drop(columns="other")


_LANES = capacity_dots.Lanes(_frame)
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    own = variant.rows(require(tables, "predictor_error", SEARCH_COLUMNS))
    others = sorted({name for name in own["predictor"] if ORACLE not in name})
    return (
        f"Goodput when the predictor is wrong, steps executed by latency model {variant.latency}; not in the paper. "
        f"Own model: the executor's; other: {', '.join(others) or 'none here'}. Noise: standard deviation of the "
        "logarithm of step times. "
        "Margin 1: predictions are taken as they come, where the default adds 20 %. "
        f"{capacity_dots.READING}"
    )
