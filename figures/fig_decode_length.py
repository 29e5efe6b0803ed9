"""What a wrong estimate of the decode length costs: Niyama with other estimators. Not in the paper."""

from __future__ import annotations

from figures import capacity_dots
from figures.frames import Tables, Variant, beside_plain

TITLE = "Mispredicted decode lengths (not in the paper)"
INPUTS = ("capacity", "decode_length")
_LANES = capacity_dots.Lanes(lambda tables: beside_plain(tables, "decode_length", "history, mean + 2σ (paper)"))
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Niyama's goodput with other estimates of the decode length, latency model {variant.latency}; not in the "
        "paper. History: of the requests of the same class that have finished; constants: tokens, whatever the "
        f"request; oracle: the true length, which no real scheduler has. {capacity_dots.READING}"
    )
