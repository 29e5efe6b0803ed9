"""What every reader answers, apart from the readers: who reads no file needs no pyarrow, a tenth of a second."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from traces.catalog import Entry
from traces.errors import TraceError


@dataclass(frozen=True, eq=False)
class Lengths:
    """Rows of a trace in arrival order. Arrays are read-only and of one length n >= 1."""

    prompt_tokens: np.ndarray  # int32[n], >= 1
    output_tokens: np.ndarray  # int32[n], >= 1
    arrival_s: np.ndarray | None  # float64[n], starts at 0, sorted; None if the trace has no times
    notes: tuple[str, ...] = ()  # what the reader changed: rows dropped, rows sorted

    def __post_init__(self) -> None:
        for array in (self.prompt_tokens, self.output_tokens, self.arrival_s):
            if array is not None:
                array.setflags(write=False)


def require_lengths(entry: Entry) -> None:
    """Raise TraceError, with what to do instead, if the rows of `entry` are not token lengths."""
    if entry.reader == "azure-hourly":
        raise TraceError(f"{entry.name} holds hourly counts, not lengths; use the hour-of-week arrivals")
    if entry.reader == "sharegpt-text":
        raise TraceError(f"{entry.name} is text and needs a tokenizer; use traces.sharegpt_text.sharegpt_trace")
