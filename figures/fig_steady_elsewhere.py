"""niyama-steady with other SLOs, an engine that plans ahead, and a model whose KV is short. Not in the paper."""

from __future__ import annotations

import pandas as pd

from figures import capacity_dots
from figures.frames import SEARCH_COLUMNS, Tables, Variant, require

TITLE = "Niyama-steady elsewhere (not in the paper)"
INPUTS = ("steady_elsewhere", "steady_qwen")


def _frame(tables: Tables) -> pd.DataFrame:
    return pd.concat([require(tables, name, SEARCH_COLUMNS) for name in INPUTS], ignore_index=True)


_LANES = capacity_dots.Lanes(_frame)
variants, table, text_table, draw = _LANES.variants, _LANES.table, _LANES.text_table, _LANES.draw


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Goodput of niyama-steady in other settings, latency model {variant.latency}; not in the paper. TTFT 1 s: "
        "Q1 of 1 s instead of 6 s. 3 s | 6 s | 1,000 s: two interactive classes of 50 ms and a batch class. "
        "Asynchronous: a step is planned while the one before is in flight, from its predicted end; kernels alone: "
        f"steps take 1.6 times as long as predicted. {capacity_dots.READING}"
    )
