"""A measured run on disk: requests.parquet with the simulator's columns and the client's, and back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from artifact.results.tables import provenance, read_table, write_table
from artifact.runs.raw_times import raw_columns
from artifact.servers.measured import Measured, seen_run
from niyama import QoSClass
from niyama.sim import Requests

#: Columns that a client cannot see; null in the file.
UNSEEN = ("replica", "first_scheduled_s", "preemptions")


def write_measured(path: Path, measured: Measured, **about: Any) -> None:
    """Write the raw times; `about` goes to the metadata."""
    columns = raw_columns(measured.requests, measured.run)
    unknown = UNSEEN if measured.relegated is not None else (*UNSEEN, "relegations")
    for name in unknown:
        columns[name] = pa.nulls(len(measured.requests), pa.from_numpy_dtype(columns[name].dtype))
    columns |= {
        "intended_send_s": measured.requests.arrival_s,
        "actual_send_s": measured.sent_s,
        "http_status": measured.http_status,
    }
    write_table(path, pa.table(columns), listed=False, **about)


def read_measured(path: Path, classes: Sequence[QoSClass]) -> tuple[Measured, Mapping[str, Any]]:
    """The run in a file and its metadata. Raises ResultError when the file is missing or damaged."""
    table = read_table(path)
    names = [c.name for c in classes]
    column = {name: table[name].combine_chunks() for name in table.column_names}
    requests = Requests(
        tuple(classes),
        np.array([names.index(name) for name in column["qos_class"].to_pylist()], np.int16),
        *(column[name].to_numpy() for name in ("arrival_s", "prompt_tokens", "output_tokens")),
        column["important"].to_numpy(zero_copy_only=False),
    )
    told = column["relegations"].null_count == 0
    relegated = column["relegations"].to_numpy() > 0 if told else None
    run = seen_run(requests, column["token_times_s"].flatten().to_numpy(), relegated)
    sent_s, status = column["actual_send_s"].to_numpy(), column["http_status"].to_numpy()
    return Measured(requests, run, sent_s, status, relegated), provenance(table)
