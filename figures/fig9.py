"""Fig 9: chunk, slack and duration over consecutive iterations, and what dynamic chunking gains in throughput."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import load_lines, marks, paper, style
from figures.frames import (
    CAPACITY_COLUMNS,
    CRITERION_PAPER,
    Tables,
    Variant,
    columns,
    estimate,
    floats,
    require,
    traces_and_latencies,
)

TITLE = "Fig 9: chunk, slack and latency of consecutive iterations"
INPUTS = ("chunk_windows", "chunk_throughput", "capacity")
RUN = ("trace", "system", "latency", "predictor", "load_qps", "requests", "seed")
WINDOW_COLUMNS = (*RUN, "figure", "iteration", "prefill_tokens", "min_slack_s", "duration_s", "decodes")
THROUGHPUT_COLUMNS = (*RUN, "busy_tokens_per_s", "run_tokens_per_s", "mean_chunk_tokens")
FIXED = "sarathi-edf"  # chunk 256
CHUNKED = ("niyama-dc", "niyama")
MEASURES = ("tokens/s while prefilling", "tokens/s far above capacity", "goodput")


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model of the window."""
    require(tables, "chunk_throughput", THROUGHPUT_COLUMNS)
    require(tables, "capacity", CAPACITY_COLUMNS)
    return traces_and_latencies(_windows(tables))


def _windows(tables: Tables) -> pd.DataFrame:
    frame = require(tables, "chunk_windows", WINDOW_COLUMNS)
    return frame[frame["figure"] == "fig9"]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    rows = variant.rows(_windows(tables))
    loads = sorted(variant.rows(tables["chunk_throughput"])["load_qps"].unique())
    busy, far = (f"{loads[i]:g}" for i in (0, -1))
    return (
        f"Fig 9: {rows['iteration'].nunique()} consecutive iterations at {rows['load_qps'].iloc[0]:g} QPS on "
        f"{style.trace_label(variant.trace)}, latency model {variant.latency}. No slack is drawn where no decode has a "
        "deadline to protect. Right: throughput over that of the fixed chunk of 256 (Sarathi-EDF), seed by seed: "
        f"tokens per second of the iterations that prefill, at {busy} QPS; of the whole run at {far} QPS, where "
        "requests are late and have no slack left to protect; and goodput (Fig 7). The star is the paper's 20 %, "
        "which does not say at what load."
    )


def table(tables: Tables) -> pd.DataFrame:
    """A row per trace, latency model, system and measure: gain over the fixed chunk (0.2 is 20 %) with interval."""
    rows = []
    for variant in variants(tables):
        printed = paper.values()["fig9"]
        same = (paper.data_set(variant.trace), paper.model(variant.latency)) == (printed["trace"], printed["model"])
        for system in CHUNKED:
            for measure, (own, base) in _values(tables, variant, system).items():
                found = estimate(own / base - 1) if len(own) == len(base) else None
                rows.append(
                    {
                        "trace": variant.trace,
                        "latency": variant.latency,
                        "system": system,
                        "measure": measure,
                        **columns("gain", found),
                        "seeds": len(own),
                        "paper_gain": printed["throughput_gain"] if same and system == "niyama-dc" else math.nan,
                    }
                )
    return pd.DataFrame(rows)


