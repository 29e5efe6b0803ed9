"""Arrivals that are not Poisson: the trace's own timestamps and gamma bursts. Not in the paper."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_dots
from figures.frames import Tables, Variant, beside_plain, latencies

TITLE = "Arrivals other than Poisson (not in the paper)"
INPUTS = ("capacity", "arrivals")


def _frame(tables: Tables) -> pd.DataFrame:
    return beside_plain(tables, "arrivals", "Poisson")


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Goodput under other arrival processes of the same mean rate, latency model {variant.latency}; not in the "
        "paper, which uses Poisson. Trace: the trace's own timestamps, stretched or squeezed to the load and repeated; "
        f"gamma: independent gaps with that coefficient of variation (Poisson: 1). {capacity_dots.READING}"
    )


def table(tables: Tables) -> pd.DataFrame:
    """Capacities; columns as of `capacity_dots.table`."""
    return capacity_dots.table(_frame(tables))


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people."""
    return capacity_dots.text_table(table(tables))


def draw(tables: Tables, variant: Variant) -> Figure:
    """One lane per arrival process."""
    return capacity_dots.draw(_frame(tables), variant)
