"""How fast it is: start-up, simulator, one decision, and NVIDIA DynoSim beside it, all measured in one go.

Times are wall times. `best` is the least disturbed repeat, `median` the typical one; what a number leaves out is
said where it is taken, and in `LEFT_OUT`.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numba
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from artifact import bench_dynosim as dynosim_end
from artifact import metrics
from artifact.config import LATENCY, RunSpec
from artifact.runs import to_requests, trace
from artifact.systems import build_system
from niyama import BUILT_IN, PAPER_CLASSES, Policy, load_card
from niyama.commit import commit_chunk, commit_decode, enqueue, observe_step, requeue
from niyama.compiled import compiled
from niyama.latency import ModelCard
from niyama.plan import plan
from niyama.queues import IMPORTANT, pop
from niyama.requests import fill, new_table
from niyama.scheduler import PLANNED, PREDICTED_S, RELEGATIONS, RUNNING, new_scheduler
from niyama.sim import Requests, run, shared, simulate
from traces import build

LOADS_QPS = {"azure-code-2023": 3.0, "azure-conv-2023": 3.0, "sharegpt-8k": 1.8}
SYSTEMS = ("niyama", "sarathi-fcfs")
LATENCIES = (LATENCY, "a100-llama3-8b-roofline")
QUEUED = (10, 1_000, 10_000, 100_000)
TARGET_REQUESTS_PER_S = {"azure-code-2023": 500_000.0, "azure-conv-2023": 150_000.0}
TARGET_DECISION_US = {10_000: 50.0, 100_000: 500.0}
TARGET_RATIO = 20.0
LEFT_OUT = {
    "simulator": "kernel: set-up, routing, workload and metrics (beside it); all: loading the trace, compiling",
    "decision": "restoring the state before each decision by copying it whole, which leaves little of it in cache",
    "dynosim": "both sides: start-up and one replay beforehand; kernel: ours advance, theirs the wall time they report",
}


def bench(
    *,
    requests: int = 10_000,
    repeats: int = 5,
    dynosim: str = "auto",
    workdir: Path = Path("results/bench"),
    loads_qps: Mapping[str, float] = LOADS_QPS,
    queued: Sequence[int] = QUEUED,
) -> dict[str, Any]:
    """Measure everything; JSON values only. dynosim: auto, off, or the path of a Python that has it.

    Raises ValueError when there is nothing to measure.
    """
    for name, value in (("requests", requests), ("repeats", repeats)):
        if value < 1:
            raise ValueError(f"{name} is {value}; give at least 1")
    return {
        "machine": machine(),
        "left_out": LEFT_OUT,
        "start_up": start_up(repeats),
        "simulator": [
            _simulator(name, load_qps, system, latency, requests, repeats)
            for name, load_qps in loads_qps.items()
            for system in SYSTEMS
            for latency in LATENCIES
        ],
        "decision": [row for system in SYSTEMS for n in queued for row in decisions(BUILT_IN[system], n, repeats)],
        "dynosim": _dynosim(requests, repeats, dynosim, workdir),
    }


def machine() -> dict[str, Any]:
    """What the numbers depend on; nothing that names the machine."""
    cpu = platform.processor() or platform.machine()
    if Path("/proc/cpuinfo").is_file():
        fields = (line.partition(":") for line in Path("/proc/cpuinfo").read_text().splitlines())
        cpu = next((value.strip() for key, _, value in fields if key.strip() == "model name"), cpu)
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "load_average": os.getloadavg()[0],
        "python": platform.python_version(),
        "numba": numba.__version__,
        "numpy": np.__version__,
    }


# --- start-up -----------------------------------------------------------------------------------------------------

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


# --- simulator ----------------------------------------------------------------------------------------------------


@contextmanager
def _kernel_stopwatch() -> Iterator[list[float]]:
    """Time the calls of the compiled `advance` inside `simulate`; the list holds the seconds of each."""
    real, spent = run.advance, []

    def advance(*arguments: Any) -> None:
        start = time.perf_counter()
        real(*arguments)
        spent.append(time.perf_counter() - start)

    run.advance = advance
    try:
        yield spent
    finally:
        run.advance = real


def _timed_simulation(system: Any, requests: Requests, executor: ModelCard) -> tuple[run.Run, float, float]:
    """The run, and the seconds of kernel and of `simulate` as a whole."""
    with _kernel_stopwatch() as spent:
        start = time.perf_counter()
        done = simulate(system, requests, executor, executor)
        return done, sum(spent), time.perf_counter() - start


def _simulator(name: str, load_qps: float, system: str, latency: str, requests: int, repeats: int) -> dict[str, Any]:
    """One trace, system and latency model: the kernel alone, and from workload to metrics."""
    spec = RunSpec(trace=name, system=system, load_qps=load_qps, requests=requests, latency=latency)
    source, card = trace(name), load_card(latency)
    pools = build_system(system, spec.classes)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        arrived = to_requests(spec, build(spec.workload_spec(), source))
        workload_s = time.perf_counter() - start
        done, kernel_s, simulate_s = _timed_simulation(pools, arrived, card)
        start = time.perf_counter()
        columns = metrics.request_columns(arrived, done)
        for _, mask in metrics.groups(arrived):
            metrics.summarise(arrived, done, columns, mask)
        metrics_s = time.perf_counter() - start
        times.append((kernel_s, simulate_s - kernel_s, workload_s, metrics_s, workload_s + simulate_s + metrics_s))
    measured = np.array(times[1:])  # the first one compiles and warms up
    best_s, medians = float(measured[:, 0].min()), np.median(measured, axis=0)
    return {
        "trace": source.name,
        "system": system,
        "latency": latency,
        "load_qps": load_qps,
        "requests": requests,
        "iterations": done.iterations,
        "requests_per_s": requests / best_s,
        "requests_per_s_median": requests / float(medians[0]),
        "iterations_per_s": done.iterations / best_s,
        "iterations_per_s_median": done.iterations / float(medians[0]),
        "target_requests_per_s": TARGET_REQUESTS_PER_S.get(name),
        **dict(zip(("kernel_s", "set_up_s", "workload_s", "metrics_s", "end_to_end_s"), medians.tolist(), strict=True)),
    }


# --- one decision -------------------------------------------------------------------------------------------------

DECODES, DECODE_CONTEXT_TOKENS = 64, 1_000
KV_TOKENS = 10 * load_card(LATENCY).kv_tokens
#: seconds after a burst of arrivals: nobody doomed yet; the first TTFTs missed, all in one decision; after that one
SITUATIONS = {"burst": 0.0, "mass-relegation": 30.0, "after-relegation": 30.0}

_clock = ctypes.CDLL(None).clock_gettime  # compiled code can call it; it cannot call Python's clocks
_clock.argtypes, _clock.restype = [ctypes.c_int, ctypes.c_void_p], ctypes.c_int
_MONOTONIC = int(time.CLOCK_MONOTONIC)


@numba.njit
def _timed_plan(s, t, p, rules, model, now_s, stamps):
    _clock(_MONOTONIC, stamps.ctypes.data)
    plan(s, t, p, rules, model, now_s)
    _clock(_MONOTONIC, stamps.ctypes.data + 16)


@numba.njit
def _timed_step(s, t, p, rules, model, now_s, stamps):
    """A plan, and the commit of all of it: every decode its token, every chunk as planned."""
    _clock(_MONOTONIC, stamps.ctypes.data)
    batch = plan(s, t, p, rules, model, now_s)
    for i in range(s.count[RUNNING]):
        commit_decode(s, t, s.running[i], 1)
    for i in range(s.count[PLANNED]):
        commit_chunk(s, t, p, rules, s.plan_ids[i], s.plan_tokens[i], now_s + s.gauge[PREDICTED_S])
    observe_step(s, batch.prefill_tokens, s.gauge[PREDICTED_S])
    _clock(_MONOTONIC, stamps.ctypes.data + 16)


@compiled
def _arrive(s, t, p, rules, decodes):
    """The first `decodes` requests get their whole prompt and decode; the others are queued."""
    for r in range(len(t.arrival_s)):
        enqueue(s, t, p, rules, r)
        if r < decodes:
            pop(s.queues, t, IMPORTANT)
            commit_chunk(s, t, p, rules, r, t.target_tokens[r], t.arrival_s[r])


def decision_state(policy: Policy, queued: int) -> tuple[Any, ...]:
    """Scheduler, table, parameters, rules and predictor with `queued` requests waiting, all arrived within 1 s."""
    n, rng = queued + DECODES, np.random.default_rng(0)
    index = rng.integers(len(PAPER_CLASSES), size=n)
    prompts = rng.integers(100, 4_000, size=n)
    prompts[:DECODES] = DECODE_CONTEXT_TOKENS
    table = new_table(n)
    fill(
        table,
        arrival_s=np.linspace(-1.0, 0.0, n),
        prompt_tokens=prompts,
        deadline_slo_s=np.array([c.deadline_slo_s for c in PAPER_CLASSES])[index],
        tbt_s=np.array([c.tbt_s or 0.0 for c in PAPER_CLASSES])[index],
        interactive=np.array([c.interactive for c in PAPER_CLASSES])[index],
        important=(np.arange(n) < DECODES) | (rng.random(n) < 0.8),
        app=index,
    )
    scheduler = new_scheduler(n, policy.max_running, len(PAPER_CLASSES), KV_TOKENS, policy.alpha_low)
    params, rules = policy.params(), policy.rules()
    _arrive(scheduler, table, params, rules, DECODES)
    return scheduler, table, params, rules, load_card(LATENCY).build()


class Snapshot:
    """Copies of all arrays of a scheduler and its table. `restore` writes them back; the host's are never replaced."""

    def __init__(self, scheduler: Any, table: Any) -> None:
        self._live = [*scheduler.queues, *scheduler[1:], *table]
        self._kept = [array.copy() for array in self._live]

    def restore(self) -> None:
        for live, kept in zip(self._live, self._kept, strict=True):
            live[...] = kept

    def same(self) -> bool:
        """Whether the state is what it was."""
        return all(np.array_equal(a, b) for a, b in zip(self._live, self._kept, strict=True))


