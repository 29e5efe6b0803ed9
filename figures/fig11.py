"""Fig 11: share of violated requests against load: overall, by prompt length and by class."""

from __future__ import annotations

from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from figures import load_lines, style
from figures.frames import (
    CRITERION_ALL,
    CRITERION_PAPER,
    RUN_COLUMNS,
    Tables,
    Variant,
    require,
    traces_and_latencies,
)

TITLE = "Fig 11: violations against load"
INPUTS = ("summary",)
GROUPS = {
    "all": "overall",
    "short": "short prompts (below p90)",
    "long": "long prompts (from p90)",
    "Q1": "Q1",
    "Q2": "Q2",
    "Q3": "Q3",
}
ALSO_WITH_TOKEN_DEADLINES = ("niyama", "qoserve-artifact")
THIN = {"lw": 0.9, "ls": (0, (3, 1.5)), "marker": None, "zorder": 5}
COLUMNS = (*RUN_COLUMNS, CRITERION_PAPER, CRITERION_ALL)


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "summary", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    return (
        f"Fig 11: violated requests on {style.trace_label(variant.trace)}, latency model {variant.latency}. Solid: "
        "TTFT and TTLT violations, as in the paper; thin dashed, for Niyama and the authors' artifact only: token "
        "deadlines (Eq 2) counted too. “Overall” is the share of all requests that arrived. Bands: 95 % interval over "
        "seeds. Above capacity the values depend on N. The paper prints no numbers for this figure."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One panel per group of requests."""
    frame = variant.rows(require(tables, "summary", COLUMNS))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    both = [system for system in systems if system in ALSO_WITH_TOKEN_DEADLINES]
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 4.4)
        panels = figure.subplots(2, 3, sharex=True, sharey=True)
        for ax, (group, title) in zip(panels.ravel(), GROUPS.items(), strict=True):
            rows = frame[frame["group"] == group]
            percent = {"scale": 100.0, "limits": (0.0, 100.0)}
            for system in systems:
                load_lines.line(ax, rows[rows["system"] == system], system, CRITERION_PAPER, **percent)
            for system in both:
                load_lines.line(ax, rows[rows["system"] == system], system, CRITERION_ALL, **percent, **THIN)
            ax.set_title(title)
            ax.set_ylim(-3, 103)
            style.tidy(ax)
        extra = (Line2D([], [], color=style.INK, **THIN, label="token deadlines too"),) if both else ()
        load_lines.finish(figure, panels, "violated (%)", systems, extra)
        style.footer(figure, frame, {frame["seed"].nunique()}, "bands: 95 % interval over seeds (Student's t)")
    return figure
