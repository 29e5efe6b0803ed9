"""One server's command line and environment, for each backend."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import yaml

from artifact.config import ConfigError
from artifact.runs.spec import LATENCY, ClassSpec
from artifact.runs.stock import A100_BATCHED_TOKENS
from artifact.servers.gpus import gpu_names
from artifact.servers.model_files import SHAPES as MODEL_SHAPES
from artifact.servers.model_files import model_folder
from artifact.servers.systems import NIYAMA_SCHEDULER, ServerPool, ServerSystem, by_urgency
from niyama.latency import is_card_file, load_card

GPU, CPU, EMULATED = BACKENDS = ("gpu", "cpu", "emulated")
#: Shape of the model each backend serves unless one is given; weights are made up or not there at all.
SHAPES = {GPU: "llama3-8b", CPU: "one-layer", EMULATED: "llama3-8b"}
#: vLLM's KV block, in tokens. Its CPU attention takes multiples of 32 only.
BLOCK_TOKENS = {GPU: 16, CPU: 32, EMULATED: 16}
MAX_MODEL_TOKENS = 16_384  # longest prompt + output; the 2023 traces need 14,100
MAX_RUNNING = 256
SYNCHRONOUS_SCHEDULER = "niyama.vllm.NiyamaScheduler"
CPU_KV_GIB = 1  # vLLM takes whole ones
CPU_KV_BLOCKS = 16_384  # 524,288 tokens, more than any run holds: a quarter of a gigabyte with `one-layer`
#: One core computes; the others are for the API server and the client. vLLM would bind a thread to each of them.
ONE_CORE = {"OMP_NUM_THREADS": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind"}
#: What a token takes from the engine to the client on this machine: Niyama meets every deadline that much earlier.
DELIVERY_S = 0.01


@dataclass(frozen=True)
class Engine:
    """What the servers of a system run on.

    backend: gpu, cpu, or emulated (no model runs; steps last as the latency model says). latency: latency model, a
    name or a card's file, that is emulated and that Niyama predicts with. model: folder or name of a model to serve
    with its weights; None serves the backend's shape without. noise, seed: of the emulated step times.
    """

    backend: str
    latency: str = LATENCY
    model: str | None = None
    noise: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        if self.backend not in BACKENDS:
            raise ConfigError(f"backend is {self.backend!r}; use one of {', '.join(BACKENDS)}")
        load_card(self.latency)


def detect_backend() -> str:
    """`gpu` where nvidia-smi lists one, else `emulated`."""
    return GPU if gpu_names(os.environ) else EMULATED


def backend_of(choice: str) -> str:
    """The backend of that name; `auto`: what this machine has. Raises ConfigError."""
    if choice not in ("auto", *BACKENDS):
        raise ConfigError(f"backend is {choice!r}; use auto, or one of {', '.join(BACKENDS)}")
    return detect_backend() if choice == "auto" else choice


def check_gpus(engine: Engine, system: ServerSystem) -> None:
    """ConfigError where servers on GPUs are more than there are GPUs."""
    there = len(gpu_names(os.environ)) if engine.backend == GPU else system.replicas
    if system.replicas > there:
        raise ConfigError(
            f"{system.name}: its {system.replicas} servers take a GPU each, and this machine lends {there}; use fewer "
            "replicas, a system of one server, or --backend emulated"
        )


def check_engine_installed() -> None:
    """ConfigError where vLLM is not installed."""
    if find_spec("vllm") is None:
        raise ConfigError("vLLM is not installed here; install the `vllm` extra (README) to start servers")


def server_command(engine: Engine, pool: ServerPool, model_name: str, port: int, model: str) -> list[str]:
    """The command that serves `model` (a folder or a name) as `model_name` on `port`."""
    tokens = pool.batched_tokens or (None if engine.backend == GPU else A100_BATCHED_TOKENS)
    options = {
        "--model": model,
        "--served-model-name": model_name,
        "--host": "127.0.0.1",
        "--port": str(port),
        "--block-size": str(BLOCK_TOKENS[engine.backend]),
        "--max-model-len": str(MAX_MODEL_TOKENS),
        "--max-num-seqs": str(MAX_RUNNING),
        "--uvicorn-log-level": "warning",
    }
    if engine.model is None:
        options["--load-format"] = "dummy"
    if tokens is not None:
        options["--max-num-batched-tokens"] = str(tokens)
    if engine.backend == EMULATED:
        settings = {"latency": _anywhere(engine.latency), "noise": engine.noise, "seed": engine.seed}
        options["--distributed-executor-backend"] = "niyama.vllm.EmulatedExecutor"
        options["--additional-config"] = json.dumps({"emulated": settings})
    flat = [part for option in options.items() for part in option]
    # no prefix caching: prompts share nothing, and it must be the same for all systems
    flags = ["--no-enable-prefix-caching", "--disable-uvicorn-access-log"]
    # not `vllm serve`: the CPU wheel comes without the metadata that this script needs
    arguments = pool.arguments
    if engine.backend == CPU:  # which vLLM schedules synchronously; eager, as it is profiled, and without a compiler
        flags.append("--enforce-eager")
        if engine.model is None:  # as profiled; vLLM would take bfloat16, which many a CPU is many times slower at
            flags += ["--dtype", MODEL_SHAPES[SHAPES[CPU]]["torch_dtype"]]
            flags += ["--num-gpu-blocks-override", str(CPU_KV_BLOCKS)]
        arguments = tuple(SYNCHRONOUS_SCHEDULER if a == NIYAMA_SCHEDULER else a for a in arguments)
    return [sys.executable, "-m", "vllm.entrypoints.openai.api_server", *flat, *flags, *arguments]


def server_environment(
    inherited: Mapping[str, str], engine: Engine, system: ServerSystem, replica: int, config: Path
) -> dict[str, str]:
    """Environment of a server. replica: its number through all pools, also its GPU. config: Niyama's, if it runs it."""
    own = {
        "PYTHONUNBUFFERED": "1",
        "PYTHONHASHSEED": "0",
        "TOKENIZERS_PARALLELISM": "false",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
    }
    if engine.model is None or Path(engine.model).is_dir():
        own["HF_HUB_OFFLINE"] = "1"
    if engine.backend == GPU:
        own["CUDA_VISIBLE_DEVICES"] = _device(inherited, replica)
    else:
        own |= {**ONE_CORE, "VLLM_CPU_KVCACHE_SPACE": str(CPU_KV_GIB)}
    if system.is_niyama:
        own["NIYAMA_CONFIG"] = str(config)
    clean = {name: value for name, value in inherited.items() if not name.startswith("NIYAMA_")}
    return clean | own


