"""How long a plan takes for a day of a million requests: `python -m benchmarks.planning [ROWS]`, on its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

import numpy as np

from artifact.planning import Question, plan
from artifact.planning.facts import facts
from artifact.runs.run import trace
from artifact.runs.spec import ClassSpec
from traces import Trace

DAY_S = 86_400.0
MOST_S, MOST_GIB = 60.0, 4.0
CLASSES = (
    ClassSpec(name="chat", share=0.4, ttft_s=6.0, tbt_s=0.05),
    ClassSpec(name="code", share=0.3, ttft_s=8.0, tbt_s=0.1),
    ClassSpec(name="summarise", share=0.2, ttlt_s=120.0),
    ClassSpec(name="nightly", share=0.1, ttlt_s=3600.0),
)


def day(rows: int, seed: int = 0) -> Trace:
    """A day whose load is four times as high at its peak as at night, with the lengths of azure-conv-2023."""
    lengths, rng = trace("azure-conv-2023"), np.random.default_rng(seed)
    fine = np.linspace(0.0, 1.0, 100_001)
    arrival_s = np.interp(np.sort(rng.random(rows)), fine - 0.6 * np.sin(2 * np.pi * fine) / (2 * np.pi), fine) * DAY_S
    picked = rng.integers(0, len(lengths), rows)
    prompt, output = lengths.prompt_tokens[picked], lengths.output_tokens[picked]
    return Trace("day", prompt, output, arrival_s - arrival_s[0], "local", "0" * 64, "made here", "none")


def planning(rows: int = 1_000_000, jobs: int = 2) -> dict[str, Any]:
    """Seconds of a plan of all systems, from the trace in memory to the answer, and the memory of all its processes."""
    asked = Question(day(rows), CLASSES, gpu_hour_usd=2.5, headroom=0.2)
    start = time.perf_counter()
    answer = facts(plan(asked, jobs))
    spent_s = time.perf_counter() - start
    kinds = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)  # the latter: of the largest
    own, largest = (resource.getrusage(kind).ru_maxrss / 2**20 for kind in kinds)
    return {
        "rows": rows,
        "plan_s": spent_s,
        "most_s": MOST_S,
        "memory_gib": own + jobs * largest,
        "most_gib": MOST_GIB,
        "answer": answer["answer"],
    }


if __name__ == "__main__":
    print(json.dumps(planning(int((sys.argv[1:] or ["1000000"])[0])), indent=1))