def _values(tables: Tables, variant: Variant, system: str) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Per measure the seeds' values of a system and of the fixed chunk."""
    runs = variant.rows(require(tables, "chunk_throughput", THROUGHPUT_COLUMNS)).sort_values("seed")
    loads = runs["load_qps"]
    parts = {
        MEASURES[0]: (runs[loads == loads.min()], "busy_tokens_per_s"),
        MEASURES[1]: (runs[loads == loads.max()], "run_tokens_per_s"),
    }
    found = {
        measure: tuple(frame.loc[frame["system"] == name, column].to_numpy() for name in (system, FIXED))
        for measure, (frame, column) in parts.items()
    }
    goodput = variant.rows(require(tables, "capacity", CAPACITY_COLUMNS))
    goodput = goodput[(goodput["criterion"] == CRITERION_PAPER) & (goodput["run_length"] == "paper")]
    seeds = [goodput.loc[goodput["system"] == name, "seed_capacity_qps"] for name in (system, FIXED)]
    found[MEASURES[2]] = tuple(floats(own.iloc[0]) if len(own) else np.array([]) for own in seeds)
    return found


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text, in percent."""
    rows = table(tables)
    gains = rows[["gain", "gain_low", "gain_high"]].to_numpy() * 100
    return pd.DataFrame(
        {
            "trace": rows["trace"].map(style.trace_label),
            "latency": rows["latency"],
            "system": [style.look(s).label for s in rows["system"]],
            "measure": rows["measure"],
            "gain over chunk 256 (%)": ["–" if math.isnan(g[0]) else style.interval_text(*g, 1) for g in gains],
            "paper (%)": [style.number_text(100 * v, 0) for v in rows["paper_gain"]],
        }
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """Three panels over the iterations, and the gains beside them."""
    windows = variant.rows(_windows(tables))
    systems = style.in_order(windows["system"], style.SYSTEMS)
    gains = table(tables)
    gains = gains[(gains["trace"] == variant.trace) & (gains["latency"] == variant.latency)]
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 4.3)
        grid = figure.add_gridspec(3, 2, width_ratios=(2.6, 1))
        first = figure.add_subplot(grid[0, 0])
        panels = [first, *(figure.add_subplot(grid[i, 0], sharex=first) for i in (1, 2))]
        _window(panels, windows, systems)
        _gains(figure.add_subplot(grid[:, 1]), gains)
        shown = style.in_order([*systems, *gains["system"]], style.SYSTEMS)
        extra = [marks.star_handle()] if gains["paper_gain"].notna().any() else []
        style.legend_above(figure, [*load_lines.handles(shown), *extra], 5)
        runs = variant.rows(tables["chunk_throughput"])
        bars = "left: one seed; right: 95 % interval over seeds (Student's t)"
        style.footer(figure, pd.concat([windows, runs]), {runs["seed"].nunique()}, bars)
    return figure


def _window(panels: list[Axes], rows: pd.DataFrame, systems: list[str]) -> None:
    scales = {"prefill_tokens": ("chunk (tokens)", 1.0), "min_slack_s": ("least slack (ms)", 1e3),
              "duration_s": ("latency (ms)", 1e3)}  # fmt: skip
    for ax, (column, (unit, scale)) in zip(panels, scales.items(), strict=True):
        for system in systems:
            own = rows[rows["system"] == system].sort_values("iteration")
            look = {**style.line_style(system), "marker": None, "lw": 1.0}
            values = own[column].astype(float).to_numpy() * scale
            ax.step(np.arange(len(own)), values, where="post", **look)
        ax.set_ylabel(unit, labelpad=2)
        style.tidy(ax)
        if ax is not panels[-1]:
            ax.tick_params(labelbottom=False)
    panels[0].yaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    panels[1].set_yscale("symlog", linthresh=10)
    panels[1].yaxis.set_major_formatter(lambda value, _: f"{value:,g}".replace("-", "−"))
    tbt_s = paper.values()["slo"]["Q1"]["tbt_s"]
    for ax in panels[1:]:
        ax.axhline(tbt_s * 1e3, **marks.SLO, zorder=2)
    panels[-1].set_xlabel("iteration", labelpad=2)
    panels[-1].set_xlim(0, rows["iteration"].max() + 1)
    panels[0].set_title("consecutive iterations (dashed: TBT 50 ms)" if tbt_s == 0.05 else "consecutive iterations")


def _gains(ax: Axes, gains: pd.DataFrame) -> None:
    for i, measure in enumerate(MEASURES):
        for j, system in enumerate(CHUNKED):
            for row in (
                gains[(gains["measure"] == measure) & (gains["system"] == system)].dropna(subset="gain").itertuples()
            ):
                y = len(MEASURES) - i - 0.16 * (1 if j else -1)
                mark = {**style.line_style(system), "ls": "none", "ms": 5}
                if not math.isnan(row.gain_low):
                    ax.plot([100 * row.gain_low, 100 * row.gain_high], [y, y], color=mark["color"], lw=1.2)
                ax.plot(100 * row.gain, y, **mark)
                if not math.isnan(row.paper_gain) and measure == MEASURES[2]:
                    ax.plot(100 * row.paper_gain, y + 0.2, **marks.star())
    names = [name.replace(" while ", "\nwhile ").replace(" far ", "\nfar ") for name in MEASURES]
    ax.set_yticks([len(MEASURES) - i for i in range(len(MEASURES))], names)
    ax.set_ylim(0.4, len(MEASURES) + 0.6)
    ax.axvline(0, color=style.FAINT, lw=0.8)
    ax.set_title("gain over chunk 256")
    ax.set_xlabel("%", labelpad=2)
    style.tidy(ax, grid="x")
