"""Throughput over HTTP when no deadline presses: a server of stock vLLM and one of Niyama's, burst by burst, in turn.

Real time on the emulated device: API server, middleware and the engine's own work are in it, and whatever else the
machine does. Both servers live from start to end, so that neither is the fresh one; the one whose turn it is not idles.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from artifact.runs.run import arrivals_of
from artifact.runs.spec import PAPER_MIX, RunSpec
from artifact.servers import Engine, ServerProcess, build_server_system
from artifact.servers.command_line import EMULATED, MAX_RUNNING
from artifact.servers.fleet import START_TIMEOUT_S
from artifact.servers.measured import Client, measure, warm_up
from artifact.servers.model_files import model_folder
from artifact.servers.one_server import starting
from artifact.servers.systems import FCFS, NIYAMA
from benchmarks.vllm_steps import BURST_QPS, CHUNK_TOKENS, TARGET_THROUGHPUT
from niyama.sim import Requests

LATENCY = "a100-llama3-8b-roofline"  # as in virtual time
#: Requests of a burst, 15 to 20 s each under that model.
REQUESTS = {"azure-code-2023": 60, "azure-conv-2023": 75}


def over_http(repeats: int, workdir: Path, requests: Mapping[str, int] = REQUESTS) -> dict[str, Any]:
    """A row per trace; `skipped` says why there are none. repeats: pairs of bursts, 0 to leave it all out.

    requests: of a burst, by trace. Raises ServerError or RunFailed.
    """
    found: dict[str, Any] = {"skipped": None, "target_ratio": TARGET_THROUGHPUT, "rows": []}
    if repeats == 0:
        return found | {"skipped": "switched off"}
    try:
        from niyama.vllm.profiling import overhead
    except ImportError as error:
        return found | {"skipped": f"vLLM is not installed ({error.name})"}
    with ExitStack() as stack:
        clients = _start(stack, overhead.ENDLESS, workdir)
        for name, n in requests.items():
            spec = RunSpec(trace=name, system="niyama", load_qps=BURST_QPS, requests=n)
            burst = arrivals_of(spec)
            row = {"trace": name, "requests": n, "latency": LATENCY, "repeats": repeats}
            virtual = overhead.throughput(model_folder("llama3-8b", workdir), burst, CHUNK_TOKENS)
            found["rows"].append(row | _in_turn(clients, burst, repeats) | {"virtual_ratio": virtual["ratio"]})
    return found


def _start(stack: ExitStack, endless: Mapping[str, Any], workdir: Path) -> dict[str, Client]:
    """A client of each scheduler's server, which has been warmed up: the same chunks, room for decodes beside Niyama's.

    No client is too late: a burst is a burst.
    """
    policy = {"name": "niyama", "max_chunk_tokens": CHUNK_TOKENS}
    niyama = {**endless, "policy": policy, "latency": LATENCY}
    tokens = {FCFS: CHUNK_TOKENS, NIYAMA: CHUNK_TOKENS + MAX_RUNNING}
    servers: dict[str, ServerProcess] = {}
    for name, budget in tokens.items():
        system = build_server_system(name, PAPER_MIX)
        system = replace(system, pools=tuple(replace(pool, batched_tokens=budget) for pool in system.pools))
        own = niyama if system.is_niyama else None
        servers[name] = stack.enter_context(starting(system, Engine(EMULATED, LATENCY), workdir / name, own))
    clients = {}
    for name, server in servers.items():
        server.wait_until_ready(START_TIMEOUT_S)
        clients[name] = Client(server.url, server.model, {}, max_lag_p99_s=float("inf"))
        warm_up(clients[name], [c.name for c in PAPER_MIX], 1)
    return clients


def _in_turn(clients: Mapping[str, Client], burst: Requests, repeats: int) -> dict[str, Any]:
    """Seconds from the first request's time to the last token, each scheduler's, and the ratio pair by pair."""
    took_s: dict[str, list[float]] = {name: [] for name in clients}
    for repeat in range(repeats):
        for name in list(clients)[:: 1 if repeat % 2 == 0 else -1]:  # who goes first takes turns too
            took_s[name].append(float(measure(clients[name], burst).run.token_s.max() - burst.arrival_s.min()))
    stock_s, niyama_s = (np.array(took_s[name]) for name in (FCFS, NIYAMA))
    ratios = (stock_s / niyama_s).tolist()
    return {
        "stock_s": stock_s.tolist(),
        "niyama_s": niyama_s.tolist(),
        "ratios": ratios,
        "ratio": float(np.median(ratios)),
    }
