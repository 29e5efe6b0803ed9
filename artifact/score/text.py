"""A comparison in words and tables: for the terminal, for pages, and for the leaderboard."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import pandas as pd

from artifact.score.axes import AXES
from artifact.score.compare import LOSES, TIES, WINS, Duel, Place, duels, places
from artifact.score.scorecard import Scorecard
from figures.estimates import Estimate


def number(value: float) -> str:
    """Three digits, as people write them."""
    return f"{value:.3g}" if abs(value) >= 0.0005 or value == 0 else f"{value:.0e}"


def shown(value: float, axis: str) -> str:
    """With its unit: a share in per cent."""
    unit = AXES[axis].unit
    if unit == "share":
        return f"{100 * value:.1f} %"
    return number(value) + {"s": " s", "requests/s": "/s"}.get(unit, "")


def estimated(value: Estimate, axis: str) -> str:
    """A mean with half its interval."""
    half = 0.0 if value.high is None else value.high - value.mean
    scale = 100 if AXES[axis].unit == "share" else 1
    return f"{shown(value.mean, axis)} ± {number(scale * half)}"


def rank(place: Place) -> str:
    """`2`, or `2-4` among equals."""
    return str(place.best) if place.best == place.worst else f"{place.best}-{place.worst}"


def against(found: Sequence[Duel]) -> pd.DataFrame:
    """A row for each peer: on how many axes of how many cells the policy wins, ties and loses."""
    by_peer: dict[str, Counter[str]] = {}
    for d in found:
        by_peer.setdefault(d.peer, Counter())[d.result] += 1
    rows = [{"against": peer, **{name: n[name] for name in (WINS, TIES, LOSES)}} for peer, n in by_peer.items()]
    frame = pd.DataFrame(rows, columns=["against", WINS, TIES, LOSES])
    return frame.sort_values([LOSES, "against"], ascending=[False, True], ignore_index=True)


def size(d: Duel) -> float:
    """How much of the greater of the two numbers the difference is."""
    return abs(d.mine - d.theirs) / max(abs(d.mine), abs(d.theirs), 1e-12)


def best_in(found: Iterable[Duel]) -> list[Duel]:
    """Of these, for each cell and axis only the one against the best peer."""
    kept: dict[tuple[str, str], Duel] = {}
    for d in found:
        better = kept.get((d.cell, d.axis))
        if better is None or (d.theirs > better.theirs) == AXES[d.axis].higher:
            kept[d.cell, d.axis] = d
    return list(kept.values())


def greatest(found: Iterable[Duel], result: str) -> list[Duel]:
    """The greatest wins or losses that a user would notice, one an axis."""
    chosen: dict[str, Duel] = {}
    for d in sorted(found, key=lambda d: (-size(d), d.cell)):
        if d.result == result and matters(d):
            chosen.setdefault(d.axis, d)
    return sorted(chosen.values(), key=lambda d: list(AXES).index(d.axis))


def matters(d: Duel) -> bool:
    """Whether a difference is one that a user would notice: above 1 % of requests, or of the greater number."""
    return abs(d.mine - d.theirs) >= 0.01 if AXES[d.axis].unit == "share" else size(d) >= 0.01


def line(d: Duel) -> str:
    """One comparison as a sentence."""
    half = (d.difference.high or 0.0) - d.difference.mean
    scale = 100 if AXES[d.axis].unit == "share" else 1
    return (
        f"{d.cell}, {AXES[d.axis].label}: {shown(d.mine, d.axis)}, {d.peer} {shown(d.theirs, d.axis)} "
        f"(difference ± {number(scale * half)})"
    )


def verdict(card: Scorecard, peers: Sequence[Scorecard]) -> str:
    """In how many places nobody is better, and among how many policies."""
    ranks = [
        found[card.label]
        for cell in card.cells
        for axis in card.cells[cell]["axes"]
        if card.label in (found := places([card, *peers], cell, axis))
    ]
    if not ranks:
        return f"{card.label}: no cell has numbers"
    first = sum(place.best == 1 for place in ranks)
    mean = sum(place.best for place in ranks) / len(ranks)
    return (
        f"{card.label}: {len(card.cells)} cells, {len(ranks)} numbers; in {first} none of {len(peers)} peers is "
        f"better; mean rank {mean:.1f}"
    )


def score_text(card: Scorecard, peers: Sequence[Scorecard]) -> str:
    """What `score` prints."""
    lines = [verdict(card, peers)]
    lines += [f"{name}: no numbers: {reason}" for name, reason in card.failed.items()]
    found = duels(card, peers)
    if not found:
        return "\n".join([*lines, "no peer has the same cells; name some: score MINE PEER ..."])
    lines += ["", against(found).to_string(index=False), ""]
    best = best_in(found)
    for title, result in (
        ("wins most over the best peer, by axis", WINS),
        ("loses most to the best peer, by axis", LOSES),
    ):
        lines += [title, *(f"  {line(d)}" for d in greatest(best, result)), ""]
    return "\n".join(lines).rstrip()
