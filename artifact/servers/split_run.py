"""One workload measured in parts: the requests of each, and the whole run again from what the parts measured."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from artifact.servers.measured import Measured, seen_run
from niyama.sim import Requests, Run


def part_of(requests: Requests, rows: np.ndarray) -> Requests:
    """The requests at `rows` (a mask or indices), at their own arrival times."""
    app = None if requests.app is None else requests.app[rows]
    names = ("class_index", "arrival_s", "prompt_tokens", "output_tokens", "important")
    return replace(requests, **{name: getattr(requests, name)[rows] for name in names}, app=app)


def join_parts(requests: Requests, parts: Sequence[tuple[np.ndarray, Measured]]) -> Measured:
    """The run of all `requests` from parts, each with its rows (indices); every request is in exactly one part.

    Each part's times are from its own start, so the result is as if all had started together.
    """
    place = _places(requests, [rows for rows, _ in parts])

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(measured, name) for _, measured in parts])[place]

    told = all(measured.relegated is not None for _, measured in parts)
    relegated = whole("relegated") if told else None
    token_s = join_runs(requests, [(rows, measured.run) for rows, measured in parts]).token_s
    run = seen_run(requests, token_s, relegated)
    return Measured(requests, run, whole("sent_s"), whole("http_status"), relegated)


def join_runs(requests: Requests, parts: Sequence[tuple[np.ndarray, Run]]) -> Run:
    """The raw times of all `requests` from those of parts, as `join_parts`; each part ran on a replica of its own."""
    place, runs = _places(requests, [rows for rows, _ in parts]), [run for _, run in parts]

    def whole(name: str) -> np.ndarray:
        return np.concatenate([getattr(run, name) for run in runs])[place]

    by_request = [tokens for run in runs for tokens in np.split(run.token_s, run.token_start[1:-1])]
    replicas = np.repeat(np.arange(len(runs), dtype=np.int32), [len(run.replica) for run in runs])
    return Run(
        replica=replicas[place],
        first_scheduled_s=whole("first_scheduled_s"),
        token_start=np.concatenate([[0], np.cumsum(requests.output_tokens, dtype=np.int64)]),
        token_s=np.concatenate([by_request[i] for i in place]),
        relegations=whole("relegations"),
        still_relegated=whole("still_relegated"),
        preemptions=whole("preemptions"),
        iterations=sum(run.iterations for run in runs),
        un_relegations=sum(run.un_relegations for run in runs),
        log=np.concatenate([run.log for run in runs]),
    )


def _places(requests: Requests, rows: Sequence[np.ndarray]) -> np.ndarray:
    """Where each request stands when the parts are put one after the other; ValueError unless each is there once."""
    order = np.concatenate(rows)
    if not np.array_equal(np.sort(order), np.arange(len(requests))):
        raise ValueError(f"{len(order)} requests are in the parts of a run of {len(requests)}; each must be in one")
    return np.argsort(order)
