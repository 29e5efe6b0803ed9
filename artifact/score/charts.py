"""The picture of many policies: each axis a column, each policy a row, with intervals over seeds and the bound."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import NullFormatter

from artifact.score.axes import AXES
from artifact.score.compare import cells_of, comparable, standings
from artifact.score.scorecard import Scorecard
from figures import style
from figures.estimates import Estimate, estimate

COLUMNS = 5
#: Axes that are drawn as a share of the fluid bound, and as a geometric mean.
OF_BOUND = ("capacity_qps", "capacity_without_tbt_qps")
MARK_S = "s"


def overall(card: Scorecard, axis: str, cells: Sequence[str]) -> Estimate | None:
    """A policy's mean over cells on an axis, with its interval over seeds; None where it lacks a cell that others have.

    Capacities as shares of the bound; times as geometric means, because cells differ tenfold.
    """
    rows = [card.values(cell, axis) for cell in cells]
    if not rows or any(row is None for row in rows):
        return None
    values = np.array(rows, dtype=float)
    if axis in OF_BOUND:
        values = values / np.array([[card.cells[cell]["bound_qps"]] for cell in cells])
    if AXES[axis].unit == MARK_S:
        return estimate(np.exp(np.log(np.maximum(values, 1e-4)).mean(axis=0)))
    return estimate(values.mean(axis=0))


def cells_with(cards: Sequence[Scorecard], axis: str) -> list[str]:
    """Cells that all policies ran alike, and that have the axis."""
    return [
        cell
        for cell in cells_of(cards)
        if all(card.values(cell, axis) is not None and comparable(card, cards[0], cell) for card in cards)
    ]


def overview_png(cards: Sequence[Scorecard], made: str) -> bytes:
    """Every policy on every axis; the best mean rank on top."""
    order = [standing.label for standing in standings(cards)]
    cards = sorted((card for card in cards if card.label in order), key=lambda card: order.index(card.label))
    drawn = [(axis, cells) for axis in AXES if (cells := cells_with(cards, axis))]
    rows = -(-len(drawn) // COLUMNS)
    with style.styled():
        figure = style.new_figure(10.0, rows * (0.55 + 0.15 * len(cards)) + 0.5)
        axes = np.atleast_2d(figure.subplots(rows, COLUMNS, sharey=True))
        for place, (axis, cells) in zip(axes.flat, drawn, strict=False):
            _column(place, cards, axis, cells)
        for place in axes.flat[len(drawn) :]:
            place.set_axis_off()
        for row in axes:
            row[0].set_yticks(range(len(cards)), [style.look(card.label).label for card in cards])
        axes[0, 0].invert_yaxis()
        style.footnote(figure, made)
        return style.image_bytes(figure, "png")


def _column(ax: Axes, cards: Sequence[Scorecard], axis: str, cells: Sequence[str]) -> None:
    scale = 100.0 if AXES[axis].unit == "share" or axis in OF_BOUND else 1.0
    for y, card in enumerate(cards):
        if (found := overall(card, axis, cells)) is None:
            continue
        look, value = style.look(card.label), found.scaled(scale)
        if value.low is not None and value.high is not None:
            ax.plot([value.low, value.high], [y, y], color=look.colour, lw=1.4)
        ax.plot(value.mean, y, look.marker, color=look.colour, ms=4)
    if axis in OF_BOUND:
        ax.axvline(100.0, color=style.INK, lw=0.9, ls="--")
    unit = "% of the bound" if axis in OF_BOUND else "%" if scale == 100 else AXES[axis].unit
    arrow = "more is better" if AXES[axis].higher else "less is better"
    ax.set_title(AXES[axis].label, loc="left")
    ax.set_xlabel(f"{unit}, {arrow}")
    if AXES[axis].unit == MARK_S:
        ax.set_xscale("log")
        ax.xaxis.set_minor_formatter(NullFormatter())
    else:
        ax.set_xlim(left=0 if not AXES[axis].higher or axis in OF_BOUND else None)
    style.tidy(ax, grid="x")
