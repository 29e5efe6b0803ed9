"""Fig 7b and 7c: goodput per replica for Qwen-7B (two A100) and Llama-3-70B (four H100), as Fig 7 draws it.

Their engines were not measured: a latency model is either the kernels alone, or those mapped to the authors' engine.
"""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import goodput, paper
from figures.frames import SEARCH_COLUMNS, Tables, Variant, latencies, require

TITLE = "Fig 7b and 7c: goodput of Qwen-7B and Llama-3-70B"
INPUTS = ("fig7_qwen7b_a100_tp2", "fig7_llama70b_h100_tp4")


def _frame(tables: Tables) -> pd.DataFrame:
    """Both tables as one that has the columns of `capacity`."""
    frames = [require(tables, name, SEARCH_COLUMNS) for name in INPUTS]
    return pd.concat(frames, ignore_index=True).assign(run_length="paper")


def variants(tables: Tables) -> list[Variant]:
    """One per latency model, a model's own together."""
    return latencies(_frame(tables))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows, and which of the paper's labels cannot be told apart."""
    name = paper.model(variant.latency)
    text = f"{name}, latency model {variant.latency}: " + (
        "the kernels' times alone, which no engine beats. "
        if variant.latency.endswith("kernels")
        else "kernel times, times the factor and plus the offset that lead from the kernels to the authors' engine on "
        "one A100; that it costs the same here is an assumption. "
    )
    rows = [row for row in paper.values()["fig7"] if row["model"] == name]
    if any("uncertain" in row for row in rows):
        text += "Hollow stars: which of two bars the printed label belongs to cannot be read for sure. "
    unassigned = [row for row in paper.values()["fig7_unassigned"] if row["model"] == name]
    for row in unassigned:
        labels = ", ".join(f"{value:g}" for value in row["values"])
        text += f"{row['where']} also prints {labels} for {row['traces']}; which is which cannot be recovered. "
    return text + goodput.caption(variant.latency)


def draw(tables: Tables, variant: Variant) -> Figure:
    """As Fig 7."""
    return goodput.draw(variant.rows(_frame(tables)))


def table(tables: Tables) -> pd.DataFrame:
    """As Fig 7's."""
    return goodput.table(_frame(tables))


def text_table(tables: Tables) -> pd.DataFrame:
    """As Fig 7's, without the columns for longer runs; a `?` where the paper's label cannot be read for sure."""
    rows = table(tables)
    found = goodput.text_table(rows)
    printed = [paper.goodput(*key) for key in zip(rows["trace"], rows["system"], rows["latency"], strict=True)]
    doubts = ["?" if p is not None and not p.certain else "" for p in printed]
    found["paper"] = [text + doubt for text, doubt in zip(found["paper"], doubts, strict=True)]
    return found.drop(columns=["long N", "long run"])
