"""Where predictions are wrong: niyama-steady beside Niyama, the authors' code and the baselines. Not in the paper."""

from __future__ import annotations

import pandas as pd

from figures import capacity_dots, style
from figures.frames import SEARCH_COLUMNS, Tables, Variant, require, traces_and_latencies

TITLE = "Niyama-steady where predictions are wrong (not in the paper)"
INPUTS = ("steady", "steady_roofline")


def _frame(tables: Tables) -> pd.DataFrame:
    return pd.concat([require(tables, name, SEARCH_COLUMNS) for name in INPUTS], ignore_index=True)


_LANES = capacity_dots.Lanes(_frame)
table, text_table, draw = _LANES.table, _LANES.text_table, _LANES.draw


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Goodput on {style.trace_label(variant.trace)} when predicted step times are wrong, steps executed by "
        f"latency model {variant.latency}; not in the paper. Niyama spends all its slack but the margin of one step, "
        "so a step that takes longer than predicted makes a token late; niyama-steady keeps a reserve of 4 TBT, "
        "whatever the predictor's bias. Own model: the executor's. Other model: the other latency model of the same "
        "GPU. Kernels alone: steps take 1.6 times as long as predicted; corrected: by measured step times, as "
        "vLLM's scheduler does. Noise: standard deviation of the logarithm of step times; bursts and stalls: 15 %, "
        "half of the variance shared by 50 steps in a row, and one step in 500 takes three times as long. "
        f"{capacity_dots.READING}"
    )
