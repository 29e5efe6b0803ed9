"""Score policies: every cell of every policy, in several processes, each written down as soon as it is done."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from pathlib import Path
from typing import Any

from artifact.runs.run import warm_up
from artifact.runs.systems import build_system
from artifact.score import scorecard
from artifact.score.measure import made_by, measure
from artifact.score.scorecard import Scorecard
from artifact.score.suite import Cell

Say = Callable[[str, float], None]


def score(
    systems: Sequence[str], cells: Sequence[Cell], places: Mapping[str, Path], jobs: int, say: Say
) -> list[Scorecard]:
    """The systems' scorecards. places: each one's file, whose cells are kept where they were made from the same.

    say: is told what is done, and which share. A policy that fails in a cell has the reason there. Raises ConfigError
    for a system that there is not.
    """
    for system in systems:
        build_system(system, cells[0].spec.classes)
    warm_up()  # compiled once, before the processes start
    codes = {cell.name: made_by(cell) for cell in cells}
    cards = {system: _begun(system, places[system], cells, codes) for system in systems}
    waiting = [(system, cell) for cell in cells for system in systems if cell.name not in cards[system].cells]
    total = len(systems) * len(cells)
    for done, (system, cell, found) in enumerate(_finished(waiting, jobs), total - len(waiting) + 1):
        key = scorecard.key_of(cell, codes[cell.name], cards[system].policy_sha256)
        cards[system] = cards[system].with_cell(cell.name, {**found, "code": codes[cell.name], "key": key})
        scorecard.write(places[system], _in_order(cards[system], cells))
        say(f"{done} of {total} cells: {cards[system].label} in {cell.name}", done / total)
    return [_in_order(cards[system], cells) for system in systems]


def _finished(waiting: Sequence[tuple[str, Cell]], jobs: int) -> Iterator[tuple[str, Cell, dict[str, Any]]]:
    """Measure them all, in so many processes; each is yielded when it is done."""
    if jobs == 1 or len(waiting) < 2:
        yield from ((system, cell, _measured(cell, system)) for system, cell in waiting)
        return
    with ProcessPoolExecutor(min(jobs, len(waiting)), mp_context=multiprocessing.get_context("spawn")) as pool:
        running = {pool.submit(_measured, cell, system): (system, cell) for system, cell in waiting}
        try:
            for future in as_completed(running):
                yield *running[future], future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _begun(system: str, place: Path, cells: Sequence[Cell], codes: Mapping[str, str]) -> Scorecard:
    """What an earlier run has of these cells, if it is still true."""
    policy = scorecard.policy_sha256(system)
    if not place.is_file():
        return Scorecard(system, policy)
    keys = {cell.name: scorecard.key_of(cell, codes[cell.name], policy) for cell in cells}
    kept = scorecard.read(place).kept(cells, keys)
    return Scorecard(system, policy, kept.cells)


def _measured(cell: Cell, system: str) -> dict[str, Any]:
    try:
        return measure(cell, system)
    except ValueError as error:  # of the policy: a rule that raises, a run that stalls
        return {"error": str(error)}


def _in_order(card: Scorecard, cells: Sequence[Cell]) -> Scorecard:
    names = [cell.name for cell in cells]
    own = {name: card.cells[name] for name in names if name in card.cells}
    return Scorecard(card.system, card.policy_sha256, own, card.failed)
