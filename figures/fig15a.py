"""Fig 15a: Medha's adaptive chunking, fixed chunks and Niyama's dynamic chunking: chunk per batch, and capacity."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import load_lines, marks, paper, style
from figures.frames import (
    CRITERION_ALL,
    CRITERION_PAPER,
    SEARCH_COLUMNS,
    Estimate,
    Tables,
    Variant,
    estimate,
    floats,
    require,
    traces_and_latencies,
)

TITLE = "Fig 15a: Medha's adaptive chunking"
INPUTS = ("chunk_windows", "medha")
WINDOW_COLUMNS = (
    "trace",
    "system",
    "latency",
    "predictor",
    "load_qps",
    "requests",
    "seed",
    "figure",
    "iteration",
    "prefill_tokens",
)
MEDHA, DYNAMIC = "medha", "niyama-dc-fcfs"
HOLLOW = {"marker": "D", "ms": 4, "mfc": "white", "mec": style.INK, "mew": 0.8, "ls": "none", "zorder": 5}
CHUNKS = (64, 3500)  # drawn; the last chunk of a prompt may be smaller
PREDICTS = (MEDHA, DYNAMIC)  # the others' chunks do not depend on a margin


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model of the search."""
    _windows(tables)
    return traces_and_latencies(require(tables, "medha", SEARCH_COLUMNS))


def _windows(tables: Tables) -> pd.DataFrame:
    frame = require(tables, "chunk_windows", WINDOW_COLUMNS)
    return frame[frame["figure"] == "fig15a"]


def gains(tables: Tables, variant: Variant) -> dict[str, Estimate]:
    """By margin: capacity of dynamic chunking over Medha's, less 1, over the seeds; none where one has no capacity."""
    rows, found = _strict(variant.rows(require(tables, "medha", SEARCH_COLUMNS))), {}
    for margin, own in rows.groupby("variant", sort=False):
        seeds = own.set_index("system")["seed_capacity_qps"]
        if set(PREDICTS) <= set(seeds.index):
            gain = estimate(floats(seeds[DYNAMIC]) / floats(seeds[MEDHA]) - 1)
            found |= {str(margin): gain} if gain else {}
    return found


def _strict(rows: pd.DataFrame) -> pd.DataFrame:
    return rows[rows["criterion"] == CRITERION_ALL]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    windows = variant.rows(_windows(tables))
    said = "; ".join(
        _percent(found.mean)
        + (f" [{_percent(found.low)}, {_percent(found.high)}]" if found.low is not None else "")
        + (f" with {margin}" if margin else "")
        for margin, found in gains(tables, variant).items()
    )
    printed = paper.values()["fig15a"]
    return (
        f"Fig 15a: every request has {style.trace_label(variant.trace)}; one interactive class (TTFT 6 s, TBT 50 ms), "
        f"first come, first served; latency model {variant.latency}. Left: prefill tokens of "
        f"{windows['iteration'].max() + 1:,} consecutive batches that prefill, at {windows['load_qps'].iloc[0]:g} QPS. "
        "Medha's rule holds every step to the TBT, Niyama's spends the slack of the decodes; both here with a margin "
        "of 1.2 on predicted times. Right: load at which 1 % are violated, token deadlines (Eq 2) counted; diamonds: "
        f"without the margin. Dynamic chunking over Medha: {said or 'not known'}; the paper "
        f"{_percent(printed['gain'])}. Medha's rule is ours, after its paper (arXiv 2409.17264)."
    )


def _percent(share: float) -> str:
    return f"{100 * share:+.0f} %".replace("-", "−")


