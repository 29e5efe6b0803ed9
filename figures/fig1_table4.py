"""Fig 1 and Table 4: GPUs that each scheme needs for 35 requests/s, and how fleets of given sizes do; with the paper.

A fleet is planned as the fewest replicas whose worst class, averaged over seeds, has at most 1 % violations.
"""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import MaxNLocator

from figures import marks, paper, style
from figures.classes import classes
from figures.frames import (
    CRITERION_ALL,
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    columns,
    estimate,
    require,
    traces_and_latencies,
)

TITLE = "Fig 1 and Table 4: GPUs for one load"
INPUTS = ("cluster",)
SILO = "sarathi-silo"
PERCENTILES = {group: f"{measure}_p99_s" for group, measure in paper.MEASURES.items()}
COLUMNS = (
    *RUN_COLUMNS,
    "fleet",
    "sizing",
    "replicas",
    CRITERION_PAPER,
    CRITERION_ALL,
    *dict.fromkeys(PERCENTILES.values()),
)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "cluster", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    rows = variant.rows(require(tables, "cluster", COLUMNS))
    printed = paper.planned_gpus(variant.trace, SILO, variant.latency, float(rows["load_qps"].max()))
    stars = f" Stars: the paper ({paper.values()['table4']['requests']:,} requests)." if printed else ""
    return (
        f"Fig 1: GPUs needed for {rows['load_qps'].max():g} requests/s on {style.trace_label(variant.trace)}, latency "
        f"model {variant.latency}. The silo's pools are planned one by one, each on its class's share of the load, or "
        "together where the trace says each request's class; "
        "shared fleets are planned as a whole; all with TTFT and TTLT only, as in the paper. Percentages: fewer GPUs "
        f"than the silo.{stars}"
    )


def _percentiles(frame: pd.DataFrame) -> dict[str, str]:
    """The runs' classes, and the column that each one's SLO is about."""
    return {found.name: f"{found.measure}_p99_s" for found in classes(frame)}


def planned(frame: pd.DataFrame) -> pd.DataFrame:
    """One row per planned fleet: system, fleet, replicas; silo first, then in the usual order."""
    rows = frame[frame["sizing"] == "planned"].drop_duplicates(["system"])[["system", "fleet", "replicas"]]
    order = [SILO, *(name for name in style.SYSTEMS if name != SILO)]
    return rows.set_index("system").loc[style.in_order(rows["system"], order)].reset_index()


def table(tables: Tables) -> pd.DataFrame:
    """One row per fleet: GPUs, p99 per class (s) and violations (share) with intervals, and the paper's row."""
    frame = require(tables, "cluster", COLUMNS)
    keys = ["trace", "latency", "system", "fleet", "sizing"]
    rows = []
    for key, own in frame.groupby(keys, sort=False):
        row = {**dict(zip(keys, key, strict=True)), "gpus": int(own["replicas"].iloc[0])}
        row |= {"load_qps": float(own["load_qps"].iloc[0]), "requests": int(own["requests"].iloc[0])}
        row["seeds"] = own["seed"].nunique()
        for group, column in _percentiles(frame).items():
            row |= columns(f"{group}_p99_s", estimate(own.loc[own["group"] == group, column]))
        for criterion in (CRITERION_PAPER, CRITERION_ALL):
            row |= columns(criterion, estimate(own.loc[own["group"] == "all", criterion]))
        found = paper.fleet(row["trace"], row["system"], row["latency"], row["fleet"], row["load_qps"])
        printed = found or {}
        row |= {f"paper_{group}_p99_s": printed.get(group, math.nan) for group in _percentiles(frame)}
        row["paper_violation_rate"] = printed.get("violation_rate", math.nan)
        rows.append(row)
    return pd.DataFrame(rows)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text: mean and interval, and the paper's number, in one row per fleet."""
    rows, known = table(tables), _percentiles(tables["cluster"])
    text = pd.DataFrame(
        {
            "trace": rows["trace"].map(style.trace_label),
            "latency": rows["latency"],
            "fleet": [f"{style.look(s).label} ({f})" for s, f in zip(rows["system"], rows["fleet"], strict=True)],
            "sizing": rows["sizing"],
            "GPUs": rows["gpus"].map(str),
        }
    )
    for group, column in known.items():
        title = f"{group} p99 {column[:4].upper()} (s)"
        text[title] = _measured(rows, f"{group}_p99_s")
        if group in PERCENTILES:
            text[f"paper {group}"] = rows[f"paper_{group}_p99_s"].map(style.number_text)
    text["violated (%)"] = _measured(rows, CRITERION_PAPER, 100)
    text["with token deadlines (%)"] = _measured(rows, CRITERION_ALL, 100)
    text["paper (%)"] = [style.number_text(v * 100) for v in rows["paper_violation_rate"]]
    return text


