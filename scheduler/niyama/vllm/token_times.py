"""When the tokens of each request came out, against their deadlines: what the metrics of finished requests need."""

from __future__ import annotations

import numpy as np

from niyama.jit import compiled

ROWS = 256


@compiled
def _came(rows, now_s, first_s, due_s, tbt_s, worst_late_s):
    for i in range(len(rows)):
        r = rows[i]
        if np.isnan(first_s[r]):
            first_s[r] = now_s
        else:
            worst_late_s[r] = max(worst_late_s[r], now_s - due_s[r])
        due_s[r] += tbt_s[r]


class TokenTimes:
    """Arrays indexed by the kernel's rows, in seconds since the start.

    A row may be read until its next request arrives, which is after the tokens of all steps it was in.
    """

    def __init__(self) -> None:
        self.first_s, self.due_s, self.tbt_s, self.worst_late_s = np.zeros((4, ROWS))

    def arrived(self, row: int, due_s: float, tbt_s: float) -> None:
        """A request whose first token is due at due_s (inf: batch), and each further one tbt_s later."""
        if row >= len(self.first_s):
            grown = [np.concatenate([c, np.zeros(row)]) for c in self._columns()]
            self.first_s, self.due_s, self.tbt_s, self.worst_late_s = grown
        self.first_s[row], self.due_s[row], self.tbt_s[row], self.worst_late_s[row] = np.nan, due_s, tbt_s, -np.inf

    def came(self, rows: np.ndarray, now_s: float) -> None:
        """Each of these rows (int32) got a token now."""
        _came(rows, now_s, *self._columns())

    def _columns(self) -> tuple[np.ndarray, ...]:
        return self.first_s, self.due_s, self.tbt_s, self.worst_late_s
