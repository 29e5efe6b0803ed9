"""What interactive bursts wait beside batch jobs with windows, and how long the jobs take. Not in the paper."""

from __future__ import annotations

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from figures import style
from figures.estimates import Estimate, estimate
from figures.frames import Tables, Variant, require

TITLE = "Interactive bursts beside batch jobs, as operators run them (not in the paper)"
INPUTS = ("operators",)
COLUMNS = (
    "trace",
    "system",
    "latency",
    "predictor",
    "requests",
    "replicas",
    "seed",
    "ttft_p95_s",
    "gap_p95_s",
    "violation_rate",
    "windows_met",
    "jobs_done_s",
    "gpu_hours",
)
LABELS = {
    "interactive alone": "interactive alone",
    "vllm-fcfs": "unprotected (vLLM, FCFS)",
    "vllm-fcfs behind AIMD": "AIMD gateway, vLLM FCFS",
}
#: Column -> label of its axis, and whether it is logarithmic.
SHOWN = {
    "ttft_p95_s": ("interactive TTFT, p95 (s)", True),
    "violation_rate": ("interactive requests violated (%)", False),
    "jobs_done_s": ("all batch jobs done after (s)", False),
}


def variants(tables: Tables) -> list[Variant]:
    """One per latency model."""
    return [Variant(str(latency)) for latency in require(tables, INPUTS[0], COLUMNS)["latency"].unique()]


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    rows = variant.rows(require(tables, INPUTS[0], COLUMNS))
    return (
        f"Bursts of 15 interactive requests/s (512 tokens, 128 of output; SLOs TTFT 1 s, TBT 50 ms) beside three batch "
        f"jobs of 1,000 requests that are all there at the start, simulated with {variant.latency}, means over "
        f"{rows['seed'].nunique()} seeds with 95 % intervals; filled: one replica, hollow: two. After the scenario of "
        "llm-d-batch-gateway issue 491, which ran on other GPUs; its numbers do not compare. The constants of the AIMD "
        "gateway are ours. Not in the paper."
    )


def table(tables: Tables) -> pd.DataFrame:
    """A row per latency model, replicas and system: means over seeds; intervals as NAME_low and NAME_high."""
    frame, rows = require(tables, INPUTS[0], COLUMNS), []
    for (latency, replicas, system), own in frame.groupby(["latency", "replicas", "system"], sort=False):
        row = {"latency": latency, "replicas": replicas, "system": system}
        for name in ("gap_p95_s", "windows_met", "gpu_hours", *SHOWN):
            found = estimate(own[name])
            row[name] = None if found is None else found.mean
            if name in SHOWN:
                row |= {f"{name}_low": found and found.low, f"{name}_high": found and found.high}
        rows.append(row)
    return pd.DataFrame(rows)


def text_table(tables: Tables) -> pd.DataFrame:
    """The table as formatted text."""
    rows = table(tables)
    return pd.DataFrame(
        {
            "system": rows["system"].map(label),
            "replicas": rows["replicas"],
            "TTFT p95 (s)": [style.number_text(v, 3) for v in rows["ttft_p95_s"]],
            "gap p95 (ms)": [style.number_text(1000 * v, 0) for v in rows["gap_p95_s"]],
            "violated (%)": [style.number_text(100 * v, 2) for v in rows["violation_rate"]],
            "windows met": [style.number_text(v, 1) for v in rows["windows_met"]],
            "jobs done (s)": [style.number_text(v, 0) for v in rows["jobs_done_s"]],
            "GPU-hours": [style.number_text(v, 2) for v in rows["gpu_hours"]],
        }
    )


def label(system: str) -> str:
    """A system's name, one behind a gateway included."""
    return LABELS.get(system) or style.look(system).label


def draw(tables: Tables, variant: Variant) -> Figure:
    """A row per system; what bursts waited, were violated, and how long the jobs took."""
    rows = variant.rows(table(tables))
    systems = list(dict.fromkeys(rows["system"]))
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 0.9 + 0.25 * len(systems))
        for ax, name in zip(figure.subplots(1, len(SHOWN), sharey=True), SHOWN, strict=True):
            _column(ax, rows, systems, name)
        figure.axes[0].set_yticks(range(len(systems)), [label(system) for system in systems])
        figure.axes[0].invert_yaxis()
        frame = variant.rows(tables[INPUTS[0]])
        style.footer(figure, frame, {frame["seed"].nunique()}, "lines: 95 % interval over seeds (Student's t)")
        return figure


def _column(ax: Axes, rows: pd.DataFrame, systems: list[str], name: str) -> None:
    text, logarithmic = SHOWN[name]
    scale = 100.0 if name == "violation_rate" else 1.0
    sizes = sorted(rows["replicas"].unique())
    for row in rows.to_dict("records"):
        if pd.isna(row[name]):
            continue
        y = systems.index(row["system"]) + 0.16 * (2 * sizes.index(row["replicas"]) - len(sizes) + 1)
        value = Estimate(row[name], row[f"{name}_low"], row[f"{name}_high"]).scaled(scale)
        look, first = style.look(row["system"]), row["replicas"] == sizes[0]
        if value.low is not None and value.high is not None:
            ax.plot([max(value.low, 0.01) if logarithmic else value.low, value.high], [y, y], color=look.colour, lw=1.2)
        ax.plot(value.mean, y, look.marker, color=look.colour, mfc=look.colour if first else "white", ms=4.5)
    ax.set_xlabel(text)
    if logarithmic:
        ax.set_xscale("log")
    else:
        ax.set_xlim(left=0)
    style.tidy(ax, grid="x")
