"""More demanding and more numerous classes: sub-second TTFT, and five classes at once. Not in the paper."""

from __future__ import annotations

import numpy as np
from matplotlib.figure import Figure

from figures import load_lines, style, violation_lines
from figures.classes import names
from figures.frames import Tables, Variant, require, traces_and_latencies

TITLE = "Sub-second TTFT and five classes (not in the paper)"
INPUTS = ("more_classes",)
ALSO_WITH_TOKEN_DEADLINES = ("niyama",)
COLUMNS = (*violation_lines.COLUMNS, "variant")


def variants(tables: Tables) -> list[Variant]:
    """One per trace and latency model."""
    return traces_and_latencies(require(tables, "more_classes", COLUMNS))


def caption(tables: Tables, variant: Variant) -> str:
    """What the figure shows."""
    sets = list(dict.fromkeys(variant.rows(require(tables, "more_classes", COLUMNS))["variant"]))
    return (
        f"Violated requests by class on {style.trace_label(variant.trace)}, latency model {variant.latency}; not in "
        f"the paper. Rows: {'; '.join(sets)}, in equal parts; a panel's title is the class's TTFT with its TBT, or its "
        "TTLT. Solid: TTFT and TTLT; thin dashed, for Niyama: token deadlines (Eq 2) counted too. A TTFT shorter than "
        "the longest prompts' own prefill is missed by those at any load. Bands: 95 % interval over seeds."
    )


def draw(tables: Tables, variant: Variant) -> Figure:
    """One row of panels per set of classes, one panel per class."""
    frame = variant.rows(require(tables, "more_classes", COLUMNS))
    systems = style.in_order(frame["system"], style.SYSTEMS)
    sets = {label: names(own) for label, own in frame.groupby("variant", sort=False)}
    columns = max(map(len, sets.values()))
    with style.styled():
        figure = style.new_figure(style.DOUBLE_IN, 1.6 * len(sets) + 1.0)
        panels = figure.subplots(len(sets), columns, sharex=True, sharey=True, squeeze=False)
        load_lines.finish(figure, panels, "violated (%)", systems, (violation_lines.handle(),))
        for line, (label, own) in zip(panels, sets.items(), strict=True):
            for ax in line[len(own) :]:
                ax.remove()
            line[0].set_ylabel(f"{label}\nviolated (%)", labelpad=2)
            for ax, name in zip(line, own, strict=False):
                rows = frame[(frame["variant"] == label) & (frame["group"] == name)]
                violation_lines.panel(ax, name, rows, systems, ALSO_WITH_TOKEN_DEADLINES)
        _label_last(panels, sets)
        style.footer(figure, frame, {frame["seed"].nunique()}, load_lines.BANDS)
    return figure


def _label_last(panels: np.ndarray, sets: dict[str, list[str]]) -> None:
    """Loads under every panel that has none below it."""
    sizes = [len(own) for own in sets.values()]
    for k, size in enumerate(sizes):
        below = sizes[k + 1] if k + 1 < len(sizes) else 0
        for ax in panels[k][below:size]:
            ax.set_xlabel("load (QPS)", labelpad=2)
            ax.tick_params(labelbottom=True)