def decisions(policy: Policy, queued: int, repeats: int) -> list[dict[str, Any]]:
    """Microseconds of one decision: `plan` alone, plan and commit, and `plan` as a host in Python calls it."""
    relegates = policy.make_room
    return [_decision(policy, queued, name, repeats) for name in (SITUATIONS if relegates else ("burst",))]


def _decision(policy: Policy, queued: int, situation: str, repeats: int) -> dict[str, Any]:
    state, now_s = decision_state(policy, queued), SITUATIONS[situation]
    if situation == "after-relegation":
        _settle(state, now_s)
    kept = Snapshot(*state[:2])
    times = repeats * (200 if queued <= 10_000 and situation != "mass-relegation" else 40)
    relegated = state[0].count[RELEGATIONS]
    stamps = np.zeros((2, 2), np.int64)
    plan_us = _compiled_us(_timed_plan, state, now_s, stamps, kept, times)
    answer = {
        "system": policy.name,
        "situation": situation,
        "queued": queued,
        "decodes": DECODES,
        "planned": int(state[0].count[PLANNED]),
        "relegated": int(state[0].count[RELEGATIONS] - relegated),
        "decisions": times,
    }
    step_us = _compiled_us(_timed_step, state, now_s, stamps, kept, times)
    python_us, decode_us = _python_us(state, now_s, kept, times)
    kept.restore()
    for name, values in (("decision", plan_us), ("decision_and_commit", step_us), ("decision_from_python", python_us)):
        answer |= {f"{name}_us_median": float(np.median(values)), f"{name}_us_p99": float(np.quantile(values, 0.99))}
    answer["call_from_python_us_median"] = answer["decision_from_python_us_median"] - answer["decision_us_median"]
    answer["commit_decode_from_python_us_median"] = float(np.median(decode_us))
    answer["target_us"] = TARGET_DECISION_US.get(queued) if situation == "burst" else None
    answer["state_restored"] = kept.same()
    return answer


