"""Fig 7: goodput per replica of every system on every trace, with what the paper printed, for one latency model."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import goodput
from figures.frames import CAPACITY_COLUMNS, Tables, Variant, latencies, require

TITLE = "Fig 7: goodput per replica"
INPUTS = ("capacity",)


def _frame(tables: Tables) -> pd.DataFrame:
    return require(tables, "capacity", CAPACITY_COLUMNS)


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return goodput.caption(variant.latency)


def table(tables: Tables) -> pd.DataFrame:
    """One row per bar; columns as of `goodput.table`."""
    return goodput.table(_frame(tables))


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    return goodput.text_table(table(tables))


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per trace, one lane per system."""
    return goodput.draw(variant.rows(_frame(tables)))
