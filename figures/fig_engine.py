"""vLLM's own engine in virtual time: violations against load, with the simulator behind it (not in the paper)."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import load_lines, style
from figures.classes import names
from figures.frames import CRITERION_ALL, RUN_COLUMNS, Estimate, Tables, Variant, require, traces_and_latencies

TITLE = "vLLM's own engine in virtual time (not in the paper)"
INPUTS = ("engine",)
SIMULATOR = "sim-overlapped"  # plans a step ahead, as the engine does
COLUMNS = (*RUN_COLUMNS, "backend", "replicas", CRITERION_ALL, "ttft_p95_s", "ttlt_p95_s")
THIN = {"lw": 0.8, "ls": (0, (3, 1.5)), "marker": None, "zorder": 5, "alpha": 0.9, "color": style.INK}


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "engine", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    frame = require(tables, "engine", COLUMNS)
    about, gpus = frame.attrs, frame.groupby("system")["replicas"].first()
    several = ", ".join(f"{style.look(s).label} {n}" for s, n in gpus.items() if n > 1)
    more = f" (GPUs: {several}, so as many times the load and requests; all others 1)" if several else ""
    return (
        f"The engine of {about.get('vllm', 'vLLM of unknown version')}, with its own scheduler and KV manager, in "
        f"virtual time on {style.trace_label(variant.trace)}; the GPU is emulated by latency model {variant.latency}"
        f"{_hardware(frame)}{_noise(frame)}. No HTTP, and the host's own work takes no time: the same bytes on every "
        "machine. "
        f"Systems are set as their servers are. Load is per GPU{more}; arrivals over "
        f"{about.get('seconds', float('nan')):g} s at each load. Violated: of all that arrived; TTFT, TTLT and "
        "token deadlines counted. Points: mean over seeds. Thin dashed: the simulator, planning a step ahead, on "
        f"the same requests; in no run are the two more than {_worst_points(frame):.2f} points apart. SLOs are scaled "
        f"to the run's length: {about.get('scaling', 'not recorded')}. Runs this short reach no steady state: "
        "compare systems."
    )


def _hardware(frame: pd.DataFrame) -> str:
    hardware = frame.attrs.get("latency_model", {}).get("hardware")
    return f", of {hardware}" if hardware else ""


def _noise(frame: pd.DataFrame) -> str:
    """That steps do not take what the predictor says, where it is so."""
    noise = frame.attrs.get("noise")
    return f", and every step takes {noise:.0%} (standard deviation) more or less than it says" if noise else ""


def _worst_points(frame: pd.DataFrame) -> float:
    """Largest difference of a run's violation rate, of all its requests, engine and simulator; percentage points."""
    whole = frame[frame["group"] == "all"].assign(side=frame["backend"] == SIMULATOR)
    sides = whole.pivot(index=["system", "load_qps", "seed"], columns="side", values=CRITERION_ALL)
    return 100 * float((sides[False] - sides[True]).abs().max())


def _per_gpu(tables: Tables) -> pd.DataFrame:
    """The table with the load per GPU in place of the whole system's."""
    frame = require(tables, "engine", COLUMNS)
    return frame.assign(load_qps=frame["load_qps"] / frame["replicas"])


def _spread(values: pd.Series) -> Estimate:
    """Mean, lowest and highest: of three seeds Student's interval says little."""
    return Estimate(float(values.mean()), float(values.min()), float(values.max()))


def draw(tables: Tables, variant: Variant) -> Figure:
    """A panel for all requests and for those of each class."""
    frame = variant.rows(_per_gpu(tables))
    engine = frame[frame["backend"] != SIMULATOR]
    systems = style.in_order(frame["system"], style.SYSTEMS)
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 2.6)
        groups = ["all", *names(frame)]
        panels = figure.subplots(1, len(groups), sharex=True, sharey=True, squeeze=False)
        for ax, group in zip(panels[0], groups, strict=True):
            _panel(ax, frame[frame["group"] == group], systems, f"{group}, violated")
        thin = Line2D([], [], **THIN, label="simulator")
        load_lines.finish(figure, panels, "violated (%)", systems, (thin,))
        for ax in panels[0]:
            ax.set_xlabel("load per GPU (QPS)", labelpad=2)
        style.footer(figure, engine, {engine["seed"].nunique()}, "bands: lowest to highest seed")
    return figure


def _panel(ax: Axes, rows: pd.DataFrame, systems: list[str], title: str) -> None:
    percent = {"how": _spread, "scale": 100.0}
    for system in systems:
        own = rows[rows["system"] == system]
        load_lines.line(ax, own[own["backend"] != SIMULATOR], system, CRITERION_ALL, **percent)
        means = own[own["backend"] == SIMULATOR].groupby("load_qps")[CRITERION_ALL].mean()
        ax.plot(means.index, 100 * means, **THIN)
    ax.set_title(title)
    ax.set_ylim(-3, 103)
    style.tidy(ax)


def table(tables: Tables) -> pd.DataFrame:
    """A row per system, load per GPU and group: violation rate of the engine (mean, lowest and highest seed), of the
    simulator (mean), and the engine's latencies (means over seeds)."""
    frame = _per_gpu(tables)
    rows = []
    for (system, load, group), own in frame.groupby(["system", "load_qps", "group"], sort=False):
        engine, simulated = own[own["backend"] != SIMULATOR], own[own["backend"] == SIMULATOR]
        found = _spread(engine[CRITERION_ALL])
        rows.append(
            {
                "system": system, "load_qps": load, "group": group, "seeds": len(engine), CRITERION_ALL: found.mean,
                "lowest_seed": found.low, "highest_seed": found.high,
                f"simulated_{CRITERION_ALL}": simulated[CRITERION_ALL].mean(),
                "ttft_p95_s": engine["ttft_p95_s"].mean(), "ttlt_p95_s": engine["ttlt_p95_s"].mean(),
            }
        )  # fmt: skip
    found = pd.DataFrame(rows)
    rank = {name: i for i, name in enumerate(style.in_order(found["system"], style.SYSTEMS))}
    return found.sort_values(
        ["system", "load_qps"], key=lambda c: c.map(rank) if c.name == "system" else c, kind="stable"
    )


def text_table(tables: Tables) -> pd.DataFrame:
    """The classes' rows as formatted text."""
    rows = table(tables)
    rows = rows[rows["group"].isin(["all", *names(rows)])]
    return pd.DataFrame(
        {
            "system": style.look(row.system).label,
            "load per GPU": style.number_text(row.load_qps, 1),
            "requests of": row.group,
            "violated % (seeds)": style.interval_text(
                100 * row.violation_rate, 100 * row.lowest_seed, 100 * row.highest_seed, 1
            ),
            "simulated": style.number_text(100 * row.simulated_violation_rate, 1),
            "TTFT p95 s": style.number_text(row.ttft_p95_s),
            "TTLT p95 s": style.number_text(row.ttlt_p95_s),
        }
        for row in rows.itertuples()
    )
