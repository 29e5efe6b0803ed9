"""How long a fleet takes that is routed live: `python -m benchmarks.fleet [REQUESTS] [REPLICAS]`, on its own."""

from __future__ import annotations

import json
import resource
import sys
import time
from typing import Any

from artifact.runs.run import arrivals_of, warm_up_like
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system
from niyama import load_card
from niyama.sim import simulate

MOST_S = 60.0
QPS_PER_REPLICA = 3.5


def fleet(requests: int = 1_000_000, replicas: int = 64, routing: str = "slack") -> dict[str, Any]:
    """Seconds of the simulation proper, beside the same fleet whose requests are dealt in turn beforehand."""
    found: dict[str, Any] = {"requests": requests, "replicas": replicas, "most_s": MOST_S}
    for name in (routing, "round-robin"):
        spec = RunSpec(
            trace="azure-code-2023", system="niyama", load_qps=QPS_PER_REPLICA * replicas, requests=requests,
            replicas=(replicas,), routing=name,
        )  # fmt: skip
        warm_up_like(spec)
        arrived, card = arrivals_of(spec), load_card(spec.latency)
        system = build_system(spec.system, spec.classes, spec.replicas, spec.routing)
        start = time.perf_counter()
        done = simulate(system, arrived, card, card)
        found[name] = {"simulate_s": time.perf_counter() - start, "iterations": done.iterations}
    found["memory_gib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
    return found


if __name__ == "__main__":
    print(json.dumps(fleet(*(int(n) for n in sys.argv[1:3])), indent=1))