def table(tables: Tables) -> pd.DataFrame:
    """A row per trace, latency model, system, margin and criterion: capacity with interval, and the paper's."""
    frame = require(tables, "medha", SEARCH_COLUMNS)
    frame = frame[frame["system"].isin(PREDICTS) | (frame["variant"] == frame["variant"].iloc[0])]
    rows = frame[["trace", "latency", "system", "variant", "criterion", "requests", "seeds"]].copy()
    rows["capacity_qps"] = frame["capacity_qps_per_replica"]
    rows["interval_low_qps"], rows["interval_high_qps"] = frame["interval_low_qps"], frame["interval_high_qps"]
    printed = paper.values()["fig15a"]
    rows["paper_qps"] = [
        printed["capacity_qps"].get(r.system, math.nan) if paper.model(r.latency) == printed["model"] else math.nan
        for r in rows.itertuples()
    ]
    return rows.reset_index(drop=True)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows, names = table(tables), {CRITERION_ALL: "token deadlines too", CRITERION_PAPER: "TTFT only"}
    numbers = rows[["capacity_qps", "interval_low_qps", "interval_high_qps"]].astype(float).to_numpy()
    return pd.DataFrame(
        {
            "latency": rows["latency"],
            "system": [style.look(s).label for s in rows["system"]],
            "margin": [r.variant if r.system in PREDICTS else "–" for r in rows.itertuples()],
            "violated is": rows["criterion"].map(names),
            "capacity (QPS)": [style.interval_text(*n, 3) for n in numbers],
            "paper (QPS)": [style.number_text(v) for v in rows["paper_qps"]],
        }
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """Chunk per batch on the left, capacity on the right."""
    windows = variant.rows(_windows(tables))
    rows = _strict(variant.rows(table(tables)))
    systems = style.in_order([*windows["system"], *rows["system"]], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.9)
        chunks, bars = figure.subplots(1, 2, width_ratios=(2.2, 1))
        for system in systems:
            own = windows[windows["system"] == system].sort_values("iteration")
            width = 0.7 if system == DYNAMIC else 1.2
            chunks.plot(
                own["iteration"], own["prefill_tokens"], **{**style.line_style(system), "marker": None, "lw": width}
            )
        chunks.set_yscale("log", base=2)
        chunks.set_ylim(*CHUNKS)
        chunks.yaxis.set_major_formatter(lambda value, _: f"{value:,g}")
        chunks.set(xlabel="batch that prefills", ylabel="chunk (tokens)", xlim=(0, windows["iteration"].max() + 1))
        style.tidy(chunks)
        _bars(bars, rows, systems)
        extra = [marks.star_handle()] if rows["paper_qps"].notna().any() else []
        extra += [Line2D([], [], label=other, **HOLLOW) for other in rows["variant"].unique()[1:]]
        style.legend_above(figure, [*load_lines.handles(systems), *extra], 5)
        seeds = variant.rows(require(tables, "medha", SEARCH_COLUMNS))
        style.footer(figure, seeds, seeds["seeds"], "left: one seed; bars: 95 % interval over seeds (Student's t)")
    return figure


def _bars(ax: Axes, rows: pd.DataFrame, systems: list[str]) -> None:
    """A bar per system with its interval, a diamond where another margin matters, and the paper's star."""
    first = rows["variant"].iloc[0]
    for x, system in enumerate(systems):
        for row in rows[rows["system"] == system].itertuples():
            if pd.isna(row.capacity_qps):
                ax.text(x, 0, "no\ncrossing", ha="center", va="bottom", fontsize=style.SMALL_PT)
            elif row.variant == first:
                _bar(ax, x, row)
            elif system in PREDICTS:
                ax.plot(x + 0.2, row.capacity_qps, **HOLLOW)
    ax.set_xticks([])
    ax.set_ylim(0, ax.get_ylim()[1] * 1.1)
    ax.set(ylabel="capacity (QPS)", title="1 % violated")
    style.tidy(ax)


def _bar(ax: Axes, x: int, row) -> None:
    ax.bar(x, row.capacity_qps, 0.66, color=style.look(row.system).colour)
    if not pd.isna(row.interval_low_qps):
        ax.plot([x, x], [row.interval_low_qps, row.interval_high_qps], color=style.INK, lw=1.0)
    where = {"xytext": (0, 4), "textcoords": "offset points", "ha": "center", "va": "bottom"}
    patch = {"fc": "white", "ec": "none", "pad": 0.8}
    ax.annotate(f"{row.capacity_qps:.2f}", (x, 0), **where, fontsize=style.SMALL_PT, bbox=patch)
    if not math.isnan(row.paper_qps):
        ax.plot(x - 0.2, row.paper_qps, **marks.star())
