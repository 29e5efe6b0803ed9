"""QoS classes and their deadlines (paper section 3.2, Eq 1-3)."""

from __future__ import annotations

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class QoSClass:
    """What a class of requests is promised.

    Interactive: `ttft_s` and `tbt_s` (first token, then each further one). Batch: `ttlt_s` (last token).
    Exactly one of the two forms; every value positive and finite, in seconds. Raises ValueError naming the field.
    """

    name: str
    ttft_s: float | None = None
    tbt_s: float | None = None
    ttlt_s: float | None = None

    def __post_init__(self) -> None:
        if not self.name:
            raise ValueError("QoS class: name is empty; give it one, such as 'Q1'")
        interactive = self.ttft_s is not None and self.tbt_s is not None and self.ttlt_s is None
        batch = self.ttft_s is None and self.tbt_s is None and self.ttlt_s is not None
        if not (interactive or batch):
            raise ValueError(
                f"QoS class {self.name!r}: set ttft_s and tbt_s (interactive) or ttlt_s alone (batch); "
                f"got ttft_s={self.ttft_s}, tbt_s={self.tbt_s}, ttlt_s={self.ttlt_s}"
            )
        for field in ("ttft_s", "tbt_s", "ttlt_s"):
            value = getattr(self, field)
            if value is not None and not (math.isfinite(value) and value > 0):
                raise ValueError(f"QoS class {self.name!r}: {field} is {value}; it must be a positive finite number")

    @property
    def interactive(self) -> bool:
        """Whether tokens are awaited one by one, rather than the whole output."""
        return self.ttft_s is not None

    @property
    def deadline_slo_s(self) -> float:
        """Seconds from arrival to the deadline that ranks a request: first token (Eq 1) or last token (Eq 3)."""
        return self.ttft_s if self.ttft_s is not None else self.ttlt_s


#: More than an interactive class can mean, in seconds: somebody wrote milliseconds. From ENDLESS_S on: no deadline.
MOST_TTFT_S, MOST_TBT_S, ENDLESS_S = 600.0, 5.0, 86_400.0


def refuse_milliseconds(name: str, ttft_s: float | None, tbt_s: float | None) -> None:
    """ValueError when an SLO of the class `name`, as somebody wrote it in a file, must be meant in milliseconds."""
    for field, value, most in (("ttft_s", ttft_s, MOST_TTFT_S), ("tbt_s", tbt_s, MOST_TBT_S)):
        if value is not None and most < value < ENDLESS_S:
            raise ValueError(
                f"class {name!r}: {field} is {value:g} seconds, more than an interactive class waits ({most:g}); "
                f"for milliseconds write {field}: {value / 1000:g}, for batch ttlt_s alone, for no deadline 86400"
            )


#: Table 3 of the paper.
PAPER_CLASSES = (
    QoSClass("Q1", ttft_s=6.0, tbt_s=0.050),
    QoSClass("Q2", ttlt_s=600.0),
    QoSClass("Q3", ttlt_s=1800.0),
)


def token_deadline_s(arrival_s: float, qos: QoSClass, position: int) -> float:
    """Deadline of output token `position` (1-based): Eq 1 and 2; a batch class has only Eq 3, whatever the token."""
    if qos.interactive:
        return arrival_s + qos.ttft_s + (position - 1) * qos.tbt_s
    return arrival_s + qos.ttlt_s
