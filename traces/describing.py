"""What a trace holds, in numbers and in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from traces.lengths import Labels
from traces.trace import Trace

_NAMES_SHOWN = 6


def describe(trace: Trace) -> dict[str, Any]:
    """Rows, source, and mean, p50, p90 and p99 (tokens) of prompt and output, as plain Python values."""
    return {
        "name": trace.name,
        "source": trace.source,
        "rows": len(trace),
        "prompt_tokens": _spread(trace.prompt_tokens),
        "output_tokens": _spread(trace.output_tokens),
        "notes": list(trace.notes),
    }


def _spread(tokens: np.ndarray) -> dict[str, float]:
    p50, p90, p99 = np.percentile(tokens, [50, 90, 99])
    return {"mean": float(tokens.mean()), "p50": float(p50), "p90": float(p90), "p99": float(p99)}


def span(trace: Trace) -> str:
    """When its requests arrive."""
    if trace.arrival_s is None:
        return "no times"
    seconds = float(trace.arrival_s[-1] - trace.arrival_s[0])
    rate = f"{len(trace) / seconds:.4g} requests/s" if seconds else "all at one instant"
    return f"times from {trace.arrival_s[0]:g} to {trace.arrival_s[-1]:g} s: {seconds / 3600:.3g} h, {rate}"


def extras_in_words(trace: Trace) -> Iterator[str]:
    """What the trace knows of its requests in addition to times and lengths."""
    more = trace.extras
    for name, labels in (("classes", more.qos_class), ("tenants", more.tenant), ("sessions", more.session)):
        if labels is not None:
            yield f"{len(labels.names):,} {name}: {_shares(labels)}"
    if more.important is not None:
        yield f"{more.important.mean():.1%} important"
    if more.hash_ids is not None:
        yield f"{len(more.hash_ids.ids):,} hash ids, {len(np.unique(more.hash_ids.ids)):,} different"


def _shares(labels: Labels) -> str:
    shares = np.bincount(labels.codes, minlength=len(labels.names)) / len(labels.codes)
    most = np.argsort(-shares, kind="stable")[:_NAMES_SHOWN]
    return ", ".join(f"{labels.names[i]} {shares[i]:.1%}" for i in most) + (", ..." if len(shares) > len(most) else "")