def _settle(state: tuple[Any, ...], now_s: float) -> None:
    """Plan, and take the plan back, until no more requests are relegated."""
    scheduler, table = state[:2]
    before = -1
    while scheduler.count[RELEGATIONS] != before:
        before = scheduler.count[RELEGATIONS]
        plan(*state, now_s)
        for r in scheduler.plan_ids[: scheduler.count[PLANNED]]:
            requeue(scheduler, table, r)


def _compiled_us(timed: Any, state: Any, now_s: float, stamps: np.ndarray, kept: Snapshot, times: int) -> np.ndarray:
    """Read inside the compiled code, so without the call from Python; two clock readings (some 0.05 us) are in it."""
    found = np.zeros(times + 1)
    for i in range(times + 1):
        kept.restore()
        timed(*state, now_s, stamps)
        found[i] = (stamps[1] - stamps[0]) @ (1e6, 1e-3)
    return found[1:]


def _python_us(state: Any, now_s: float, kept: Snapshot, times: int) -> tuple[np.ndarray, np.ndarray]:
    """One call of `plan` and one of `commit_decode` from Python: unboxing some 35 arrays is most of it."""
    found = np.zeros((2, times + 1))
    scheduler, table = state[:2]
    for i in range(times + 1):
        kept.restore()
        start = time.perf_counter_ns()
        plan(*state, now_s)
        middle = time.perf_counter_ns()
        commit_decode(scheduler, table, scheduler.running[0], 1)
        found[:, i] = middle - start, time.perf_counter_ns() - middle
    return found[0, 1:] / 1e3, found[1, 1:] / 1e3


