"""`python -m artifact profile`: the measured time of an engine's steps, by their shape, and how the latency cards fit.

The one command to run on a new GPU. On the emulated backend it measures itself: what comes out is the latency model
and the engine's own time.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from artifact import tables
from artifact.config import LATENCY, ConfigError
from artifact.model_files import SHAPES as MODEL_SHAPES
from artifact.model_files import model_folder
from artifact.servers.command import (
    BACKENDS,
    BLOCK_TOKENS,
    CPU,
    EMULATED,
    GPU,
    MAX_MODEL_TOKENS,
    SHAPES,
    check_engine_installed,
    detect_backend,
)
from niyama.latency import Batch, LatencyModel, load_card, model_names, seconds
from niyama.vllm.step_grid import GRIDS, Grid

GPU_MEMORY_SHARE = 0.9
CPU_MEMORY_SHARE = 0.1
CPU_KV_GIB = 1
SHAPE = ("decodes", "context_tokens", "prefill_tokens", "prefix_tokens")  # what the repeats of a shape share


def engine_arguments(backend: str, model_shape: str, grid: Grid, latency: str, model_dir: Path) -> dict[str, Any]:
    """vLLM's engine arguments for that backend, with room for the grid's largest step."""
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": MODEL_SHAPES[model_shape]["torch_dtype"],
        "block_size": BLOCK_TOKENS[backend],
        "max_model_len": MAX_MODEL_TOKENS,
        "max_num_batched_tokens": grid.step_tokens,
        "max_num_seqs": max(grid.decodes) + 1,
    }
    if model_shape != "tiny":  # the one that comes with weights
        arguments["load_format"] = "dummy"
    if backend == GPU:
        arguments["gpu_memory_utilization"] = GPU_MEMORY_SHARE
    elif backend == CPU:
        arguments |= {"gpu_memory_utilization": CPU_MEMORY_SHARE, "enforce_eager": True}
    else:
        arguments["distributed_executor_backend"] = "niyama.vllm.EmulatedExecutor"
        arguments["additional_config"] = {"emulated": {"latency": latency}}
    return arguments


def engine_environment(backend: str) -> dict[str, str]:
    """What vLLM must find in the environment when it is imported."""
    own = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
    if backend == CPU:
        own |= {"VLLM_CPU_KVCACHE_SPACE": str(CPU_KV_GIB), "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
    return own


def profile(options: argparse.Namespace) -> None:
    """Measure, write the table, print the summary."""
    _check(options)
    grid, latency = GRIDS[options.grid], options.latency or LATENCY
    shape = options.model_shape or SHAPES[options.backend]
    os.environ.update(engine_environment(options.backend))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from niyama.vllm.step_engine import describe, open_core
    from niyama.vllm.step_times import measure

    with TemporaryDirectory() as folder:
        arguments = engine_arguments(options.backend, shape, grid, latency, model_folder(shape, Path(folder)))
        with open_core(arguments) as core:
            engine = describe(core)
            found = measure(core, grid, progress=_progress())
    if not found.rows:
        raise ConfigError(f"--grid {options.grid}: no shape fits {engine['kv_tokens']} KV tokens; use a smaller one")
    del arguments["model"]  # a folder that is gone
    engine["device"] = _device(options.backend, latency, engine["device"])
    about = {"backend": options.backend, "model_shape": shape, "grid": options.grid, "engine": engine}
    about |= {"engine_arguments": arguments, "skipped_shapes": found.skipped, "strayed_steps": found.strayed}
    tables.write_table(options.out, found.rows, **about)
    print("\n".join(summary(found.rows, about, latency if options.backend == EMULATED else None)))
    print(f"written to {options.out}")


def _check(options: argparse.Namespace) -> None:
    """ConfigError for options that cannot be followed; before anything is loaded."""
    if options.latency is not None and options.backend != EMULATED:
        raise ConfigError(f"--latency is for --backend emulated; leave it out: {options.backend} measures real steps")
    if options.backend == EMULATED and options.latency is not None:
        load_card(options.latency)
    if options.out.suffix != ".parquet":
        raise ConfigError(f"--out is {str(options.out)!r}; give a file that ends in .parquet")
    if options.backend == GPU and detect_backend() != GPU:
        raise ConfigError("--backend is gpu, and nvidia-smi lists none here; use cpu or emulated")
    check_engine_installed()


def _device(backend: str, latency: str, device: str | None) -> str:
    if backend == EMULATED:
        return f"none: emulates {load_card(latency).hardware}"
    return device or "CPU"


def _progress() -> Callable[[int, int], None] | None:
    """A counter of passes with the time left, on a terminal; a line for every tenth elsewhere."""
    started, terminal = time.perf_counter(), sys.stderr.isatty()

    def tell(done: int, total: int) -> None:
        spent_s = time.perf_counter() - started
        left_s = spent_s / done * (total - done)
        text = f"pass {done} of {total}, {spent_s:.0f} s, about {left_s:.0f} s left"
        if terminal:
            print(f"\r{text:78s}", end="\n" if done == total else "", file=sys.stderr, flush=True)
        elif done == total or done % max(1, total // 10) == 0:
            print(text, file=sys.stderr, flush=True)

    return tell


def summary(rows: Iterable[Mapping[str, Any]], about: Mapping[str, Any], emulated: str | None) -> list[str]:
    """The result in lines of text: size, spread over repeats, and how far each card that ships is off.

    emulated: the card whose times were emulated; what the engine itself took beside them is said then.
    """
    rows = list(rows)
    measured_s = np.array([row["seconds"] for row in rows])
    engine, groups = about["engine"], _repeats(rows)
    medians_s = np.array([np.median(times) for times in groups])
    spread = np.array([np.ptp(times) for times in groups]) / medians_s
    scheduling_s = np.median([row["schedule_s"] for row in rows])
    lines = [
        f"{about['model_shape']} on {engine['device']}, vLLM {engine['vllm']}, torch {engine['torch']}, "
        f"{engine['dtype']}, {engine['kv_tokens']} KV tokens",
        f"{len(rows)} steps of {len(groups)} shapes; {about['skipped_shapes']} shapes skipped, as they do not fit; "
        f"{about['strayed_steps']} steps in another shape, left out",
        f"step time {_ms(medians_s.min())} to {_ms(medians_s.max())}, {_ms(scheduling_s)} of it scheduling (median); "
        f"repeats apart by {np.median(spread):.1%} (median), {np.quantile(spread, 0.95):.1%} (p95)",
    ]
    for name in model_names():
        lines.append(f"  {name:27s} {card_fit(measured_s, card_seconds(name, rows))}")
    if emulated is not None:
        extra_s = measured_s - card_seconds(emulated, rows)
        low_s, median_s, high_s = np.quantile(extra_s, [0.05, 0.5, 0.95])
        lines.append(f"beside the emulated step: {_ms(median_s)} (median), {_ms(low_s)} to {_ms(high_s)} (p5 to p95)")
    return lines


def _repeats(rows: Iterable[Mapping[str, Any]]) -> list[list[float]]:
    """The seconds of each shape's repeats."""
    groups: dict[tuple[Any, ...], list[float]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in SHAPE), []).append(row["seconds"])
    return list(groups.values())


