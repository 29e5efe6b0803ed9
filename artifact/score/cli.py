"""`score`: a policy through the suite, beside its peers; and the leaderboard."""

from __future__ import annotations

import argparse
import os
import re
from pathlib import Path

from artifact.commands.progress import Line, announce
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.results.tables import write_text
from artifact.score import scorecard
from artifact.score.compare import cells_of, comparable
from artifact.score.scorecard import Scorecard
from artifact.score.scoring import score
from artifact.score.suite import SUITE, load_suite
from artifact.score.text import score_text

OUT = Path("results/scores")


def add_commands(verb: Verb) -> None:
    """Add `score` to the command line."""
    own = verb("score", run_score)
    own.add_argument("systems", nargs="*", metavar="SYSTEM", help="FILE.py:NAME of your policy, or built-in names")
    own.add_argument("--compare", nargs="+", type=Path, metavar="JSON", help="the first scorecard beside the others")
    own.add_argument("--leaderboard", type=Path, metavar="PAGE", help="write the page of the scorecards that ship")
    own.add_argument("--suite", type=Path, default=SUITE, help="file of cells (default: the suite that ships)")
    own.add_argument("--long", action="store_true", help="all cells, with longer runs")
    own.add_argument("--cells", help="only these, as NAME,NAME")
    own.add_argument("--out", type=Path, default=OUT, help=f"folder for scorecards and pages (default {OUT})")
    own.add_argument("--jobs", type=int, default=min(8, os.cpu_count() or 1), help="processes (default: one a core)")


def run_score(options: argparse.Namespace) -> None:
    """Score, compare, or write the leaderboard."""
    asked = [bool(options.systems), options.compare is not None, options.leaderboard is not None]
    if sum(asked) != 1:
        raise ConfigError(
            "score takes policies, such as mine.py:mine, or --compare, or --leaderboard; give one of them"
        )
    if options.leaderboard is not None:
        from artifact.score.leaderboard import write_leaderboard  # with matplotlib

        write_leaderboard(options.leaderboard, scorecard.reference())
        return
    if options.compare is not None:
        first, *others = map(scorecard.read, options.compare)
        _show(first, others or _reference(first), options.compare[0].with_suffix(".html"))
        return
    names = tuple(filter(None, (options.cells or "").split(",")))
    cells = load_suite(options.suite, long=options.long, names=names)
    found = score(options.systems, cells, _places(options.systems, options.out), options.jobs, Line().say)
    for card in found:
        others = [other for other in found if other is not card]
        _show(card, others + _reference(card, others), _file(options.out, card.system, ".html"))


def _show(card: Scorecard, peers: list[Scorecard], page: Path) -> None:
    from artifact.score.page import score_page  # with matplotlib

    print(score_text(card, peers))
    write_text(page, score_page(card, peers))
    announce(f"page: {page}")


def _reference(card: Scorecard, others: list[Scorecard] | None = None) -> list[Scorecard]:
    """The scorecards that ship and ran the same cells, but for policies that are there already."""
    there = {card.label, *(other.label for other in others or [])}
    shipped = [own for own in scorecard.reference() if own.label not in there]
    return [own for own in shipped if any(comparable(card, own, cell) for cell in cells_of([card]))]


def _places(systems: list[str], folder: Path) -> dict[str, Path]:
    """Each system's scorecard; ConfigError where two would share one."""
    found: dict[str, Path] = {}
    for system in systems:
        place = _file(folder, system, ".json")
        if place in found.values():
            raise ConfigError(
                f"{system}: its scorecard would be {place}, as another's; score them apart, or rename one"
            )
        found[system] = place
    return found


def _file(folder: Path, system: str, suffix: str) -> Path:
    return folder / (re.sub(r"[^A-Za-z0-9._-]+", "-", system.rpartition(":")[2]) + suffix)
