"""The claims on the report's page: folded by part of the paper with counts, each next to the figure that shows it."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from artifact.claims.model import Claim
from artifact.claims.text import table as claims_table
from artifact.claims.verify import Verdict
from artifact.report.draw import figure_module
from artifact.report.page import fill, text
from figures import PAPER_FIGURES, SERVER_FIGURES
from figures.gallery import PARTS, place

NO_FIGURE = "In no figure"


def figure_of(claim: Claim) -> str | None:
    """The figure that shows a claim's number: drawn from its table, and called as the place in the paper is."""
    everything = (*PAPER_FIGURES, *SERVER_FIGURES)
    drawn = [name for name in everything if claim.measure.table in figure_module(name).INPUTS]
    found = re.match(r"(Fig|Table) (\d+)([a-z]?)", claim.paper)
    if found:
        number = f"{found[1].lower()}{found[2]}"
        for word in (f"{number}{found[3]}", number):
            named = [name for name in drawn if re.search(rf"{word}(?![0-9a-z])", name)]
            if named:
                return named[0]
    return drawn[0] if drawn else None


def section(verdicts: Sequence[Verdict], broken: Mapping[str, str], shown: Collection[str]) -> Markup:
    """All claims. shown: the figures of the page, which they link to."""
    figures = {verdict.claim.id: figure_of(verdict.claim) for verdict in verdicts}
    parts = []
    for part, title in PARTS.items():
        own = [v for v in verdicts if _part(figures[v.claim.id]) == part]
        if own:
            groups = _groups(own, figures, shown, part)
            parts.append({"title": title, "total": len(own), "counts": _counts(own), "groups": groups})
    return fill("claims", total=len(verdicts), all=_counts(verdicts), broken=list(broken.values()), parts=parts)


def link(verdicts: Sequence[Verdict], figure: str) -> Markup:
    """From a figure to its claims, with their counts; nothing where there is none."""
    own = [verdict for verdict in verdicts if figure_of(verdict.claim) == figure]
    if not own:
        return Markup()
    counts = ", ".join(f"{number} {word}" for _, word, number in _counts(own))
    return Markup(f'<p class="about"><a href="#claims-{text(figure)}">Claims</a>: {text(counts)}</p>\n')


def _part(figure: str | None) -> str:
    return place(figure).part if figure else "beyond"


def _groups(
    verdicts: Sequence[Verdict], figures: Mapping[str, str | None], shown: Collection[str], part: str
) -> list[dict[str, Any]]:
    """The rows of a part, figure by figure."""
    groups = []
    for figure in dict.fromkeys(figures[verdict.claim.id] for verdict in verdicts):
        own = [verdict for verdict in verdicts if figures[verdict.claim.id] == figure]
        rows = claims_table(own).to_dict("records")
        groups.append(
            {
                "id": f"claims-{figure or f'none-{part}'}",
                "title": figure_module(figure).TITLE if figure else NO_FIGURE,
                "link": figure if figure in shown else "",
                "rows": [{**row, "kind": _kind(verdict)} for row, verdict in zip(rows, own, strict=True)],
            }
        )
    return groups


def _counts(verdicts: Sequence[Verdict]) -> list[tuple[str, str, int]]:
    """Class, word and number of each verdict there is, by word."""
    counts = Counter((_kind(verdict), str(verdict.status)) for verdict in verdicts)
    return [(kind, word, number) for (kind, word), number in sorted(counts.items(), key=lambda pair: pair[0][1])]


def _kind(verdict: Verdict) -> str:
    """A verdict's class in style.css."""
    return str(verdict.status).lower()