# --- DynoSim ------------------------------------------------------------------------------------------------------

PROMPT_TOKENS, OUTPUT_TOKENS = 2_000, 20
NEAR_CAPACITY = 1.02  # of what each completes when all arrive at once: queues stay short and batches full
#: ours beside DynoSim with the same chunk, KV and no prefix cache (we have none, and it is faster so); and as it comes
_SAME_KV = {"enable_prefix_caching": False, "block_size": 16, "num_gpu_blocks": load_card(LATENCY).kv_tokens // 16}
PAIRS: tuple[tuple[str, dict[str, Any]], ...] = (
    ("sarathi-fcfs", {"max_num_batched_tokens": 256, **_SAME_KV}),
    ("niyama", {"max_num_batched_tokens": 2_500, **_SAME_KV}),
    ("niyama", {"max_num_batched_tokens": 8_192}),
)


def _dynosim(requests: int, repeats: int, choice: str, workdir: Path) -> dict[str, Any]:
    """The comparison, or why there is none."""
    about = {"package": dynosim_end.PACKAGE, "version": dynosim_end.VERSION, "target_ratio": TARGET_RATIO}
    try:
        python = dynosim_end.find_peer(choice, workdir)
        with dynosim_end.Peer(python) as peer:
            pairs = [_pair(peer, system, engine, requests, repeats) for system, engine in PAIRS]
    except dynosim_end.PeerUnavailable as reason:
        return {**about, "skipped": str(reason), "pairs": []}
    return {**about, "skipped": None, "start_up_s": peer.start_up_s, "pairs": pairs}


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


def _pair(peer: dynosim_end.Peer, system: str, engine: dict[str, Any], requests: int, repeats: int) -> dict[str, Any]:
    """Ours and theirs in turn, `repeats` times, each near its own capacity under its own latency model."""
    ours, card = shared(BUILT_IN[system]), load_card(LATENCY)
    flood = simulate(ours, _fixed_requests(requests, None), card, card)
    load_qps = NEAR_CAPACITY * requests / float(flood.token_s.max())
    fixed = {"prompt_tokens": PROMPT_TOKENS, "output_tokens": OUTPUT_TOKENS, "requests": requests, "engine": engine}
    peer_load_qps = NEAR_CAPACITY * peer.replay(**fixed, load_qps=1e6)["throughput_qps"]
    arrived = _fixed_requests(requests, load_qps)
    times = []
    for _ in range(repeats + 1):
        done, kernel_s, simulate_s = _timed_simulation(ours, arrived, card)
        theirs = peer.replay(**fixed, load_qps=peer_load_qps)
        times.append((kernel_s, simulate_s, theirs["kernel_s"], theirs["call_s"]))
    measured = np.array(times[1:])
    # every batch of theirs is full, so tokens over batch size; checked against its fixed timing model to 1 %
    peer_iterations = requests * (PROMPT_TOKENS + OUTPUT_TOKENS - 1) / engine["max_num_batched_tokens"]
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
        "dynosim_iterations_per_s": peer_iterations / peer_s,
        "ratio": float(np.median(measured[:, 2] / measured[:, 0])),
        "ratios": (measured[:, 2] / measured[:, 0]).tolist(),
        "ratio_with_set_up": float(np.median(measured[:, 3] / measured[:, 1])),
        "simulate_s": ours_call_s,
        "dynosim_call_s": peer_call_s,
    }


