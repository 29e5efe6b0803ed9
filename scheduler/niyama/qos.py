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
        slo_s = self.ttft_s if self.ttft_s is not None else self.ttlt_s
        assert slo_s is not None  # __post_init__ refuses a class without
        return slo_s


#: Shortest SLO that anybody can give, and what is left at least of one once the way to the client is taken off.
MIN_SLO_S = 0.001
#: Longest time from the engine to the client.
MOST_DELIVERY_S = 1.0
DAY_S = 86_400.0
#: More than each can mean, in seconds, but for whole days, which nobody writes in milliseconds: a batch class may have
#: some, and for an interactive one they mean no deadline.
MOST_S = {"ttft_s": 600.0, "tbt_s": 5.0, "ttlt_s": DAY_S}


def refuse_milliseconds(qos: QoSClass) -> None:
    """ValueError when an SLO of the class, as somebody wrote it in a file, must be meant in milliseconds."""
    for field, most_s in MOST_S.items():
        value = getattr(qos, field)
        if value is None or value <= most_s or value % DAY_S == 0:
            continue
        what, others = f"an interactive class waits ({most_s:g})", "for batch ttlt_s alone, for no deadline 86400"
        if not qos.interactive:
            what, others = f"a day ({most_s:g}) and no whole days", "for days a multiple of 86400"
        raise ValueError(
            f"class {qos.name!r}: {field} is {value:.10g} seconds, more than {what}; "
            f"for milliseconds write {field}: {value / 1000:g}, {others}"
        )


#: Table 3 of the paper.
PAPER_CLASSES = (
    QoSClass("Q1", ttft_s=6.0, tbt_s=0.050),
    QoSClass("Q2", ttlt_s=600.0),
    QoSClass("Q3", ttlt_s=1800.0),
)


def token_deadline_s(arrival_s: float, qos: QoSClass, position: int) -> float:
    """Deadline of output token `position` (1-based): Eq 1 and 2; a batch class has only Eq 3, whatever the token."""
    if qos.ttft_s is not None and qos.tbt_s is not None:
        return arrival_s + qos.ttft_s + (position - 1) * qos.tbt_s
    return arrival_s + qos.deadline_slo_s
