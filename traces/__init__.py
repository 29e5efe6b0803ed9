"""Public LLM-serving traces and the workloads made of them.

Reading order: catalog (what exists), trace (`load_trace`, the one way to get one), workload (`WorkloadSpec`
and `build`). Behind them: download, lengths, readers, parsed, synth, sharegpt_text, arrivals, workload_io. This
package knows nothing of schedulers.
"""

from traces.arrivals import (
    GammaArrivals,
    HourOfWeekArrivals,
    PoissonArrivals,
    SquareArrivals,
    TraceArrivals,
)
from traces.catalog import Entry, find_entry, load_catalog
from traces.download import fetch
from traces.errors import ChecksumError, DownloadError, TraceError
from traces.synth import Sketch, load_sketches, sample
from traces.trace import Trace, describe, fixed_trace, load_trace, local_dir_from_env, synthetic_trace
from traces.workload import Workload, WorkloadSpec, build, parse_spec
from traces.workload_io import read_jsonl, read_workload, write_jsonl, write_workload

__all__ = [
    "ChecksumError",
    "DownloadError",
    "Entry",
    "GammaArrivals",
    "HourOfWeekArrivals",
    "PoissonArrivals",
    "Sketch",
    "SquareArrivals",
    "Trace",
    "TraceArrivals",
    "TraceError",
    "Workload",
    "WorkloadSpec",
    "build",
    "describe",
    "fetch",
    "find_entry",
    "fixed_trace",
    "load_catalog",
    "load_sketches",
    "load_trace",
    "local_dir_from_env",
    "parse_spec",
    "read_jsonl",
    "read_workload",
    "sample",
    "synthetic_trace",
    "write_jsonl",
    "write_workload",
]
