"""What each part of niyama-steady brings: one switched off at a time. Not in the paper."""

from __future__ import annotations

import pandas as pd

from figures import capacity_dots
from figures.frames import SEARCH_COLUMNS, Tables, Variant, require

TITLE = "The parts of niyama-steady (not in the paper)"
INPUTS = ("steady_parts",)


def _frame(tables: Tables) -> pd.DataFrame:
    return require(tables, INPUTS[0], SEARCH_COLUMNS)


_LANES = capacity_dots.Lanes(_frame)
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        "Goodput of niyama-steady without one of its parts, 10 % noise on step times, latency model "
        f"{variant.latency}; not in the paper. Slots and the share for late requests show in overload, not in "
        f"goodput. {capacity_dots.READING}"
    )
