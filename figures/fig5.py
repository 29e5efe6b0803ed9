"""Fig 5: median latency with and without eager relegation, and how many requests it relegates for that."""

from __future__ import annotations

import pandas as pd
from matplotlib.figure import Figure

from figures import load_lines, paper, style
from figures.frames import RUN_COLUMNS, Tables, Variant, joined, traces_and_latencies

TITLE = "Fig 5: eager relegation"
INPUTS = ("summary", "more_systems")
SYSTEMS = ("niyama-dc", "niyama-dc-er", "niyama")
#: title -> group of requests, column, unit
PANELS = {
    "TTLT of all, p50": ("all", "ttlt_p50_s", "seconds"),
    "Q1 TTFT, p50": ("Q1", "ttft_p50_s", "seconds"),
    "relegated": ("all", "relegated_share", "% of requests"),
}
COLUMNS = (*RUN_COLUMNS, *(column for _, column, _ in PANELS.values()))


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(_frame(tables))


def _frame(tables: Tables) -> pd.DataFrame:
    frame = joined(tables, INPUTS, COLUMNS)
    return frame[frame["system"].isin(SYSTEMS) & (frame["load_qps"] >= min(paper.values()["fig5"]["loads_qps"]))]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    printed = paper.values()["fig5"]
    labels = ", ".join(f"{share * 100:.0f}" for share in printed["relegated_labels"])
    return (
        f"Fig 5: eager relegation on {style.trace_label(variant.trace)}, latency model {variant.latency}. DC never "
        "relegates, DC+ER does, both in EDF order; Niyama adds hybrid priority. Right: requests that were relegated at "
        "any time. Lines: mean over seeds (geometric for latencies). Grey: loads of the paper's bars (2024 week), on "
        f"which it prints {labels} % relegated; which label is whose cannot be read for sure."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """Two panels of medians and one of shares."""
    frame = variant.rows(_frame(tables))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    loads = paper.values()["fig5"]["loads_qps"]
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.7)
        panels = figure.subplots(1, len(PANELS), sharex=True, squeeze=False)
        load_lines.finish(figure, panels, "", systems)
        for ax, (title, (group, column, unit)) in zip(panels[0], PANELS.items(), strict=True):
            load_lines.panel(ax, title, column, load_lines.by_system(frame[frame["group"] == group], systems))
            ax.axvspan(min(loads), max(loads), color="#EDEDED", lw=0, zorder=0)
            ax.set_ylabel(unit, labelpad=2)
        style.footer(figure, frame, {frame["seed"].nunique()}, load_lines.BANDS)
    return figure
