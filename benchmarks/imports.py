"""How long a large trace takes to read: rows of the Azure layout, as CSV."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import numpy as np

from traces import load_trace

_PIECE = 1_000_000


def write_azure(path: Path, rows: int) -> None:
    """A CSV file in the layout of the Azure traces, a request every 60 ms."""
    with path.open("w", encoding="ascii") as stream:
        stream.write("TIMESTAMP,ContextTokens,GeneratedTokens\n")
        for start in range(0, rows, _PIECE):
            index = np.arange(start, min(rows, start + _PIECE))
            times = (np.datetime64("2024-05-10T00:00:00.000000") + index * np.timedelta64(60_000, "us")).astype(str)
            rows_of = zip(times, 1 + index * 7919 % 8000, 1 + index * 104_729 % 500, strict=True)
            stream.writelines(f"{at.replace('T', ' ')}+00:00,{p},{o}\n" for at, p, o in rows_of)


def import_seconds(rows: int = 10_000_000) -> float:
    """Seconds to read that many rows; writing them does not count."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "azure.csv"
        write_azure(path, rows)
        start = time.perf_counter()
        trace = load_trace(str(path))
        took_s = time.perf_counter() - start
    assert len(trace) == rows
    return took_s
