"""Who was relegated, and who is an ordinary request again: noticed from plan to plan."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from niyama.requests import RequestTable
from niyama.scheduler import Plan

if TYPE_CHECKING:
    from niyama.vllm.records import Live


class Relegations:
    """What was noticed so far. In overload thousands are relegated, and a few more in every step: only rows that have
    changed are looked at.
    """

    def __init__(self) -> None:
        self._totals = (0, 0)  # relegations and un-relegations
        self._moves = np.zeros(0, np.int32)  # how many of either each row of the kernel's table has seen

    def row_is_new(self, row: int) -> None:
        """The row is another request's from now on."""
        self._moves[row : row + 1] = 0

    def since_last(self, plan: Plan, table: RequestTable, by_row: Mapping[int, Live]) -> tuple[list[Live], list[Live]]:
        """Requests relegated, and those made ordinary again, since this was last asked."""
        totals = plan.relegations, plan.un_relegations
        if totals == self._totals:
            return [], []
        moves, before = 2 * table.relegations - table.relegated, self._moves
        if len(before) < len(moves):  # the table has grown
            before = np.pad(before, (0, len(moves) - len(before)))
        self._totals, self._moves = totals, moves
        relegated, restored = [], []
        for row in np.flatnonzero(moves != before).tolist():
            live = by_row.get(row)
            if live is None:
                continue
            times, now = int(table.relegations[row]), bool(table.relegated[row])
            if times > live.relegations:
                relegated.append(live)
            if (live.relegated or times > live.relegations) and not now:
                restored.append(live)
            live.relegations, live.relegated = times, now
        return relegated, restored
