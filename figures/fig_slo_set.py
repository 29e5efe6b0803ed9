"""The other SLO set of section 4, two interactive classes and a batch class, beside Table 3's."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import capacity_dots, paper
from figures.frames import Tables, Variant, beside_plain, latencies

TITLE = "Other SLOs (section 4)"
INPUTS = ("capacity", "other_slos")
PLAIN = "6 s | 600 s | 1,800 s (Table 3)"


def _frame(tables: Tables) -> pd.DataFrame:
    return beside_plain(tables, "other_slos", PLAIN)


def _printed(trace: str, variant: str, system: str, latency: str) -> paper.Printed | None:
    return (paper.goodput if variant == PLAIN else paper.other_slos)(trace, system, latency)


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Other SLOs: equal thirds with TTFT 3 s, TTFT 6 s (both TBT 50 ms) and TTLT 1,000 s, beside those of Table 3; "
        f"latency model {variant.latency}. {capacity_dots.READING} The paper's 5.0 QPS is above its own 4.3 for the "
        "looser SLOs of Table 3, which it does not explain."
    )


def table(tables: Tables) -> pd.DataFrame:
    """Capacities; columns as of `capacity_dots.table`."""
    return capacity_dots.table(_frame(tables), _printed)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table for people."""
    return capacity_dots.text_table(table(tables))


def draw(tables: Tables, variant: Variant) -> Figure:
    """One lane per SLO set."""
    return capacity_dots.draw(_frame(tables), variant, _printed)