def _measured(rows: pd.DataFrame, name: str, scale: float = 1.0) -> list[str]:
    numbers = rows[[name, f"{name}_low", f"{name}_high"]].clip(lower=0.0) * scale
    return ["–" if pd.isna(mean) else style.interval_text(mean, low, high) for mean, low, high in numbers.to_numpy()]


def draw(tables: Tables, variant: Variant) -> Figure:
    """One bar per planned fleet; the silo's is stacked by pool."""
    frame = variant.rows(require(tables, "cluster", COLUMNS))
    bars, pools = planned(frame), _pool_colours(frame)
    with style.styled():
        figure = style.new_figure(style.SINGLE_IN, 3.5)
        ax = figure.subplots()
        silo = bars.loc[bars["system"] == SILO, "replicas"]
        load_qps = float(frame["load_qps"].iloc[0])
        stars = [paper.planned_gpus(variant.trace, s, variant.latency, load_qps) for s in bars["system"]]
        top = max([*bars["replicas"], *(star.value for star in stars if star)], default=1)
        for x, bar in enumerate(bars.itertuples()):
            _bar(ax, x, bar, None if silo.empty else int(silo.iloc[0]), top, pools)
            if stars[x]:
                ax.plot(x + 0.42, stars[x].value, **marks.star(), clip_on=False)
                ax.annotate(f"{stars[x].value}", (x + 0.42, stars[x].value), (0, 4), textcoords="offset points",
                            ha="center", va="bottom", fontsize=style.SMALL_PT)  # fmt: skip
        labels = [style.look(system).label.replace("-", "-\n", 1).replace(" ", "\n", 1) for system in bars["system"]]
        ax.set_xticks(range(len(bars)), labels)
        ax.tick_params(axis="x", length=0)
        ax.set_ylim(0, top * 1.22)
        ax.yaxis.set_major_locator(MaxNLocator(integer=True))
        ax.set_ylabel(f"GPUs for {load_qps:g} QPS", labelpad=2)
        style.tidy(ax)
        _legend(figure, pools if SILO in set(bars["system"]) else {}, any(stars))
        style.footer(figure, frame, {frame["seed"].nunique()}, "planned on the mean over seeds, no interval")
    return figure


def _pool_colours(frame: pd.DataFrame) -> dict[str, str]:
    """The silo's pools, one a class: Table 3's have colours of their own."""
    names = list(_percentiles(frame))
    if set(names) <= set(style.POOLS):
        return {name: style.POOLS[name] for name in names}
    return dict(zip(names, style.ramp(len(names)), strict=True))


def _bar(ax: Axes, x: int, bar, silo: int | None, top: float, pools: dict[str, str]) -> None:
    """A fleet: its pools when it has several, its total, and how many fewer GPUs than the silo's."""
    if bar.system == SILO:
        base = 0
        for i, (name, size) in enumerate(zip(pools, map(int, bar.fleet.split("-")), strict=False)):
            ax.bar(x, size, 0.62, bottom=base, color=pools[name], edgecolor="white", lw=0.5)
            ax.text(x, base + size / 2, str(size), ha="center", va="center", fontsize=style.SMALL_PT,
                    color=style.INK if i else "white")  # fmt: skip
            base += size
    else:
        ax.bar(x, bar.replicas, 0.62, color=style.look(bar.system).colour)
    text = f"{bar.replicas}"
    if silo and bar.system != SILO:
        change = 100 * (bar.replicas / silo - 1)
        text += f"\n{change:+.0f} %".replace("-", "−") if change else "\nas many"
    weight = "bold" if style.look(bar.system).emphasised else "normal"
    ax.text(x, bar.replicas + top * 0.02, text, ha="center", va="bottom", fontsize=style.SMALL_PT, fontweight=weight)


def _legend(figure: Figure, pools: dict[str, str], stars: bool) -> None:
    handles = [Patch(color=colour, label=f"silo {name}") for name, colour in pools.items()]
    if stars:
        handles.append(marks.star_handle())
    if handles:
        style.legend_above(figure, handles, 4)
