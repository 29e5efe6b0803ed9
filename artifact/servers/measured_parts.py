"""One workload measured in parts: the requests of each, and the whole run again from what the parts measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from artifact.servers.measured import Measured, seen_run
from niyama.sim import Requests


def part_of(requests: Requests, rows: np.ndarray) -> Requests:
    """The requests at `rows` (a mask or indices), at their own arrival times."""
    app = None if requests.app is None else requests.app[rows]
    names = ("class_index", "arrival_s", "prompt_tokens", "output_tokens", "important")
    return replace(requests, **{name: getattr(requests, name)[rows] for name in names}, app=app)


def join_parts(requests: Requests, parts: Sequence[tuple[np.ndarray, Measured]]) -> Measured:
    """The run of all `requests` from parts, each with its rows (indices); every request is in exactly one part.

    Each part's times are from its own start, so the result is as if all had started together.
    """
    rows = np.concatenate([where for where, _ in parts])
    if not np.array_equal(np.sort(rows), np.arange(len(requests))):
        raise ValueError(f"{len(rows)} requests are in the parts of a run of {len(requests)}; each must be in one")
    place = np.argsort(rows)  # of each request in the parts' order

    def whole(values: Sequence[np.ndarray]) -> np.ndarray:
        return np.concatenate(values)[place]

    spans = [np.split(m.run.token_s, m.run.token_start[1:-1]) for _, m in parts]
    by_request = [tokens for span in spans for tokens in span]
    told = all(m.relegated is not None for _, m in parts)
    relegated = whole([m.relegated for _, m in parts]) if told else None
    run = seen_run(requests, np.concatenate([by_request[i] for i in place]), relegated)
    sent_s, status = whole([m.sent_s for _, m in parts]), whole([m.http_status for _, m in parts])
    return Measured(requests, run, sent_s, status, relegated)
