"""Bounds of a policy's numbers, declared beside each of them."""

from dataclasses import field
from math import inf
from typing import Any, NamedTuple

from niyama.qos import DAY_S

#: The most that a policy's numbers may be: beyond them arrays do not fit, or sums are no longer finite.
MOST_RUNNING, MOST_TOKENS, MOST = 1_000_000, 2**31 - 1, 1e9


class Bounds(NamedTuple):
    """What a number may be.

    above: not `least` itself. seconds: the most that it can mean; beyond, somebody wrote milliseconds. days: whole days
    are meant all the same, for no limit.
    """

    least: float = 0
    most: float = MOST
    above: bool = False
    seconds: float = inf
    days: bool = False

    def complaint(self, kind: type, value: Any) -> str | None:
        """What `value` must be, if it is not."""
        if kind is int and self.least == 1:
            fits = isinstance(value, int) and 1 <= value <= self.most
            return None if fits else f"an integer >= 1, at most {self.most}"
        if not (self.least < value if self.above else self.least <= value) or not value <= self.most:
            least = f"at least {self.least:g} and" if self.least else "finite and not negative,"
            return f"{'finite and positive,' if self.above else least} at most {self.most:g}"
        if value > self.seconds and not (self.days and value % DAY_S == 0):
            return f"at most {self.seconds:g} seconds; for milliseconds write {value / 1000:g}"
        return None


def number(default: float, least: float = 0, most: float = MOST, **more: Any) -> Any:
    """A field of `Policy`, with its default and its bounds."""
    return field(default=default, metadata={"bounds": Bounds(least, most, **more)})
