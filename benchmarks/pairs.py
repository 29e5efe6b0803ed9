"""NVIDIA DynoSim and ours in turn on fixed lengths, in one process and one run, so that the ratio is fair."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from artifact.runs.spec import LATENCY
from benchmarks import dynosim
from benchmarks.simulator import timed_simulation
from niyama import BUILT_IN, PAPER_CLASSES, load_card
from niyama.sim import Requests, shared, simulate

TARGET_RATIO = 20.0
PROMPT_TOKENS, OUTPUT_TOKENS = 2_000, 20
NEAR_CAPACITY = 1.02  # of what each completes when all arrive at once: queues stay short and batches full
#: ours beside DynoSim with the same chunk, KV and no prefix cache (we have none, and it is faster so); and as it comes
_SAME_KV = {"enable_prefix_caching": False, "block_size": 16, "num_gpu_blocks": load_card(LATENCY).kv_tokens // 16}
#: The first two see the same arrivals, at a load both carry; the others are each kept busy at its own capacity, where
#: batches are full and an engine step costs the simulators most requests.
SAME_LOAD_QPS = 2.0
PAIRS: tuple[tuple[str, dict[str, Any], float | None], ...] = (
    ("sarathi-fcfs", {"max_num_batched_tokens": 256, **_SAME_KV}, SAME_LOAD_QPS),
    ("niyama", {"max_num_batched_tokens": 2_500, **_SAME_KV}, SAME_LOAD_QPS),
    ("sarathi-fcfs", {"max_num_batched_tokens": 256, **_SAME_KV}, None),
    ("niyama", {"max_num_batched_tokens": 2_500, **_SAME_KV}, None),
    ("niyama", {"max_num_batched_tokens": 8_192}, None),
)


def pairs(requests: int, repeats: int, choice: str, workdir: Path) -> dict[str, Any]:
    """The comparison, or why there is none."""
    about = {"package": dynosim.PACKAGE, "version": dynosim.VERSION, "target_ratio": TARGET_RATIO}
    try:
        python = dynosim.find_peer(choice, workdir)
        with dynosim.Peer(python) as peer:
            found = [_pair(peer, *pair, requests, repeats) for pair in PAIRS]
    except dynosim.PeerUnavailable as reason:
        return {**about, "skipped": str(reason), "pairs": []}
    return {**about, "skipped": None, "start_up_s": peer.start_up_s, "pairs": found}


def _fixed_requests(requests: int, load_qps: float | None) -> Requests:
    """Fixed lengths, classes in turn; Poisson arrivals, or all at once."""
    gaps = np.zeros(requests) if load_qps is None else np.random.default_rng(42).exponential(1 / load_qps, requests)
    return Requests(
        PAPER_CLASSES,
        np.arange(requests) % len(PAPER_CLASSES),
        np.cumsum(gaps),
        np.full(requests, PROMPT_TOKENS),
        np.full(requests, OUTPUT_TOKENS),
        np.ones(requests, bool),
    )


def _pair(
    peer: dynosim.Peer, system: str, engine: dict[str, Any], same_qps: float | None, requests: int, repeats: int
) -> dict[str, Any]:
    """Ours and theirs in turn, `repeats` times: both at `same_qps`, or each near its capacity under its own model."""
    ours, card = shared(BUILT_IN[system]), load_card(LATENCY)
    flood = simulate(ours, _fixed_requests(requests, None), card, card)
    load_qps = same_qps or NEAR_CAPACITY * requests / float(flood.token_s.max())
    fixed = {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS, "requests": requests, "engine": engine}
    peer_load_qps = same_qps or NEAR_CAPACITY * peer.replay(**fixed, load_qps=1e6)["throughput_qps"]
    arrived = _fixed_requests(requests, load_qps)
    times = []
    for _ in range(repeats + 1):
        done, kernel_s, simulate_s = timed_simulation(ours, arrived, card)
        theirs = peer.replay(**fixed, load_qps=peer_load_qps)
        times.append((kernel_s, simulate_s, theirs["kernel_s"], theirs["call_s"]))
    measured = np.array(times[1:])
    # it counts none; when every batch is full they are tokens over batch size (checked to 1 % with its fixed timing)
    full = requests * (PROMPT_TOKENS + OUTPUT_TOKENS - 1) / engine["max_num_batched_tokens"]
    peer_iterations = None if same_qps else full
    ours_s, ours_call_s, peer_s, peer_call_s = np.median(measured, axis=0).tolist()
    return {
        "system": system,
        "dynosim_engine": engine,
        "requests": requests,
        "load_qps": load_qps,
        "dynosim_load_qps": peer_load_qps,
        "iterations": done.iterations,
        "dynosim_iterations": peer_iterations,
        "requests_per_s": requests / ours_s,
        "dynosim_requests_per_s": requests / peer_s,
        "iterations_per_s": done.iterations / ours_s,
        "dynosim_iterations_per_s": None if same_qps else full / peer_s,
        "ratio": float(np.median(measured[:, 2] / measured[:, 0])),
        "ratios": (measured[:, 2] / measured[:, 0]).tolist(),
        "ratio_with_set_up": float(np.median(measured[:, 3] / measured[:, 1])),
        "simulate_s": ours_call_s,
        "dynosim_call_s": peer_call_s,
    }
