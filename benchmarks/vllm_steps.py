"""What Niyama's planning costs vLLM: time per step beside vLLM's own scheduler, and throughput when nothing presses."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from artifact.runs.run import arrivals_of
from artifact.runs.spec import RunSpec
from artifact.servers.command_line import check_engine_installed
from artifact.servers.model_files import model_folder

WAITING = (0, 1_000, 10_000)
STEPS = 200
CHUNK_TOKENS = 2048
BURST_QPS = 50.0  # far beyond capacity
TARGET_RATIO, TARGET_THROUGHPUT = 1.10, 0.99


def steps(repeats: int, workdir: Path, waiting: Sequence[int] = WAITING) -> list[dict[str, Any]]:
    """A row per queue length: medians over `repeats` pairs of runs. ConfigError without vLLM."""
    check_engine_installed()
    from niyama.vllm.profiling import overhead

    return list(overhead.overhead(model_folder("llama3-8b", workdir), waiting, STEPS, repeats))


def engine(requests: int, repeats: int, workdir: Path, waiting: Sequence[int] | None = WAITING) -> dict[str, Any]:
    """Rows per queue length (None: skip it all), and the throughput pairs; `skipped` says why there are none.

    The emulated device runs in virtual time; `schedule` is vLLM's own or Niyama's, in turn, in one process.
    """
    found: dict[str, Any] = {"skipped": None, "steps": [], "throughput": [], "target_ratio": TARGET_RATIO}
    if waiting is None:
        return found | {"skipped": "switched off"}
    try:
        from niyama.vllm.profiling import overhead
    except ImportError as error:
        return found | {"skipped": f"vLLM is not installed ({error.name})"}
    folder = model_folder("llama3-8b", workdir)
    found["steps"] = steps(repeats, workdir, waiting)
    for name in ("azure-code-2023", "azure-conv-2023"):
        spec = RunSpec(trace=name, system="niyama", load_qps=BURST_QPS, requests=requests)
        workload = arrivals_of(spec)
        row = {"trace": name, "requests": requests, "target": TARGET_THROUGHPUT}
        found["throughput"].append(row | overhead.throughput(folder, workload, CHUNK_TOKENS))
    return found
