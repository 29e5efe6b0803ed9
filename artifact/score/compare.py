"""Who is better where: paired differences over seeds, with intervals, and ranks with ties.

Two policies ran on the same requests and the same noise, seed by seed: what differs between them is the difference of
each seed, and its mean has a 95 % interval (Student's t). A policy is better on an axis where that interval lies on the
better side of 0; else the two tie. Each comparison has its own interval: of a hundred between equals five come out.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from artifact.score.axes import AXES
from artifact.score.scorecard import Scorecard
from figures.estimates import Estimate, estimate

WINS, TIES, LOSES = "wins", "ties", "loses"


@dataclass(frozen=True)
class Duel:
    """One policy beside another on one axis of one cell. difference: mine minus the peer's, over seeds."""

    cell: str
    axis: str
    peer: str
    mine: float
    theirs: float
    difference: Estimate
    result: str


@dataclass(frozen=True)
class Place:
    """A policy among all on one axis of a cell. best, worst: its rank, and the last with which it ties."""

    value: Estimate
    best: int
    worst: int


def duel(mine: Scorecard, peer: Scorecard, cell: str, axis: str) -> Duel | None:
    """The comparison; None where one of the two lacks the cell, the axis or seeds in common."""
    own, theirs = mine.values(cell, axis), peer.values(cell, axis)
    if own is None or theirs is None or not comparable(mine, peer, cell):
        return None
    both = min(len(own), len(theirs))
    if both < 2:
        return None
    differences = np.array(own[:both]) - np.array(theirs[:both])
    found = estimate(differences)
    assert found is not None and found.low is not None and found.high is not None
    above, below = found.low > 0, found.high < 0
    better, worse = (above, below) if AXES[axis].higher else (below, above)
    result = WINS if better else LOSES if worse else TIES
    return Duel(cell, axis, peer.label, float(np.mean(own)), float(np.mean(theirs)), found, result)


def comparable(mine: Scorecard, peer: Scorecard, cell: str) -> bool:
    """Whether both ran the same cell: the same trace, load, classes and length."""
    if cell not in mine.cells or cell not in peer.cells:
        return False
    fields = ("trace", "latency", "predictor", "load_qps", "requests", "load_requests", "classes")
    return all(mine.cells[cell][name] == peer.cells[cell][name] for name in fields)


def duels(mine: Scorecard, peers: Sequence[Scorecard]) -> list[Duel]:
    """Every comparison of a policy with its peers, cell by cell and axis by axis."""
    asked = [(peer, cell, axis) for cell in mine.cells for axis in mine.cells[cell]["axes"] for peer in peers]
    return [found for peer, cell, axis in asked if (found := duel(mine, peer, cell, axis)) is not None]


def places(cards: Sequence[Scorecard], cell: str, axis: str) -> dict[str, Place]:
    """Each policy's place on an axis of a cell, by label; those without numbers are left out."""
    there = [card for card in cards if card.values(cell, axis) is not None]
    found = {}
    for card in there:
        results = Counter(d.result for peer in there if peer is not card if (d := duel(card, peer, cell, axis)))
        value = estimate(card.values(cell, axis))
        assert value is not None
        found[card.label] = Place(value, 1 + results[LOSES], 1 + results[LOSES] + results[TIES])
    return found


@dataclass(frozen=True)
class Standing:
    """A policy over all cells and axes. first: of how many places nobody is better; mean_rank: the mean of its ranks.

    share_of_bound: the mean over cells of its capacity by token deadlines, as a share of the fluid bound. above: the
    mean over cells of what it violates above the load.
    """

    label: str
    system: str
    first: int
    places: int
    mean_rank: float
    share_of_bound: float
    without_tbt_share_of_bound: float
    above: float


def standings(cards: Sequence[Scorecard]) -> list[Standing]:
    """All policies, those first that have the best mean rank."""
    ranks: dict[str, list[int]] = {card.label: [] for card in cards}
    for cell in cells_of(cards):
        for axis in AXES:
            for label, place in places(cards, cell, axis).items():
                ranks[label].append(place.best)
    found = [_standing(card, ranks[card.label]) for card in cards if ranks[card.label]]
    return sorted(found, key=lambda standing: (standing.mean_rank, standing.label))


def _standing(card: Scorecard, ranks: list[int]) -> Standing:
    def over_cells(axis: str, of_bound: bool) -> float:
        means = [
            float(np.mean(values)) / (card.cells[cell]["bound_qps"] if of_bound else 1.0)
            for cell in card.cells
            if (values := card.values(cell, axis)) is not None
        ]
        return float(np.mean(means))

    return Standing(
        card.label,
        card.system,
        sum(rank == 1 for rank in ranks),
        len(ranks),
        float(np.mean(ranks)),
        over_cells("capacity_qps", True),
        over_cells("capacity_without_tbt_qps", True),
        over_cells("violated_above", False),
    )


def cells_of(cards: Sequence[Scorecard]) -> list[str]:
    """Names of all cells that any policy has, in the order of the first."""
    return list(dict.fromkeys(cell for card in cards for cell in card.cells))
