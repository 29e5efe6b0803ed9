"""`python -m artifact profile`: the measured time of an engine's steps, by their shape, and how the latency cards fit.

The one command to run on a new GPU. On the emulated backend it measures itself: what comes out is the latency model
and the engine's own time.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from artifact.commands.progress import Line
from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.latency.step_summary import summary
from artifact.results import tables
from artifact.runs.spec import LATENCY
from artifact.servers.command_line import (
    BACKENDS,
    BLOCK_TOKENS,
    CPU,
    EMULATED,
    GPU,
    MAX_MODEL_TOKENS,
    ONE_CORE,
    SHAPES,
    check_engine_installed,
    detect_backend,
)
from artifact.servers.model_files import SHAPES as MODEL_SHAPES
from artifact.servers.model_files import model_folder
from niyama.latency import load_card
from niyama.vllm.profiling.step_grid import GRIDS, Grid

GPU_MEMORY_SHARE = 0.9
CPU_MEMORY_SHARE = 0.1
CPU_KV_GIB = 1
SAME_ENGINE = ("device", "vllm", "torch", "cuda_graphs")  # times of engines that differ in these do not mix


def engine_arguments(
    backend: str, model_shape: str, grids: Sequence[Grid], latency: str, model_dir: Path
) -> dict[str, Any]:
    """vLLM's engine arguments for that backend, with room for the grids' largest step."""
    arguments: dict[str, Any] = {
        "model": str(model_dir),
        "dtype": MODEL_SHAPES[model_shape]["torch_dtype"],
        "block_size": BLOCK_TOKENS[backend],
        "max_model_len": MAX_MODEL_TOKENS,
        "max_num_batched_tokens": max(grid.step_tokens for grid in grids),
        "max_num_seqs": max(max(grid.decodes) for grid in grids) + 1,
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
        own |= {**ONE_CORE, "VLLM_CPU_KVCACHE_SPACE": str(CPU_KV_GIB)}  # as a server
    return own


def profile(options: argparse.Namespace) -> None:
    """Measure, write the table after each grid, print the summary."""
    _check(options)
    shape, latency = options.model_shape or SHAPES[options.backend], options.latency or LATENCY
    with TemporaryDirectory() as folder:
        arguments = engine_arguments(
            options.backend, shape, GRIDS[options.grid], latency, model_folder(shape, Path(folder))
        )
        rows, about = _resumed(options, shape, arguments) if options.resume else ([], {"grids_done": 0})
        if about["grids_done"] < len(GRIDS[options.grid]):
            rows, about = _measure(options, shape, latency, arguments, rows, about)
    if not rows:
        kv_tokens = about["engine"]["kv_tokens"]
        raise ConfigError(f"--grid {options.grid}: no shape fits {kv_tokens} KV tokens; use a smaller one")
    print("\n".join(summary(rows, about, latency if options.backend == EMULATED else None)))
    print(f"written to {options.out}")


def _about(options: argparse.Namespace, shape: str, arguments: Mapping[str, Any]) -> dict[str, Any]:
    """What a table must say of itself to be of this very measurement."""
    kept = {name: value for name, value in arguments.items() if name != "model"}  # a folder that will be gone
    return {"backend": options.backend, "model_shape": shape, "grid": options.grid, "engine_arguments": kept}


def _resumed(
    options: argparse.Namespace, shape: str, arguments: Mapping[str, Any]
) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """Rows and provenance of what an earlier run left of the same measurement; nothing where it left none."""
    try:
        table = tables.read_table(options.out)
    except tables.ResultError:
        return [], {"grids_done": 0}
    found, wanted = tables.provenance(table), _about(options, shape, arguments)
    if {name: found.get(name) for name in wanted} != wanted:
        return [], {"grids_done": 0}
    return table.to_pylist(), found


def _measure(
    options: argparse.Namespace,
    shape: str,
    latency: str,
    arguments: Mapping[str, Any],
    rows: list[Mapping[str, Any]],
    about: Mapping[str, Any],
) -> tuple[list[Mapping[str, Any]], dict[str, Any]]:
    """The grids that are left, on top of what `rows` and `about` hold; anew when that is of another engine."""
    os.environ.update(engine_environment(options.backend))
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    from niyama.vllm.profiling.step_engine import describe, open_core
    from niyama.vllm.profiling.step_times import measure

    grids = GRIDS[options.grid]
    with open_core(arguments) as core:
        engine = describe(core)
        engine["device"] = _device(options.backend, latency, engine["device"])
        if any(about.get("engine", {}).get(name) != engine[name] for name in SAME_ENGINE):
            rows, about = [], {"grids_done": 0}
        whole = {"skipped_shapes": 0, "strayed_steps": 0, **about, **_about(options, shape, arguments)}
        whole["engine"] = engine
        whole.pop("schema_version", None)
        for number in range(whole["grids_done"], len(grids)):
            found = measure(core, grids[number], progress=_progress(f"grid {number + 1} of {len(grids)}, "))
            rows = [*rows, *found.rows]
            whole["grids_done"] = number + 1
            whole["skipped_shapes"] += found.skipped
            whole["strayed_steps"] += found.strayed
            if rows:
                tables.write_table(options.out, rows, listed=False, **whole)
    return rows, whole


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


def _progress(prefix: str) -> Callable[[int, int], None]:
    line = Line()
    return lambda done, total: line.say(f"{prefix}cell {done} of {total}", done / total)


def add_commands(verb: Verb) -> None:
    """Add the command to the command line; `verb` makes it."""
    parser = verb("profile", profile)
    parser.add_argument("--backend", choices=BACKENDS, required=True)
    parser.add_argument("--model-shape", choices=sorted(MODEL_SHAPES), help="default: llama3-8b; on the CPU one-layer")
    parser.add_argument("--grid", choices=sorted(GRIDS), default="full", help="default: full")
    parser.add_argument("--latency", help=f"latency model that is emulated (default {LATENCY})")
    parser.add_argument("--out", type=Path, required=True, help="the table, FILE.parquet; written after each grid")
    parser.add_argument("--resume", action="store_true", help="keep the grids that --out holds of this measurement")
