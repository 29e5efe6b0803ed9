"""Arrivals that are not Poisson: the trace's own timestamps and gamma bursts. Not in the paper."""

from __future__ import annotations

from figures import capacity_dots
from figures.frames import Tables, Variant, beside_plain

TITLE = "Arrivals other than Poisson (not in the paper)"
INPUTS = ("capacity", "arrivals")
_LANES = capacity_dots.Lanes(lambda tables: beside_plain(tables, "arrivals", "Poisson"))
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Goodput under other arrival processes of the same mean rate, latency model {variant.latency}; not in the "
        "paper, which uses Poisson. Trace: the trace's own timestamps, stretched or squeezed to the load and repeated; "
        f"gamma: independent gaps with that coefficient of variation (Poisson: 1). {capacity_dots.READING}"
    )
