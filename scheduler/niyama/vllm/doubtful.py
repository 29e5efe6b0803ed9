"""Values that are allowed and more likely a mistake: another unit, two fields swapped, a key about to expire."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime, timedelta

from niyama.qos import DAY_S
from niyama.vllm.config import EngineConfig
from niyama.vllm.served_class import ServedClass

#: Longer than an interactive user waits; what is longer still is refused (`niyama.qos.MOST_S`), but for whole days.
LONG_S = {"ttft_s": 60.0, "tbt_s": 1.0}
#: Of batch classes: what is longer is a number of half hours, or meant in milliseconds.
LONG_TTLT_S, HALF_HOUR_S = 10_000.0, 1800.0
LONG_DELIVERY_S = 0.1
SOON = timedelta(days=14)


def doubtful(config: EngineConfig, now: datetime) -> Iterator[str]:
    """A line for each such value: field, value and fix."""
    for served in config.classes:
        for line in _of_class(served):
            yield f"class {served.name!r}: {line}"
    yield from _short_batch(config)
    if config.delivery_s > LONG_DELIVERY_S:
        yield (
            f"delivery_s is {config.delivery_s:g}: every deadline is met that many seconds earlier; "
            f"for milliseconds write {config.delivery_s / 1000:g}"
        )
    yield from _keys(config, now)


def _of_class(served: ServedClass) -> Iterator[str]:
    for field in ("ttft_s", "tbt_s", "ttlt_s"):
        bounds = getattr(served, f"{field}_range") or ()
        for where, value in ((field, getattr(served, field)), *((f"{field}_range", bound) for bound in bounds[1:])):
            if value is not None and _is_long(field, value):
                yield f"{where} is {value:g} seconds; for milliseconds write {value / 1000:g}"
    if served.ttft_s is not None and served.tbt_s is not None and served.tbt_s >= served.ttft_s:
        yield (
            f"tbt_s is {served.tbt_s:g}, no shorter than ttft_s, {served.ttft_s:g}; "
            "swap them, or write the seconds between two tokens"
        )


def _short_batch(config: EngineConfig) -> Iterator[str]:
    """Batch classes whose whole outputs are promised earlier than some first token."""
    ttft_s, name = min(((c.ttft_s, c.name) for c in config.classes if c.ttft_s is not None), default=(0.0, ""))
    for served in config.classes:
        if served.ttlt_s is not None and served.ttlt_s < ttft_s:
            yield (
                f"class {served.name!r}: ttlt_s is {served.ttlt_s:g}, shorter than ttft_s of {name!r}, {ttft_s:g}; "
                "write the seconds that a whole output may take"
            )


def _is_long(field: str, value: float) -> bool:
    if field == "ttlt_s":
        return value >= LONG_TTLT_S and value % HALF_HOUR_S != 0
    return value > LONG_S[field] and value % DAY_S != 0


def _keys(config: EngineConfig, now: datetime) -> Iterator[str]:
    for identity in config.identities:
        for key in identity.all_keys:
            if key.expires is None or key.expires > now + SOON:
                continue
            what = "expired" if key.expires <= now else "expires soon"
            fix = "remove it" if key.expires <= now else "add a newer one beside it"
            yield f"identity {identity.name!r}: key {key.sha256[:8]}... {what}, at {key.expires.isoformat()}; {fix}"
