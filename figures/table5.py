"""Table 5, the ablation: capacity and violations at 6 requests/s as the mechanisms join, one by one."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import marks, paper, style
from figures.capacities import pick
from figures.frames import (
    CAPACITY_COLUMNS,
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    columns,
    estimate,
    joined,
    require,
    traces_and_latencies,
)

TITLE = "Table 5: ablation"
INPUTS = ("capacity", "summary", "more_systems")
SYSTEMS = ("sarathi-edf", "niyama-dc", "niyama-dc-er", "niyama")
LOAD_QPS = 6.0
RUNS = ("summary", "more_systems")
COLUMNS = (*RUN_COLUMNS, CRITERION_PAPER)
PRINTED = "Stars: the paper's Table 5 (its Fig 7 prints 2.6 for EDF and 3.8 for QoServe)."
NOTHING_PRINTED = "The paper prints no numbers for this trace and model."
#: title -> name of the number in `table`, scale
PANELS = {
    "goodput per replica (QPS)": ("capacity_qps", 1.0),
    f"violated at {LOAD_QPS:g} QPS (%)": ("violation_rate", 100.0),
}


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    require(tables, "capacity", CAPACITY_COLUMNS)
    return traces_and_latencies(_runs(tables))


def _runs(tables: Tables) -> pd.DataFrame:
    frame = joined(tables, RUNS, COLUMNS)
    here = (frame["group"] == "all") & (frame["load_qps"] == LOAD_QPS) & frame["system"].isin(SYSTEMS)
    return frame[here]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    own = variant.rows(tables["capacity"])
    requests = style.counted(own.loc[own["run_length"] == "paper", "requests"])
    printed = paper.ablation(variant.trace, "niyama", variant.latency)
    return (
        f"Table 5: what each mechanism adds, on {style.trace_label(variant.trace)}, latency model {variant.latency}. "
        "EDF with a fixed chunk; DC: dynamic chunking; ER: eager relegation; Niyama adds hybrid priority. Left: the "
        f"load at which the worst class crosses 1 % (N = {requests}); right: share of all requests that miss TTFT or "
        "TTLT, above every system's capacity, where the value depends on N. Error bars: 95 % interval over seeds. "
        + (PRINTED if printed else NOTHING_PRINTED)
    )


def table(tables: Tables) -> pd.DataFrame:
    """One row per system: capacity (QPS) and violated share at 6 QPS, with intervals, and the paper's; nan: none."""
    runs, capacity = _runs(tables), require(tables, "capacity", CAPACITY_COLUMNS)
    rows = []
    for variant in variants(tables):
        own, here = variant.rows(capacity), variant.rows(runs)
        for system in style.in_order(set(here["system"]), SYSTEMS):
            row = {"latency": variant.latency, "trace": variant.trace, "system": system}
            picked = pick(own, system, CRITERION_PAPER, "paper")
            goodput = None if picked is None else estimate(picked["seed_capacity_qps"])
            share = estimate(here.loc[here["system"] == system, CRITERION_PAPER])
            row |= {**columns("capacity_qps", goodput), **columns("violation_rate", share)}
            printed = paper.ablation(variant.trace, system, variant.latency) or {}
            row["capacity_qps_paper"] = printed.get("optimal_qps", math.nan)
            row["violation_rate_paper"] = printed.get("violation_rate_at_6_qps", math.nan)
            rows.append(row)
    return pd.DataFrame(rows)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows = table(tables)
    text = pd.DataFrame(
        {
            "latency": rows["latency"],
            "trace": rows["trace"].map(style.trace_label),
            "system": [style.look(system).label for system in rows["system"]],
        }
    )
    for title, (name, scale) in PANELS.items():
        numbers = rows[[name, f"{name}_low", f"{name}_high"]].to_numpy() * scale
        text[title] = [style.interval_text(*values) for values in numbers]
        text[f"paper: {title}"] = (rows[f"{name}_paper"] * scale).map(style.number_text)
    return text


def draw(tables: Tables, variant: Variant) -> Figure:
    """Two panels of bars, one lane per system."""
    rows = variant.rows(table(tables))
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.3)
        panels = figure.subplots(1, len(PANELS), sharey=True)
        for ax, (title, (name, scale)) in zip(panels, PANELS.items(), strict=True):
            for lane, row in enumerate(rows.to_dict("records")):
                _bar(ax, lane, row, name, scale)
            ax.set_yticks(range(len(rows)), [style.look(s).label for s in rows["system"]])
            ax.set_ylim(len(rows) - 0.4, -0.6)
            ax.set_xlabel(title, labelpad=2)
            ax.margins(x=0.08)
            ax.set_xlim(left=0)
            ax.tick_params(axis="y", length=0)
            style.tidy(ax, grid="x")
        if rows["capacity_qps_paper"].notna().any():
            style.legend_above(figure, [marks.star_handle()], 1)
        frame = variant.rows(_runs(tables))
        bars = "error bars: 95 % interval over seeds (Student's t)"
        style.footer(figure, frame, {frame["seed"].nunique()}, bars)
    return figure


def _bar(ax: Axes, lane: int, row: dict, name: str, scale: float) -> None:
    if math.isnan(row[name]):
        marks.say(ax, "no crossing", 0, lane)
    else:
        ax.barh(lane, row[name] * scale, height=0.62, color=style.look(row["system"]).colour, zorder=2)
    marks.interval(ax, lane, row[f"{name}_low"] * scale, row[f"{name}_high"] * scale)
    if not math.isnan(row[f"{name}_paper"]):
        ax.plot(row[f"{name}_paper"] * scale, lane, **marks.star())
