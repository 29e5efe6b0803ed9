"""Fig 6: the worked example of five requests as a timeline: what runs when, who is relegated, who makes it."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from figures import style
from figures.frames import Tables, Variant, latencies, require

TITLE = "Fig 6: five requests, iteration by iteration"
INPUTS = ("five_requests",)
COLUMNS = (
    "trace",
    "system",
    "latency",
    "predictor",
    "requests",
    "seed",
    "request",
    "important",
    "kind",
    "start_s",
    "end_s",
    "tokens",
    "counted_s",
    "met",
)
MET, MISSED = "#009E73", "#C0392B"


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return latencies(require(tables, "five_requests", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    rows = variant.rows(require(tables, "five_requests", COLUMNS))
    said = []
    for system in style.in_order(rows["system"], style.SYSTEMS):
        own = rows[rows["system"] == system]
        facts = own[own["kind"] == "request"]
        missed = "".join(facts.loc[~facts["met"].astype(bool), "request"]) or "none"
        relegated = "".join(dict.fromkeys(own.loc[own["kind"] == "relegated", "request"]))
        said.append(f"{style.look(system).label} misses {missed}{f' and relegates {relegated}' if relegated else ''}")
    return (
        "Fig 6: five requests on one replica, run by the scheduler and drawn from its iterations; latency model "
        f"{variant.latency}. A: a long batch prompt; B, C, D: interactive, D of low importance; E: batch. "
        f"{'; '.join(said)}. The paper's figure is a sketch of such a situation: lengths and deadlines here are ours."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """A panel per system, a line per request."""
    frame = variant.rows(require(tables, "five_requests", COLUMNS))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    end_s = float(frame.loc[frame["kind"] == "prefill", "end_s"].max())
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 0.9 + 1.25 * len(systems))
        panels = figure.subplots(len(systems), 1, sharex=True, squeeze=False)[:, 0]
        for ax, system in zip(panels, systems, strict=True):
            _panel(ax, frame[frame["system"] == system], system, 1.1 * end_s)
        panels[-1].set_xlabel("seconds", labelpad=2)
        style.legend_above(figure, _legend(), 5)
        style.footer(figure, frame, {frame["seed"].nunique()}, "")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, system: str, right_s: float) -> None:
    facts = rows[rows["kind"] == "request"].reset_index(drop=True)
    line = {name: len(facts) - 1 - i for i, name in enumerate(facts["request"])}
    colour = style.look(system).colour
    for event in rows[rows["kind"].isin(["prefill", "decode"])].itertuples():
        tall, face = (0.62, colour) if event.kind == "prefill" else (0.22, "#9A9A9A")
        width_s = event.end_s - event.start_s
        ax.barh(line[event.request], width_s, tall, left=event.start_s, color=face, edgecolor="white", lw=0.4)
    for event in rows[rows["kind"] == "relegated"].itertuples():
        ax.plot(event.start_s, line[event.request], marker="v", ms=6, color=style.INK, mec="white", mew=0.5, zorder=6)
    for fact in facts.itertuples():
        _fact(ax, fact, line[fact.request], right_s)
    named = zip(facts["request"], facts["important"], strict=True)
    ax.set_yticks(list(line.values()), [name if important else f"{name} (low)" for name, important in named])
    ax.set(xlim=(0, right_s), ylim=(-0.6, len(facts) - 0.4), title=style.look(system).label)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _fact(ax: Axes, fact, y: int, right_s: float) -> None:
    """Arrival, deadline (named at the edge when it is beyond it), and what became of the request."""
    ax.plot(fact.start_s, y, marker=">", ms=3.5, color=style.INK, zorder=5, clip_on=False)
    word = "met" if fact.met else f"missed by {1e3 * (fact.counted_s - fact.end_s):,.0f} ms"
    if fact.end_s < right_s:
        ax.plot([fact.end_s] * 2, [y - 0.42, y + 0.42], color=style.INK, lw=1.6, zorder=5)
    else:
        word += f"; due at {fact.end_s:,.0f} s"
    ax.annotate(word, (1, y), (3, 0), xycoords=("axes fraction", "data"), textcoords="offset points", va="center",
                fontsize=style.SMALL_PT, color=MET if fact.met else MISSED, annotation_clip=False)  # fmt: skip


def _legend() -> list:
    mark = {"color": style.INK, "ls": "none"}
    return [
        Patch(color="#777777", label="prefill (colour: the system)"),
        Line2D([], [], color="#9A9A9A", lw=2.5, label="decode"),
        Line2D([], [], marker=">", ms=3.5, label="arrival", **mark),
        Line2D([], [], marker="|", ms=8, mew=1.6, label="deadline", **mark),
        Line2D([], [], marker="v", ms=6, label="relegated", **mark),
    ]
