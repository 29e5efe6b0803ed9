"""Public LLM-serving traces and the workloads made of them.

Reading order: catalog (what exists), trace (`load_trace`, the one way to get one), workload (`WorkloadSpec`
and `build`). Behind them: download, layouts, tabular, cells, readers, own, synth, arrivals, replay, classing,
workload_io. This package knows nothing of schedulers.
"""

from traces.arrivals import (
    GammaArrivals,
    HourOfWeekArrivals,
    PoissonArrivals,
    ReplayArrivals,
    SquareArrivals,
    TraceArrivals,
)
from traces.catalog import Entry, find_entry, load_catalog
from traces.classing import classes_of
from traces.describing import describe
from traces.download import fetch
from traces.errors import ChecksumError, DownloadError, TraceError
from traces.layouts import read_columns
from traces.lengths import Extras, HashIds, Labels, Reading, Understood
from traces.own import is_own
from traces.replay import TooLong, fitting, played
from traces.synth import Sketch, load_sketches, sample
from traces.trace import Trace, fixed_trace, load_trace, local_dir_from_env, synthetic_trace
from traces.workload import Workload, WorkloadSpec, build, parse_spec
from traces.workload_io import is_workload, read_workload, write_jsonl, write_workload

__all__ = [
    "ChecksumError",
    "DownloadError",
    "Entry",
    "Extras",
    "GammaArrivals",
    "HashIds",
    "HourOfWeekArrivals",
    "Labels",
    "PoissonArrivals",
    "Reading",
    "ReplayArrivals",
    "Sketch",
    "SquareArrivals",
    "TooLong",
    "Trace",
    "TraceArrivals",
    "TraceError",
    "Understood",
    "Workload",
    "WorkloadSpec",
    "build",
    "classes_of",
    "describe",
    "fetch",
    "find_entry",
    "fitting",
    "fixed_trace",
    "is_own",
    "is_workload",
    "load_catalog",
    "load_sketches",
    "load_trace",
    "local_dir_from_env",
    "parse_spec",
    "played",
    "read_columns",
    "read_workload",
    "sample",
    "synthetic_trace",
    "write_jsonl",
    "write_workload",
]
