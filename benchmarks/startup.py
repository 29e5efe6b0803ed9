"""Start-up: what a fresh process pays before its first simulation."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile

import numpy as np

from artifact.runs.spec import LATENCY

_FIRST_RUN = """
import json, time
a = time.perf_counter()
import numpy, numba
b = time.perf_counter()
from niyama import BUILT_IN, PAPER_CLASSES, load_card
from niyama.sim import Requests, shared, simulate
c = time.perf_counter()
one = numpy.ones(3, int)
few, card = Requests(PAPER_CLASSES, one.cumsum() - 1, one.cumsum(), 9 * one, 2 * one, one > 0), load_card(%r)
simulate(shared(BUILT_IN["niyama"]), few, card, card)
print(json.dumps([b - a, c - b, time.perf_counter() - c]))
"""


def start_up(repeats: int) -> dict[str, float]:
    """Seconds, in fresh processes: numba and numpy; niyama, whose rules compile on import; its first simulation.

    compile_*_s is import and first simulation of niyama together: cold with an empty cache, warm with a filled one
    (median of `repeats`).
    """
    with tempfile.TemporaryDirectory() as folder:
        cold = _first_run(folder)
        warm = np.median([_first_run(folder) for _ in range(repeats)], axis=0)
    return {
        "import_numba_s": float(warm[0]),
        "import_niyama_s": float(warm[1]),
        "compile_cold_s": float(cold[1] + cold[2]),
        "compile_warm_s": float(warm[1] + warm[2]),
    }


def _first_run(cache_folder: str) -> np.ndarray:
    code = _FIRST_RUN % LATENCY
    environment = {**os.environ, "NUMBA_CACHE_DIR": cache_folder}
    done = subprocess.run([sys.executable, "-c", code], env=environment, check=True, capture_output=True, text=True)
    return np.array(json.loads(done.stdout))
