"""An independent client on the same server and requests: `vllm bench serve` must see the latencies that ours sees."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from artifact.runs.run import arrivals_of
from artifact.runs.spec import RunSpec
from artifact.servers.command_line import MAX_MODEL_TOKENS, Engine, model_path
from artifact.servers.fleet import Fleet, running
from artifact.servers.measured import Client, Measured, measure, warm_up
from artifact.servers.process import ServerError
from artifact.servers.systems import build_server_system
from niyama.sim import Requests

TOLERANCE = 0.02
BENCH_TIMEOUT_S = 1800.0
# `vllm bench serve` itself: its command line wants the metadata of a package called vllm, which the CPU build lacks.
BENCH_SERVE = (
    "import argparse; from vllm.benchmarks.serve import add_cli_args, main; parser = argparse.ArgumentParser(); "
    "add_cli_args(parser); main(parser.parse_args())"
)


@dataclass(frozen=True)
class Medians:
    """What one client saw, in seconds: from the actual send to the first token, and between tokens."""

    ttft_s: float
    itl_s: float


def crosscheck(spec: RunSpec, engine: Engine, folder: Path) -> dict[str, float | bool]:
    """Both clients' medians on one server, one after the other; `agrees` when they differ by at most TOLERANCE.

    Raises ServerError, RunFailed or ClientLagged.
    """
    system = build_server_system(spec.system, spec.classes)
    requests = arrivals_of(spec)
    with running(system, engine, spec.classes, folder) as fleet:
        client = Client(fleet.url, fleet.model, dict(system.priorities), spec.seed)
        warm_up(client, [c.name for c in spec.classes], system.replicas)
        ours = our_medians(measure(client, requests))
        theirs = _bench(fleet, requests, model_path(engine, folder / "models"), folder)
    return compare(ours, theirs)


def compare(ours: Medians, theirs: Medians) -> dict[str, float | bool]:
    """The two side by side, in milliseconds, and how far apart they are."""
    ttft, itl = (abs(a / b - 1) for a, b in ((ours.ttft_s, theirs.ttft_s), (ours.itl_s, theirs.itl_s)))
    return {
        "ours_ttft_ms": 1e3 * ours.ttft_s,
        "bench_ttft_ms": 1e3 * theirs.ttft_s,
        "ttft_difference": ttft,
        "ours_itl_ms": 1e3 * ours.itl_s,
        "bench_itl_ms": 1e3 * theirs.itl_s,
        "itl_difference": itl,
        "agrees": max(ttft, itl) <= TOLERANCE,
    }


def our_medians(measured: Measured) -> Medians:
    """Medians of our client's raw times as `vllm bench serve` counts: from the send, and all gaps together."""
    run = measured.run
    first = run.token_start[:-1]
    inside = np.ones(len(run.token_s) - 1, bool)
    inside[first[1:] - 1] = False  # a gap between two requests is none
    gaps = np.diff(run.token_s)[inside]
    return Medians(float(np.median(run.token_s[first] - measured.sent_s)), float(np.median(gaps)))


def bench_medians(path: Path) -> Medians:
    """Medians from the detailed results of `vllm bench serve`. ServerError when requests failed."""
    found = json.loads(path.read_text())
    errors = [error for error in found["errors"] if error]
    if errors:
        raise ServerError(f"vllm bench serve: {len(errors)} requests failed, the first with {errors[0][:200]!r}")
    gaps = np.concatenate([np.array(gaps) for gaps in found["itls"] if gaps])
    return Medians(float(np.median(found["ttfts"])), float(np.median(gaps)))


def write_timed_trace(path: Path, requests: Requests) -> None:
    """The workload as `vllm bench serve` reads it; one hash of a longest prompt's size makes prompts share nothing."""
    columns = (requests.arrival_s.tolist(), requests.prompt_tokens.tolist(), requests.output_tokens.tolist())
    rows = [
        {"timestamp": arrival_s, "input_length": prompt, "output_length": output, "hash_ids": [i]}
        for i, (arrival_s, prompt, output) in enumerate(zip(*columns, strict=True))
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def bench_command(url: str, model: str, tokenizer: str, workload: Path, requests: int, result: Path) -> list[str]:
    """The command line of the independent client."""
    options = {
        "--backend": "openai",
        "--base-url": url,
        "--endpoint": "/v1/completions",
        "--model": model,
        "--tokenizer": tokenizer,
        "--dataset-name": "timed_trace",
        "--dataset-path": str(workload),
        "--timed-trace-chunk-hash-size": str(MAX_MODEL_TOKENS),
        "--num-prompts": str(requests),
        "--result-dir": str(result.parent),
        "--result-filename": result.name,
    }
    flat = [part for option in options.items() for part in option]
    flags = ["--ignore-eos", "--save-result", "--save-detailed", "--disable-tqdm"]
    return [sys.executable, "-c", BENCH_SERVE, *flat, *flags]


def _bench(fleet: Fleet, requests: Requests, tokenizer: str, folder: Path) -> Medians:
    """Run the independent client to its end."""
    workload, result, log = folder / "timed_trace.jsonl", folder / "bench.json", folder / "logs" / "bench.log"
    write_timed_trace(workload, requests)
    result.unlink(missing_ok=True)
    command = bench_command(fleet.url, fleet.model, tokenizer, workload.resolve(), len(requests), result.resolve())
    with log.open("wb") as output:
        done = subprocess.run(command, stdout=output, stderr=subprocess.STDOUT, timeout=BENCH_TIMEOUT_S, check=False)
    if done.returncode != 0 or not result.is_file():
        end = "\n".join(log.read_text(errors="replace").splitlines()[-15:])
        raise ServerError(f"vllm bench serve ended with status {done.returncode}; the end of {log}:\n{end}")
    return bench_medians(result)