# --- for people ---------------------------------------------------------------------------------------------------


def print_bench(found: dict[str, Any]) -> None:
    """The measurements as tables, targets beside them."""
    console = Console(width=None if sys.stdout.isatty() else 140)  # a log has no width; 80 would cut the numbers
    about, first = found["machine"], found["start_up"]
    console.print(
        f"{about['cpu']}, {about['cores']} cores, load average {about['load_average']:.1f}; Python {about['python']}, "
        f"numba {about['numba']}, numpy {about['numpy']}"
    )
    console.print(
        f"start-up: numba and numpy {first['import_numba_s']:.2f} s; niyama with its first simulation "
        f"{first['compile_warm_s']:.2f} s, compiled afresh {first['compile_cold_s']:.1f} s"
    )
    _print_simulator(console, found["simulator"])
    _print_decisions(console, found["decision"])
    _print_dynosim(console, found["dynosim"])
    for what, text in found["left_out"].items():
        console.print(f"left out, {what}: {text}")


def _table(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE)
    for i, name in enumerate(columns):
        table.add_column(name, justify="left" if i < 2 else "right")
    return table


def _against(value: float, target: float | None, sign: str) -> str:
    if target is None:
        return "-"
    meets = value >= target if sign == ">=" else value <= target
    return f"{sign} {target:,.0f} {'yes' if meets else 'no'}"


def _print_simulator(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("trace", "system", "latency", "requests/s best", "median", "target", "iterations/s best", "end to end")
    table = _table("Simulator (kernel; end to end from workload to metrics)", *columns)
    for row in rows:
        table.add_row(
            f"{row['trace']} {row['load_qps']:g} QPS",
            row["system"],
            row["latency"].rpartition("-")[2],
            f"{row['requests_per_s']:,.0f}",
            f"{row['requests_per_s_median']:,.0f}",
            _against(row["requests_per_s"], row["target_requests_per_s"], ">="),
            f"{row['iterations_per_s']:,.0f}",
            f"{row['end_to_end_s'] * 1e3:.1f} ms",
        )
    console.print(table)


def _print_decisions(console: Console, rows: list[dict[str, Any]]) -> None:
    columns = ("system", "situation", "queued", "plan", "p99", "target", "plan and commit", "from Python")
    table = _table(f"One decision with {DECODES} decodes (us, median)", *columns)
    for row in rows:
        table.add_row(
            row["system"],
            row["situation"],
            f"{row['queued']:,}",
            f"{row['decision_us_median']:,.2f}",
            f"{row['decision_us_p99']:,.2f}",
            _against(row["decision_us_median"], row["target_us"], "<="),
            f"{row['decision_and_commit_us_median']:,.2f}",
            f"{row['decision_from_python_us_median']:,.1f}",
        )
    console.print(table)


def _print_dynosim(console: Console, found: dict[str, Any]) -> None:
    name = f"DynoSim ({found['package']} {found['version']})"
    if found["skipped"] is not None:
        console.print(f"{name}: skipped, {found['skipped']}")
        return
    columns = (
        "system",
        "its batch",
        "requests/s",
        "DynoSim",
        "iterations/s",
        "DynoSim",
        "ratio (range)",
        "target",
        "set-up too",
    )
    table = _table(f"{name}: prompt {PROMPT_TOKENS}, output {OUTPUT_TOKENS}, one replica", *columns)
    for row in found["pairs"]:
        table.add_row(
            row["system"],
            f"{row['dynosim_engine']['max_num_batched_tokens']} tokens",
            f"{row['requests_per_s']:,.0f}",
            f"{row['dynosim_requests_per_s']:,.0f}",
            f"{row['iterations_per_s']:,.0f}",
            f"{row['dynosim_iterations_per_s']:,.0f}",
            f"{row['ratio']:.1f}x ({min(row['ratios']):.1f} to {max(row['ratios']):.1f})",
            _against(row["ratio"], found["target_ratio"], ">="),
            f"{row['ratio_with_set_up']:.1f}x",
        )
    console.print(table)
