"""One look for every figure: sizes, one colour, marker and label per system, footer, and saving without dates."""

from __future__ import annotations

import contextlib
import io
import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import matplotlib
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

SINGLE_IN, DOUBLE_IN = 3.3, 7.0  # column widths
FONT_PT = 7.5
SMALL_PT = 7.0
DPI = 200
INK, FAINT = "#222222", "#777777"
FACTS = {"png": {"Software": None}, "pdf": {"Creator": None, "Producer": None, "CreationDate": None}}


@dataclass(frozen=True)
class Look:
    """How a system is shown everywhere."""

    label: str
    colour: str
    marker: str
    dashes: str | tuple[int, tuple[float, ...]] = "-"
    emphasised: bool = False


LONG_DASHES = (0, (6, 2.5))
#: Okabe and Ito's colours, which survive the common colour blindnesses; markers tell apart what print does not.
SYSTEMS = {
    "sarathi-fcfs": Look("Sarathi-FCFS", "#56B4E9", "v"),
    "sarathi-edf": Look("Sarathi-EDF", "#0072B2", "s"),
    "sarathi-sjf": Look("Sarathi-SJF", "#B0B0B0", "<"),
    "sarathi-srpf": Look("Sarathi-SRPF", "#5A5A5A", ">", LONG_DASHES),
    "sarathi-silo": Look("Sarathi-Silo", "#CC79A7", "P"),
    "vllm-fcfs": Look("vLLM, FCFS", "#6AA6C8", "1"),
    "vllm-priority": Look("vLLM, priority", "#1F4E79", "p"),
    "silo": Look("vLLM, silo", "#A64D85", "d"),
    "qoserve-artifact": Look("QoServe artifact", "#009E73", "D", LONG_DASHES),
    "niyama-dc": Look("Niyama, DC", "#F0C94D", "^"),
    "niyama-dc-er": Look("Niyama, DC+ER", "#E69F00", "h"),
    "niyama-adaptive": Look("Niyama, adaptive α", "#8C3D00", "X"),
    "medha": Look("Medha", "#117733", "8"),
    "polyserve": Look("PolyServe", "#332288", "H"),
    "sarathi-fcfs-192": Look("Sarathi-FCFS 192", "#A9CFE0", "3"),
    "sarathi-fcfs-512": Look("Sarathi-FCFS 512", "#3D85A8", "4"),
    "niyama-dc-fcfs": Look("Niyama, DC, FCFS", "#C2A000", "2"),
    "niyama-steady": Look("Niyama-steady", "#7A0177", "*"),
    "niyama": Look("Niyama", "#D55E00", "o", emphasised=True),
}
#: Disaggregated systems look like the policy of their prefill pool; no figure has both.
DISAGGREGATED = {
    "disagg-fcfs": replace(SYSTEMS["sarathi-fcfs"], label="Disagg-FCFS"),
    "disagg-edf": replace(SYSTEMS["sarathi-edf"], label="Disagg-EDF"),
    "disagg-niyama": replace(SYSTEMS["niyama"], label="Disagg-Niyama"),
}
POOLS = {"Q1": "#99517A", "Q2": "#CC79A7", "Q3": "#E8C3D8"}
TRACES = {
    "azure-code-2023": "Azure code 2023",
    "azure-code-2024-week": "Azure code 2024",
    "azure-conv-2023": "Azure conv 2023",
    "azure-conv-2024-week": "Azure conv 2024",
    "sharegpt-8k": "ShareGPT",
    "mooncake-conv": "Mooncake conv",
    "fixed-10000x500": "10,000 + 500 tokens",
}
SYNTHETIC = "-synth"


def look(system: str) -> Look:
    """The look of a system; one that is not built in is brown, with its own name."""
    return SYSTEMS.get(system) or DISAGGREGATED.get(system) or Look(Path(system).name, "#7A4B2A", "*", ":")


def in_order(names: Iterable[str], known: Iterable[str]) -> list[str]:
    """Distinct names in the order of `known` (a synthetic trace after its model), others after them by name."""
    rank = {name: i for i, name in enumerate(known)}
    return sorted(set(names), key=lambda n: (rank.get(n.removesuffix(SYNTHETIC), len(rank)), n))


def trace_label(trace: str) -> str:
    """The label of a trace; a synthetic one always says so."""
    base = trace.removesuffix(SYNTHETIC)
    return TRACES.get(base, base) + (" (synthetic)" if trace.endswith(SYNTHETIC) else "")


@contextlib.contextmanager
def styled() -> Iterator[None]:
    """Everything drawn or saved inside has the one style; the caller's matplotlib settings come back after it."""
    fonts = dict.fromkeys(("font.size", "axes.labelsize", "axes.titlesize", "legend.fontsize"), FONT_PT)
    ticks = dict.fromkeys(("xtick.labelsize", "ytick.labelsize"), SMALL_PT)
    lines = {"axes.linewidth": 0.6, "grid.linewidth": 0.4, "lines.linewidth": 1.1, "lines.markersize": 3.5}
    sizes = {f"{axis}tick.{kind}": v for axis in "xy" for kind, v in (("major.width", 0.6), ("major.size", 2.5))}
    sizes |= {f"{axis}tick.minor.size": 1.5 for axis in "xy"} | {f"{axis}tick.minor.width": 0.4 for axis in "xy"}
    own = {
        "font.family": "sans-serif",
        "font.sans-serif": ["DejaVu Sans"],
        "pdf.fonttype": 42,
        "axes.titlepad": 4,
        "axes.axisbelow": True,
        "grid.color": "#E4E4E4",
        "legend.frameon": False,
    }
    import seaborn as sns  # a second, which only what is drawn is worth

    with matplotlib.rc_context({**sns.axes_style("ticks"), **fonts, **ticks, **lines, **sizes, **own}):
        yield


