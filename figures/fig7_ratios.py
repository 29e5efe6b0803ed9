"""Fig 7's ratios: how much more load Niyama holds than Sarathi-FCFS and -EDF, seed by seed, and the paper's."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import marks, paper, style
from figures.capacities import pick
from figures.frames import (
    CAPACITY_COLUMNS,
    CRITERION_ALL,
    CRITERION_PAPER,
    Tables,
    Variant,
    estimate,
    floats,
    latencies,
    require,
)

TITLE = "Fig 7: ratios"
INPUTS = ("capacity",)
NUMERATORS = ("niyama", "qoserve-artifact")
BASELINES = {"FCFS": "sarathi-fcfs", "EDF": "sarathi-edf"}
RUN_LENGTHS = {"paper": "shorter runs", "long": "long runs"}


def variants(tables: Tables) -> list[Variant]:
    """One per latency model that has a numerator and a baseline."""
    frame = require(tables, "capacity", CAPACITY_COLUMNS)
    rows = table(tables)
    return [v for v in latencies(frame) if not rows.empty and (rows["latency"] == v.latency).any()]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    claims = paper.values()["claims"]
    said = ", ".join(f"{c['low']:g} to {c['high']:g} over {name[5:]}" for name, c in claims.items())
    return (
        f"Ratios of Fig 7, latency model {variant.latency}: goodput of Niyama, and of the authors' artifact, over that "
        "of Sarathi-FCFS and Sarathi-EDF. Seeds share their workload and are paired. Filled: violations of TTFT and "
        "TTLT; hollow diamonds: token deadlines counted too. Stars: ratio of the labels that the paper prints; grey: "
        f"what its text claims ({said}, over all models and traces); both only beside traces that it ran: the 2024 "
        "weeks and ShareGPT."
    )


def table(tables: Tables) -> pd.DataFrame:
    """One row per latency, run length, trace, numerator, baseline and criterion; ratio is nan without a crossing."""
    frame = require(tables, "capacity", CAPACITY_COLUMNS)
    rows = []
    for variant in latencies(frame):
        own = variant.rows(frame)
        for length in [name for name in RUN_LENGTHS if name in set(own["run_length"])]:
            for trace in style.in_order(own["trace"], style.TRACES):
                rows += _rows(own[own["trace"] == trace], variant, trace, length)
    return pd.DataFrame(rows)


def _rows(here: pd.DataFrame, variant: Variant, trace: str, length: str) -> list[dict[str, object]]:
    rows = []
    for name, baseline in BASELINES.items():
        for numerator in NUMERATORS:
            for criterion in (CRITERION_PAPER, CRITERION_ALL):
                over, under = (pick(here, system, criterion, length) for system in (numerator, baseline))
                if over is None or under is None:
                    continue
                found = estimate(seed_ratios(over["seed_capacity_qps"], under["seed_capacity_qps"]))
                rows.append(
                    {
                        "latency": variant.latency,
                        "run_length": length,
                        "trace": trace,
                        "numerator": numerator,
                        "baseline": name,
                        "criterion": criterion,
                        "ratio": found.mean if found else math.nan,
                        "interval_low": _or_nan(found and found.low),
                        "interval_high": _or_nan(found and found.high),
                        "paper_ratio": paper_ratio(trace, name, variant.latency),
                    }
                )
    return rows


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value


def seed_ratios(over: list[float | None], under: list[float | None]) -> np.ndarray:
    """Ratio per seed that both ran; nan where either saw no crossing."""
    a, b = floats(over), floats(under)
    shared = min(len(a), len(b))
    return a[:shared] / b[:shared]


def paper_ratio(trace: str, baseline: str, latency: str) -> float:
    """Ratio of the paper's labels; nan where it has none."""
    over = paper.goodput(trace, "niyama", latency)
    under = paper.goodput(trace, BASELINES[baseline], latency)
    return over.value / under.value if over and under else math.nan


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text: one row per trace and baseline, measured and printed side by side."""
    rows = table(tables)
    if rows.empty:
        return rows
    rows["text"] = [style.interval_text(*v) for v in rows[["ratio", "interval_low", "interval_high"]].to_numpy()]
    names = {CRITERION_PAPER: "", CRITERION_ALL: ", token deadlines counted"}
    rows["column"] = [style.look(n).label + names[c] for n, c in zip(rows["numerator"], rows["criterion"], strict=True)]
    keys = ["latency", "run_length", "trace", "baseline", "paper_ratio"]
    order = list(dict.fromkeys(rows["column"]))
    wide = rows.pivot(index=keys, columns="column", values="text").reindex(rows[keys].drop_duplicates())
    wide = wide[order].reset_index().fillna({name: "not run" for name in order})
    wide["paper_ratio"] = [style.number_text(v) for v in wide["paper_ratio"]]
    wide["trace"] = wide["trace"].map(style.trace_label)
    wide["run_length"] = wide["run_length"].map(RUN_LENGTHS)
    wide["baseline"] = "over " + wide["baseline"]
    return wide.rename(columns={"paper_ratio": "paper", "run_length": "runs", "baseline": "ratio"})


def draw(tables: Tables, variant: Variant) -> Figure:
    """One column per baseline, one row of panels per run length, one lane per trace."""
    frame = variant.rows(require(tables, "capacity", CAPACITY_COLUMNS))
    rows = table({"capacity": frame})
    traces = style.in_order(rows["trace"], style.TRACES)
    lengths = [name for name in RUN_LENGTHS if name in set(rows["run_length"])]
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, len(lengths) * (0.75 + 0.27 * len(traces)) + 0.7)
        panels = figure.subplots(len(lengths), len(BASELINES), sharey=True, sharex="col", squeeze=False)
        for line, length in zip(panels, lengths, strict=True):
            for ax, baseline in zip(line, BASELINES, strict=True):
                mask = (rows["run_length"] == length) & (rows["baseline"] == baseline)
                _panel(ax, rows[mask], traces, baseline)
                requests = style.counted(frame.loc[frame["run_length"] == length, "requests"])
                ax.set_title(f"over Sarathi-{baseline}, N = {requests}")
        for ax in panels[-1]:
            ax.set_xlabel("ratio of goodputs", labelpad=2)
        style.legend_above(figure, _handles(rows), 5)
        style.footer(figure, frame, set(frame["seeds"]), "error bars: 95 % interval of the seeds' ratios (t)")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, traces: list[str], baseline: str) -> None:
    claim = paper.values()["claims"][f"over_{baseline}"]
    for lane in (lane for lane, trace in enumerate(traces) if paper.data_set(trace)):
        ax.barh(lane, claim["high"] - claim["low"], 1.0, left=claim["low"], color="#EDEDED", lw=0, zorder=0)
    ax.axvline(1, color=style.INK, lw=0.6, zorder=1)
    strict = rows[rows["criterion"] == CRITERION_ALL].set_index(["trace", "numerator"])["ratio"]
    for row in rows.itertuples():
        lane = traces.index(row.trace) + 0.36 * (NUMERATORS.index(row.numerator) - 0.5)
        text_from = pd.Series([1.0, row.paper_ratio, strict.get((row.trace, row.numerator))], dtype=float).max()
        _point(ax, lane, row, text_from)
    for lane, trace in enumerate(traces):
        printed = rows.loc[rows["trace"] == trace, "paper_ratio"].dropna()
        if len(printed):
            ax.plot(printed.iloc[0], lane, **marks.star())
    ax.set_yticks(range(len(traces)), [style.trace_label(trace) for trace in traces])
    ax.set_ylim(len(traces) - 0.5, -0.5)
    ax.tick_params(axis="y", length=0)
    style.tidy(ax, grid="x")


def _point(ax: Axes, lane: float, row, text_from: float) -> None:
    """One ratio with its interval; where a seed saw no crossing, text to the right of `text_from`."""
    counts_tokens = row.criterion == CRITERION_ALL
    colour = style.look(row.numerator).colour
    if math.isnan(row.ratio):
        if not counts_tokens:
            marks.say(ax, "no crossing", text_from, lane, colour)
        return
    if not math.isnan(row.interval_low):
        ax.plot([row.interval_low, row.interval_high], [lane, lane], color=colour, lw=1.0, zorder=3)
    looks = {**marks.HOLLOW, "mec": colour} if counts_tokens else {"marker": "o", "ms": 5, "color": colour, "zorder": 4}
    ax.plot(row.ratio, lane, **looks)


def _handles(rows: pd.DataFrame) -> list[Line2D]:
    names = [name for name in NUMERATORS if name in set(rows["numerator"])]
    handles = [
        Line2D([], [], marker="o", ms=5, color=style.look(name).colour, lw=1, label=style.look(name).label)
        for name in names
    ]
    handles.append(Line2D([], [], label="token deadlines counted", **marks.HOLLOW))
    if rows["paper_ratio"].notna().any():
        handles.append(marks.star_handle("paper's labels"))
    return [*handles, Line2D([], [], color="#DDDDDD", lw=6, label="paper's text")]