def card_seconds(name: str, rows: Iterable[Mapping[str, Any]]) -> np.ndarray:
    """What the card called `name` says the rows' steps take, in seconds."""
    model: LatencyModel = load_card(name).build()
    batches = (
        Batch(r["decodes"], r["decode_context_tokens"], r["prefill_tokens"], r["prefill_work"], r["prefix_tokens"])
        for r in rows
    )
    return np.array([seconds(model, batch) for batch in batches])


def card_fit(measured_s: np.ndarray, card_s: np.ndarray) -> str:
    """The card's error relative to what was measured, and what is left of it when one factor is taken out.

    Niyama's online correction finds such a factor.
    """
    error = card_s / measured_s - 1.0
    factor = float(np.median(measured_s / card_s))
    left = np.abs(factor * card_s / measured_s - 1.0).mean()
    return (
        f"off by {np.abs(error).mean():.1%} (mean absolute), bias {error.mean():+.1%}; "
        f"times {factor:.3f}: off by {left:.1%}"
    )


def _ms(value_s: float) -> str:
    return f"{value_s * 1e3:.2f} ms"


def add_command(verbs: Any, verb: Any) -> None:
    """Add the command to the command line; `verb` makes it."""
    parser = verb(verbs, "profile", profile, "Measure an engine's step times by the shape of the batch.")
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--model-shape", choices=sorted(MODEL_SHAPES), help="default: llama3-8b; on the CPU tiny")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="full", help="full (default) or short")
    parser.add_argument("--latency", help=f"latency model that is emulated (default {LATENCY})")
    parser.add_argument("--out", type=Path, required=True, help="the table, FILE.parquet")
