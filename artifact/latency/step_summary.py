"""What measured step times say: their size and spread, and how far a latency card is off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from niyama.latency import Batch, LatencyModel, load_card, model_names, seconds

SHAPE = ("decodes", "context_tokens", "prefill_tokens", "prefix_tokens")  # what the repeats of a shape share


def summary(rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any], emulated: str | None) -> list[str]:
    """The result in lines of text: size, spread over repeats, and how far each card that ships is off.

    emulated: the card whose times were emulated; what the engine itself took beside them is said then.
    """
    rows = list(rows)
    measured_s = np.array([row["seconds"] for row in rows])
    engine, groups = about["engine"], _repeats(rows)
    medians_s = np.array([np.median(times) for times in groups])
    spread = np.array([np.ptp(times) for times in groups]) / medians_s
    scheduling_s = np.median([row["schedule_s"] for row in rows])
    lines = [
        f"{about['model_shape']} on {engine['device']}, vLLM {engine['vllm']}, torch {engine['torch']}, "
        f"{engine['dtype']}, {engine['kv_tokens']} KV tokens",
        f"{len(rows)} steps of {len(groups)} shapes; {about['skipped_shapes']} shapes skipped, as they do not fit; "
        f"{about['strayed_steps']} steps in another shape, left out",
        f"step time {_ms(medians_s.min())} to {_ms(medians_s.max())}, {_ms(scheduling_s)} of it scheduling (median); "
        f"repeats apart by {np.median(spread):.1%} (median), {np.quantile(spread, 0.95):.1%} (p95)",
    ]
    for name in model_names():
        lines.append(f"  {name:27s} {card_fit(measured_s, card_seconds(name, rows))}")
    if emulated is not None:
        extra_s = measured_s - card_seconds(emulated, rows)
        low_s, median_s, high_s = np.quantile(extra_s, [0.05, 0.5, 0.95])
        lines.append(f"beside the emulated step: {_ms(median_s)} (median), {_ms(low_s)} to {_ms(high_s)} (p5 to p95)")
    return lines


def _repeats(rows: Iterable[Mapping[str, Any]]) -> list[list[float]]:
    """The seconds of each shape's repeats."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in SHAPE), []).append(row["seconds"])
    return list(groups.values())


def card_seconds(name: str, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """What the card called `name` says the rows' steps take, in seconds."""
    model: LatencyModel = load_card(name).build()
    batches = (
        Batch(r["decodes"], r["decode_context_tokens"], r["prefill_tokens"], r["prefill_work"], r["prefix_tokens"])
        for r in rows
    )
    return np.array([seconds(model, batch) for batch in batches])


def card_fit(measured_s: np.ndarray, card_s: np.ndarray) -> str:
    """The card's error relative to what was measured, and what is left of it when one factor is taken out.

    Niyama's online correction finds such a factor.
    """
    error = card_s / measured_s - 1.0
    factor = float(np.median(measured_s / card_s))
    left = np.abs(factor * card_s / measured_s - 1.0).mean()
    return (
        f"off by {np.abs(error).mean():.1%} (mean absolute), bias {error.mean():+.1%}; "
        f"times {factor:.3f}: off by {left:.1%}"
    )


def _ms(value_s: float) -> str:
    return f"{value_s * 1e3:.2f} ms"
