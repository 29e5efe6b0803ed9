"""What a wrong estimate of the decode length costs: Niyama with other estimators. Not in the paper."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_dots
from figures.frames import Tables, Variant, beside_plain, latencies

TITLE = "Mispredicted decode lengths (not in the paper)"
INPUTS = ("capacity", "decode_length")


def _frame(tables: Tables) -> pd.DataFrame:
    return beside_plain(tables, "decode_length", "history, mean + 2σ (paper)")


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Niyama's goodput with other estimates of the decode length, latency model {variant.latency}; not in the "
        "paper. History: of the requests of the same class that have finished; constants: tokens, whatever the "
        f"request; oracle: the true length, which no real scheduler has. {capacity_dots.READING}"
    )


def table(tables: Tables) -> pd.DataFrame:
    """Capacities; columns as of `capacity_dots.table`."""
    return capacity_dots.table(_frame(tables))


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people."""
    return capacity_dots.text_table(table(tables))


def draw(tables: Tables, variant: Variant) -> Figure:
    """One lane per estimator."""
    return capacity_dots.draw(_frame(tables), variant)
