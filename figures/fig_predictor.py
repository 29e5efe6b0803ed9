"""What a wrong predictor costs: noise on step times, and another model than the executor's. Not in the paper."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_dots
from figures.frames import SEARCH_COLUMNS, Tables, Variant, latencies, require

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


def variants(tables: Tables) -> list[Variant]:
    """One per latency model that executes."""
    return latencies(require(tables, "predictor_error", SEARCH_COLUMNS))


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


def table(tables: Tables) -> pd.DataFrame:
    """Capacities; columns as of `capacity_dots.table`."""
    return capacity_dots.table(_frame(tables))


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people."""
    return capacity_dots.text_table(table(tables))


def draw(tables: Tables, variant: Variant) -> Figure:
    """One lane per predictor and noise."""
    return capacity_dots.draw(_frame(tables), variant)
