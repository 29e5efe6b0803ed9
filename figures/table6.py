"""Table 6: other mixes of the classes, 70-15-15 and 15-15-70, above capacity: latency by class, and violations."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import NullFormatter

from figures import marks, paper, style
from figures.classes import classes
from figures.frames import (
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    columns,
    estimate,
    estimate_of_log,
    require,
    traces_and_latencies,
)
from figures.paper import MEASURES

TITLE = "Table 6: other mixes of the classes"
INPUTS = ("mixes",)
COLUMNS = (*RUN_COLUMNS, "variant", CRITERION_PAPER, *(f"{m}_{q}_s" for m in ("ttft", "ttlt") for q in ("p50", "p99")))
SHARE = "violation_rate"


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "mixes", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    load_qps = variant.rows(require(tables, "mixes", COLUMNS))["load_qps"].iloc[0]
    return (
        f"Table 6: mixes Q1-Q2-Q3 of 70-15-15 and 15-15-70 at {load_qps:g} QPS on {style.trace_label(variant.trace)}, "
        f"latency model {variant.latency}. Dots: medians (geometric mean over seeds); small: 99th percentiles; stars: "
        "the paper, whose header says median and whose text says p99, which names no data set and prints one row for "
        "FCFS under both mixes. Above capacity all but Niyama's Q1 depends on N."
    )


def table(tables: Tables) -> pd.DataFrame:
    """One row per mix and system: latency of each class (s), violated share, with intervals, and the paper's row."""
    frame = require(tables, "mixes", COLUMNS)
    rows = []
    for key, own in frame.groupby(["latency", "trace", "variant", "system"], sort=False):
        row = dict(zip(("latency", "trace", "mix", "system"), key, strict=True))
        row |= {"load_qps": float(own["load_qps"].iloc[0]), "requests": int(own["requests"].iloc[0])}
        printed = paper.mix(row["system"], row["mix"], row["load_qps"]) or {}
        for group, measure in MEASURES.items():
            values = own[own["group"] == group]
            for quantile in ("p50", "p99"):
                row |= columns(f"{group}_{quantile}_s", estimate_of_log(values[f"{measure}_{quantile}_s"]))
            row[f"{group}_paper"] = printed.get(group, math.nan)
        row |= columns(SHARE, estimate(own.loc[own["group"] == "all", CRITERION_PAPER]))
        row[f"{SHARE}_paper"] = printed.get("violation_rate", math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows = table(tables)
    text = pd.DataFrame(
        {
            "latency": rows["latency"],
            "mix": rows["mix"],
            "system": [style.look(system).label for system in rows["system"]],
        }
    )
    for group, measure in MEASURES.items():
        for quantile in ("p50", "p99"):
            text[f"{group} {measure.upper()} {quantile} (s)"] = rows[f"{group}_{quantile}_s"].map(style.number_text)
        text[f"paper {group}"] = rows[f"{group}_paper"].map(style.number_text)
    ends = rows[[SHARE, f"{SHARE}_low", f"{SHARE}_high"]].clip(lower=0.0).to_numpy() * 100
    text["violated (%)"] = [style.interval_text(*values) for values in ends]
    text["paper (%)"] = (rows[f"{SHARE}_paper"] * 100).map(style.number_text)
    return text


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per class and one for violations; one lane per mix and system."""
    frame = variant.rows(require(tables, "mixes", COLUMNS))
    rows, slos_s = variant.rows(table(tables)), {one.name: one.slo_s for one in classes(frame)}
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 0.2 * len(rows) + 1.35)
        panels = figure.subplots(1, len(MEASURES) + 1, sharey=True)
        for ax, (group, measure) in zip(panels, MEASURES.items(), strict=False):
            for lane, row in enumerate(rows.to_dict("records")):
                _dots(ax, lane, row, group)
            ax.set_xscale("log")
            ax.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:g}k" if value >= 1000 else f"{value:g}")
            ax.xaxis.set_minor_formatter(NullFormatter())
            ax.set_title(f"{group} {measure.upper()} (s)")
            if slos_s.get(group) is not None:
                ax.axvline(slos_s[group], **marks.SLO, zorder=1)
        for lane, row in enumerate(rows.to_dict("records")):
            _bar(panels[-1], lane, row)
        panels[-1].set_title("violated (%)")
        panels[-1].set_xlim(0, 108)
        labels = [f"{row.mix}  {style.look(row.system).label}" for row in rows.itertuples()]
        for ax in panels:
            for lane in range(1, len(rows)):
                if rows["mix"].iloc[lane] != rows["mix"].iloc[lane - 1]:
                    ax.axhline(lane - 0.5, color=style.FAINT, lw=0.5)
        panels[0].set_yticks(range(len(rows)), labels)
        panels[0].set_ylim(len(rows) - 0.4, -0.6)
        for ax in panels:
            ax.tick_params(axis="y", length=0)
            style.tidy(ax, grid="x")
        style.legend_above(figure, _handles(), 4)
        bars = "error bars: 95 % interval over seeds (t; of the mean logarithm for latencies)"
        style.footer(figure, frame, {frame["seed"].nunique()}, bars)
    return figure


SMALL = {"marker": "|", "ms": 6, "mew": 1.2, "ls": "none", "zorder": 4}


def _dots(ax: Axes, lane: int, row: dict, group: str) -> None:
    colour = style.look(row["system"]).colour
    ax.plot(row[f"{group}_p50_s"], lane, marker="o", ms=4.5, color=colour, ls="none", zorder=4)
    ax.plot(row[f"{group}_p99_s"], lane, color=colour, **SMALL)
    if not math.isnan(row[f"{group}_p50_s_low"]):
        ends = [row[f"{group}_p50_s_low"], row[f"{group}_p50_s_high"]]
        ax.plot(ends, [lane, lane], color=colour, lw=1.0, zorder=3)
    if not math.isnan(row[f"{group}_paper"]):
        ax.plot(row[f"{group}_paper"], lane, **marks.star())


def _bar(ax: Axes, lane: int, row: dict) -> None:
    ax.barh(lane, row[SHARE] * 100, height=0.62, color=style.look(row["system"]).colour, zorder=2)
    marks.interval(ax, lane, row[f"{SHARE}_low"] * 100, row[f"{SHARE}_high"] * 100)
    if not math.isnan(row[f"{SHARE}_paper"]):
        ax.plot(row[f"{SHARE}_paper"] * 100, lane, **marks.star(), clip_on=False)


def _handles() -> list[Line2D]:
    grey = {"color": style.FAINT}
    return [
        Line2D([], [], marker="o", ms=4.5, ls="none", label="median", **grey),
        Line2D([], [], label="p99", **grey, **SMALL),
        marks.slo_handle(),
        marks.star_handle("paper (data set not named)"),
    ]
