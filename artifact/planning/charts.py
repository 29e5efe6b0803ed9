"""A plan's pictures, as PNG: GPUs by system with the load at which each breaks, and load and replicas over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import MaxNLocator

from figures import style

VLLM = "vllm-priority"  # of the two stock systems the one that is drawn over time
BAR = 0.6


def gpus_png(found: Mapping[str, Any]) -> bytes:
    """Bars of GPUs with the range of seeds, and dots where the first class breaks."""
    rows = [row for row in found["systems"] if row["gpus"] is not None]
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 0.9 + 0.3 * len(rows))
        left, right = figure.subplots(1, 2, sharey=True)
        _bars(left, rows)
        _breaks(right, rows, 1.0 + found["load"]["headroom_percent"] / 100)
        left.set_yticks(range(len(rows)), [row["label"] for row in rows])
        left.invert_yaxis()
        style.footnote(figure, _about(found))
        return style.image_bytes(figure, "png")


def _bars(ax: Axes, rows: list[dict[str, Any]]) -> None:
    for y, row in enumerate(rows):
        ax.barh(y, row["gpus"], BAR, color=style.look(row["system"]).colour)
        low, high = min(row["gpus_by_seed"]), max(row["gpus_by_seed"])
        if low < high:
            ax.plot([low, high], [y, y], color=style.INK, lw=1.2, marker="|")
        money = f", USD {row['usd_a_month']:,}" if "usd_a_month" in row else ""
        ax.annotate(
            f"{row['gpus']:,}{money}", (max(high, row["gpus"]), y), (4, 0), textcoords="offset points", va="center"
        )
    ax.set_xlabel("GPUs" + (", and USD a month" if "usd_a_month" in rows[0] else "") if rows else "GPUs")
    ax.margins(x=0.45)
    ax.set_xlim(left=0)
    ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
    style.tidy(ax, grid="x")


def _breaks(ax: Axes, rows: list[dict[str, Any]], planned: float) -> None:
    ax.axvline(planned, color=style.FAINT, lw=0.8, ls=":")
    for y, row in enumerate(rows):
        if (mean := row["breaks_at_load"]) is None:
            continue
        if (low := row["breaks_at_load_low"]) is not None:
            ax.plot([low, row["breaks_at_load_high"]], [y, y], color=style.look(row["system"]).colour)
        ax.plot(mean, y, style.look(row["system"]).marker, color=style.look(row["system"]).colour, ms=5)
        ax.annotate(
            row["first_class"], (mean, y), (0, 5), textcoords="offset points", ha="center", fontsize=style.SMALL_PT
        )
    ax.set_xlabel("a class breaks at (times the load; dotted: planned)")
    ax.margins(x=0.15, y=0.15)
    style.tidy(ax, grid="x")


def hours_png(found: Mapping[str, Any]) -> bytes:
    """The load in each bin, and below it the replicas that silo, shared vLLM and Niyama need."""
    hours, load = found["hours"], found["load"]
    edges = np.arange(load["bins"] + 1) * load["bin_minutes"]
    unit, name = (60.0, "hours") if edges[-1] >= 360 else (1.0, "minutes")
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 3.4)
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=[1, 1.5])
        above.stairs(hours["qps"], edges / unit, fill=True, color="#C9C9C9")
        above.set_ylabel("requests/s")
        style.tidy(above)
        for system in drawn(found):
            look = style.look(system["system"])
            replicas = hours["systems"][system["system"]]["replicas"]
            width = 2.0 if look.emphasised else 1.3
            below.stairs(replicas, edges / unit, baseline=None, color=look.colour, lw=width, label=system["label"])
        below.set_ylabel("replicas needed")
        below.set_ylim(bottom=0)
        below.yaxis.set_major_locator(MaxNLocator(5, integer=True))
        below.set_xlabel(f"{name} from the trace's start")
        below.legend(loc="lower right", ncols=3)
        below.margins(y=0.1)
        style.tidy(below)
        style.footnote(figure, _about(found))
        return style.image_bytes(figure, "png")


def drawn(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The systems that the picture over time has: the silo, one stock vLLM, the better Niyama."""
    rows = [row for row in found["systems"] if row["system"] in found["hours"]["systems"]]
    niyama = sorted((row for row in rows if row["system"].startswith("niyama")), key=lambda row: row["gpus"])[:1]
    stock = [row for row in rows if row["system"].startswith("vllm")]
    stock = [row for row in stock if row["system"] == VLLM] or stock[:1]
    return [*(row for row in rows if not row["system"].startswith(("niyama", "vllm"))), *stock, *niyama]


def _about(found: Mapping[str, Any]) -> str:
    return (
        f"Backend: simulation. Latency model: {found['latency']}. Predictor: {found['predictor']}. "
        f"Trace: {found['trace']}. {found['seeds']} seeds; black lines: their range; coloured: 95 % intervals. "
        f"Code {found['code']}."
    )