def _device(inherited: Mapping[str, str], replica: int) -> str:
    """The GPU of a replica, out of those that CUDA_VISIBLE_DEVICES allows."""
    allowed = inherited.get("CUDA_VISIBLE_DEVICES")
    if not allowed:
        return str(replica)
    devices = allowed.split(",")
    if replica >= len(devices):
        raise ConfigError(f"CUDA_VISIBLE_DEVICES is {allowed!r}: server {replica + 1} has no GPU; use fewer replicas")
    return devices[replica]


def _anywhere(latency: str) -> str:
    """A latency model for a program that may read its card elsewhere than from here."""
    return str(Path(latency).resolve()) if is_card_file(latency) else latency


def model_path(engine: Engine, folder: Path) -> str:
    """The model to serve: the one given, or a folder without weights made under `folder`."""
    return engine.model or str(model_folder(SHAPES[engine.backend], folder))


def write_niyama_config(path: Path, policy: str, engine: Engine, classes: Sequence[ClassSpec]) -> None:
    """Niyama's configuration file for these classes; requests without a class get the least urgent one."""
    fields = ("name", "ttft_s", "tbt_s", "ttlt_s")
    promised = [{f: getattr(c, f) for f in fields if getattr(c, f) is not None} for c in classes]
    urgent = [c.name for c in by_urgency(classes)]
    config = {
        "policy": policy,
        "latency": _anywhere(engine.latency),
        "delivery_s": DELIVERY_S,
        "classes": promised,
        "default_class": urgent[-1],
        "service_tiers": {"priority": urgent[0], "default": urgent[-1], "flex": urgent[-1]},
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(config, sort_keys=False))
