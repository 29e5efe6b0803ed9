"""A trace as it was recorded: which rows are played, at which rate, and what becomes of those that are too long."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from traces.arrivals import ReplayArrivals
from traces.checks import MAX_TOKENS
from traces.errors import TraceError
from traces.trace import Trace

TooLong = Literal["drop", "truncate", "refuse"]


@dataclass(frozen=True, eq=False)
class Played:
    """The rows of a trace that are played, in order. Arrays have one length n >= 1."""

    rows: np.ndarray  # int[n], indices into the trace
    time_s: np.ndarray  # float64[n] from the start of the window, or from 0
    qps: float  # requests a second as recorded; those of one instant count as one second's


def played(trace: Trace, replay: ReplayArrivals, fits: np.ndarray | None) -> Played:
    """What a replay plays. fits: bool[n], the rows not to drop; None: all. TraceError without times, or rows."""
    if trace.arrival_s is None:
        raise TraceError(f"{trace.name} has no times to replay; give --load and --requests, and leave --replay out")
    mask, start_s = np.ones(len(trace), bool) if fits is None else fits, 0.0
    if replay.window is not None:
        start_s, end_s = replay.window
        mask = mask & (trace.arrival_s >= start_s) & (trace.arrival_s < end_s)
    rows = np.flatnonzero(mask)
    if rows.size == 0:
        span = f"{trace.arrival_s[0]:g} to {trace.arrival_s[-1]:g} s"
        raise TraceError(
            f"nothing of {trace.name} is left to replay: its times are {span}; change --window or --too-long"
        )
    time_s = trace.arrival_s[rows] - start_s
    return Played(rows, time_s, rows.size / (float(time_s[-1] - time_s[0]) or 1.0))


def fitting(trace: Trace, max_total_tokens: int | None, too_long: TooLong) -> np.ndarray | None:
    """bool[n]: rows that are not dropped, because prompt and output are together at most that long. None: all."""
    if max_total_tokens is None or too_long == "truncate":
        return None
    # Written as a difference because the sum of two int32 could overflow.
    return np.asarray(trace.prompt_tokens <= np.int32(min(max_total_tokens, MAX_TOKENS)) - trace.output_tokens)


def cut(prompt: np.ndarray, output: np.ndarray, max_total_tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Lengths that fit: the prompt is cut first, down to one token, and then the output."""
    output = np.minimum(output, max_total_tokens - 1).astype(np.int32)
    return np.minimum(prompt, max_total_tokens - output).astype(np.int32), output
