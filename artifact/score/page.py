"""A scorecard as a page that holds everything it shows: the picture, who is better where, and every number."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import pandas as pd
from markupsafe import Markup

from artifact.report.page import fill, page, table
from artifact.score.axes import AXES
from artifact.score.charts import cells_with, overview_png
from artifact.score.compare import LOSES, WINS, Place, duels, places
from artifact.score.scorecard import Scorecard
from artifact.score.text import against, best_in, estimated, greatest, line, rank, shown, verdict
from figures import style

RULE = (
    "Each number is a mean over seeds with its 95 % interval (Student's t); after it the rank, and the last rank with "
    "which it ties. Two policies tie where the interval of their paired difference has 0 in it. The load of a cell is "
    "what the paper's niyama holds there; below it: 0.75 times, above it: 1.25 times, far above it: 1.5 times. The "
    "bound is the fluid bound, which no scheduler exceeds, even one that knows every length. Violations count token "
    "deadlines. A capacity that equals the bound, or a little more, was not seen to end."
)


def score_page(card: Scorecard, peers: Sequence[Scorecard]) -> str:
    """HTML of a policy's scorecard beside its peers'."""
    found = duels(card, peers)
    best = best_in(found)
    body = fill(
        "score",
        answer=verdict(card, peers),
        failed=[f"{name}: no numbers: {reason}" for name, reason in card.failed.items()],
        picture=_picture(overview_png([card, *peers], made_text([card, *peers]))) if found else None,
        against=table(against(found)) if found else None,
        wins=[line(d) for d in greatest(best, WINS)],
        losses=[line(d) for d in greatest(best, LOSES)],
        rule=RULE,
        cells=[{"name": name, "about": about(card, name), "table": _cell(card, peers, name)} for name in card.cells],
    )
    return page(f"Scorecard of {card.label}", body)


def about(card: Scorecard, cell: str) -> str:
    """A cell in words."""
    own = card.cells[cell]
    return (
        f"{own['about']}. The load is {shown(own['load_qps'], 'capacity_qps')}, the bound "
        f"{shown(own['bound_qps'], 'capacity_qps')}. Latency model {own['latency']}, predictor {own['predictor']}; "
        f"{own['load_requests']:,} requests a run, {own['requests']:,} in searches."
    )


def made_text(cards: Sequence[Scorecard]) -> str:
    """What a picture was made with, as every figure says."""
    names = dict.fromkeys(cell for axis in AXES for cell in cells_with(cards, axis))
    cells = [own for card in cards for name, own in card.cells.items() if name in names]
    latencies = sorted({str(own["latency"]) for own in cells})
    seeds = max((len(values) for own in cells for values in own["axes"].values()), default=0)
    return (
        f"Backend: simulation. Latency models: {', '.join(latencies)}. Means over {len(names)} cells (of times "
        f"geometric) with 95 % intervals over {seeds} seeds; dashed: the fluid bound. Code: see each scorecard."
    )


def _cell(card: Scorecard, peers: Sequence[Scorecard], cell: str) -> Markup:
    """A row for each axis: this policy, the best peer, and every rank."""
    rows = []
    for axis in card.cells[cell]["axes"]:
        there = places([card, *peers], cell, axis)
        own, others = there[card.label], {label: place for label, place in there.items() if label != card.label}
        row = {"": AXES[axis].label, card.label: f"{estimated(own.value, axis)} ({rank(own)})"}
        if others:
            name, place = _best(others, axis)
            row |= {"best peer": f"{name}: {estimated(place.value, axis)} ({rank(place)})"}
        rows.append(row)
    return table(pd.DataFrame(rows).fillna("–"))


def _best(others: dict[str, Place], axis: str) -> tuple[str, Place]:
    sign = -1.0 if AXES[axis].higher else 1.0
    return min(others.items(), key=lambda item: (sign * item[1].value.mean, item[0]))


def _picture(png: bytes) -> Markup:
    caption = "Every policy on every axis, the best mean rank on top"
    width = round(int.from_bytes(png[16:20], "big") / style.DPI * 130)
    source = Markup(f"data:image/png;base64,{base64.b64encode(png).decode()}")
    picture = {"id": "overview", "narrow": False, "width": width, "alt": caption, "source": source, "label": caption}
    return fill("pictures", pictures=[picture], shared=False, caption=caption)
