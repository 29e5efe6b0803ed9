"""docs/LEADERBOARD.md: all scorecards that ship, in one table and cell by cell."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from artifact.results.frames import markdown
from artifact.results.tables import write_text
from artifact.score import text
from artifact.score.axes import AXES
from artifact.score.charts import overview_png
from artifact.score.compare import cells_of, duels, places, standings
from artifact.score.page import RULE, about, made_text
from artifact.score.papers import claims_table
from artifact.score.scorecard import REFERENCE, Scorecard

COMMAND = "python -m artifact score --leaderboard docs/LEADERBOARD.md"
PICTURE = REFERENCE / "overview.png"
OURS = ("niyama", "niyama-steady")
CELL_AXES = ("capacity_qps", "capacity_without_tbt_qps", "violated_above", "worst_class", "ttft_p99_s", "gaps_over_tbt")
HEAD = f"""# Leaderboard

Every policy that ships here, in one suite, under one scheduler kernel, one predictor, on the same requests. The cells
are in `artifact/score/suite.yaml`; a policy of yours joins by one file and one scorecard
([CONTRIBUTING](../CONTRIBUTING.md#a-policy-for-the-leaderboard)). This command writes the page and the picture from
`artifact/reference/scores`:

```
{COMMAND}
```

{textwrap.fill(RULE, 120)}

The peers are what our rules can say of other papers' policies, with constants that their authors did not publish chosen
by us: the head of each file in `policies/` says which. A low place here is no verdict on a paper.

![Every policy on every axis](../artifact/reference/scores/overview.png)
"""


CLAIMS = """Ratios to the baseline of each paper that is here. Traces, models and GPUs are others than the papers', and
so mostly are the SLOs, which few of them print: a number here is no reproduction, and no refutation.
"""


def write_leaderboard(page: Path, cards: Sequence[Scorecard]) -> None:
    """Write the page, and beside the scorecards the picture."""
    PICTURE.write_bytes(overview_png(cards, made_text(cards)))
    write_text(page, leaderboard(cards))


def leaderboard(cards: Sequence[Scorecard]) -> str:
    """The page in Markdown."""
    parts = [HEAD, "## Over all cells\n", markdown(_overall(cards)), _losses(cards)]
    parts += ["## The papers' claims\n", CLAIMS, markdown(claims_table(cards)), "## Cell by cell\n"]
    for cell in cells_of(cards):
        first = next(card for card in cards if cell in card.cells)
        parts += [f"### {cell}\n\n{about(first, cell)}\n", markdown(_cell(cards, cell))]
    return "\n".join(parts).rstrip() + "\n"


def _overall(cards: Sequence[Scorecard]) -> pd.DataFrame:
    rows = [
        {
            "policy": f"`{s.label}`",
            "mean rank": f"{s.mean_rank:.1f}",
            "none better": f"{s.first} of {s.places}",
            "capacity, % of bound": f"{100 * s.share_of_bound:.0f}",
            "by TTFT and TTLT": f"{100 * s.without_tbt_share_of_bound:.0f}",
            "violated above, %": f"{100 * s.above:.1f}",
        }
        for s in standings(cards)
    ]
    return pd.DataFrame(rows)


def _losses(cards: Sequence[Scorecard]) -> str:
    """Where our own policies lose most."""
    lines = ["## Where our policies lose\n"]
    for card in cards:
        if card.label in OURS:
            best = text.best_in(duels(card, [peer for peer in cards if peer is not card]))
            worst = text.greatest(best, "loses")
            lines += [f"`{card.label}`, most to the best peer, by axis:\n", *(f"- {text.line(d)}" for d in worst), ""]
    return "\n".join(lines)


def _cell(cards: Sequence[Scorecard], cell: str) -> pd.DataFrame:
    found = {axis: places(cards, cell, axis) for axis in CELL_AXES}
    order = sorted(found[CELL_AXES[0]], key=lambda label: (found[CELL_AXES[0]][label].best, label))
    rows = []
    for label in order:
        row = {"policy": f"`{label}`"}
        for axis in CELL_AXES:
            place = found[axis].get(label)
            row[AXES[axis].label] = (
                "–" if place is None else f"{text.estimated(place.value, axis)} ({text.rank(place)})"
            )
        rows.append(row)
    for card in cards:
        if cell in card.failed:
            rows.append({"policy": f"`{card.label}`", AXES[CELL_AXES[0]].label: f"no numbers: {card.failed[cell]}"})
    return pd.DataFrame(rows).fillna("–")