def new_figure(width_in: float, height_in: float) -> Figure:
    """An empty figure that lays itself out and belongs to no window (call inside `styled`)."""
    figure = Figure(figsize=(width_in, height_in), dpi=DPI, layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def tidy(ax: Axes, *, grid: str = "y") -> None:
    """Only the two axis lines, and a faint grid."""
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis=grid)


def line_style(system: str) -> dict[str, object]:
    """Keywords of a system's line in plots over load; Niyama is thicker, and in front of all but dashed ones.

    A dashed system often lies on another: SRPF on SJF, the artifact on Niyama. Both can be seen.
    """
    found = look(system)
    width, front = (2.0, 4) if found.emphasised else (1.0, 3 if found.dashes == "-" else 5)
    return {"color": found.colour, "marker": found.marker, "ls": found.dashes, "lw": width, "zorder": front}


def ramp(count: int) -> list[str]:
    """`count` colours from dark to light for what is no system, and has an order; they keep it in grey."""
    return [to_hex(matplotlib.colormaps["viridis"](x)) for x in np.linspace(0.0, 0.88, count)]


def log_axis(ax: Axes, steps: tuple[float, ...] = (1.0,)) -> None:
    """A logarithmic y axis with plain numbers at `steps` times the powers of ten."""
    ax.set_yscale("log")
    ax.yaxis.set_major_locator(LogLocator(subs=steps))
    ax.yaxis.set_major_formatter(FuncFormatter(lambda v, _: f"{v:,g}"))
    ax.yaxis.set_minor_formatter(NullFormatter())


def legend_above(figure: Figure, handles: list, columns: int) -> None:
    """The figure's legend, above all panels."""
    figure.legend(
        handles=handles, loc="outside upper center", ncols=columns, columnspacing=1.2, handlelength=1.8, borderpad=0.1
    )


def counted(numbers: Iterable[int]) -> str:
    """`9,000` or `9,000 to 39,000`."""
    low, high = min(numbers), max(numbers)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def backend(*frames: pd.DataFrame) -> str:
    """Where the numbers come from: the tables' column, or what their metadata (`frame.attrs`) says."""
    found = {str(name) for f in frames if "backend" in f for name in f["backend"].unique()}
    found = found or {str(f.attrs["backend"]) for f in frames if "backend" in f.attrs}
    return ", ".join(sorted("simulation" if name == "sim" else name for name in found)) or "not recorded"


def footer(figure: Figure, rows: pd.DataFrame, seeds: Iterable[int], intervals: str) -> None:
    """The provenance every figure carries, from the rows it shows: what ran, how often, and what an interval means."""
    predictors = ", ".join(sorted(set(rows["predictor"])))
    predictors = predictors.replace("(oracle)", "(oracle: the model that executes)")
    several = counted(seeds)
    if max(seeds) < 2:
        intervals = "a single seed has no interval"
    text = (
        f"Backend: {backend(rows)}. Latency model: {', '.join(sorted(set(rows['latency'])))}. "
        f"Predictor: {predictors}. Traces: {', '.join(in_order(rows['trace'], TRACES))}. "
        f"N = {counted(rows['requests'])} requests per run, seeds: {several}; {intervals}."
    )
    for unbroken in ("N = ", "95 %", "Student's t"):
        text = text.replace(unbroken, unbroken.replace(" ", "\N{NO-BREAK SPACE}"))
    footnote(figure, text)


def footnote(figure: Figure, text: str) -> None:
    """Small text under the whole figure."""
    width = int(figure.get_figwidth() * 19)
    lines = "\n".join(textwrap.wrap(text, width, break_on_hyphens=False))
    figure.supxlabel(lines, x=0.01, ha="left", fontsize=SMALL_PT, color=FAINT, linespacing=1.25)


def image_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `png` or `pdf`; the same figure gives the same bytes, whenever it is saved.

    Its layout is settled by the first save: laying out again would move things by fractions of a pixel.
    """
    with styled():
        if figure.get_layout_engine() is not None:
            figure.draw_without_rendering()
            figure.set_layout_engine("none")
        stream = io.BytesIO()
        figure.savefig(stream, format=kind, dpi=DPI, metadata=FACTS[kind])
    return stream.getvalue()


def save(figure: Figure, stem: Path) -> list[Path]:
    """Write `stem`.png and `stem`.pdf, each whole or not at all."""
    paths = []
    for kind in FACTS:
        path = stem.with_name(f"{stem.name}.{kind}")
        part = path.with_name(f".{path.name}.part")
        part.write_bytes(image_bytes(figure, kind))
        part.replace(path)
        paths.append(path)
    return paths


def number_text(value: float | None, digits: int = 2) -> str:
    """A number for a table; an en dash for one that is missing."""
    return "–" if value is None or pd.isna(value) else f"{value:,.{digits}f}".replace("-", "−")


def interval_text(mean: float, low: float, high: float, digits: int = 2) -> str:
    """`mean [low, high]` for a table; only the mean where a single seed has no interval."""
    if pd.isna(mean):
        return "no crossing"
    if pd.isna(low):
        return number_text(mean, digits)
    return f"{number_text(mean, digits)} [{number_text(low, digits)}, {number_text(high, digits)}]"
