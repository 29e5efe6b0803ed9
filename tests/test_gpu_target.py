"""`make gpu`: one command on a machine with a GPU, one line of reason without; both without running anything."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from artifact.commands.table import parser
from artifact.servers import build_server_system
from artifact.servers.config import load_server_experiment
from tests.helpers.make_env import own_environment

ROOT = Path(__file__).parents[1]
CONFIGS = ROOT / "workflows" / "config"


@pytest.fixture
def make_gpu(tmp_path):
    """`make gpu` with a nvidia-smi that says this; -n prints the commands instead of running them."""

    def make(nvidia_smi, *options):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        path.chmod(0o755)
        environment = own_environment() | {"PATH": f"{tmp_path}{os.pathsep}{os.environ['PATH']}"}
        command = ["make", "gpu", f"GPU_RESULTS={tmp_path / 'gpu'}", *options]
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
        return done.returncode, done.stdout, done.stderr

    return make


@pytest.mark.parametrize("nvidia_smi", ["exit 9", "echo 'No devices were found'"])
def test_without_a_gpu_it_is_one_line_and_nothing_runs(make_gpu, nvidia_smi):
    status, said, error = make_gpu(nvidia_smi)
    assert (status, said) == (2, "")
    assert "no GPU: nvidia-smi lists none" in error and error.count("\n") == 1


def test_with_one_it_installs_measures_and_sweeps(make_gpu, tmp_path):
    status, said, error = make_gpu("echo 'GPU 0: NVIDIA H200'", "-n")
    assert status == 0, error
    assert said.index("setup ENGINE=gpu") < said.index("-m artifact profile") < said.index("snakemake --cores")
    (line,) = re.findall(r"-m artifact (profile .+)", said)
    options = parser().parse_args(shlex.split(line))
    assert (options.backend, options.grid, options.resume) == ("gpu", "full", True)
    assert options.out == tmp_path / "gpu" / "step_times.parquet"
    (line,) = re.findall(r"-m artifact (fit .+)", said)
    fit = parser().parse_args(shlex.split(line))
    card = tmp_path / "gpu" / f"{fit.name}-{fit.kinds[0]}.json"
    assert fit.profile == options.out and fit.out is None and f"servers_latency={card}" in said
    assert said.index("profile --backend") < said.index("artifact fit") < said.index("snakemake --cores")


def test_each_kind_of_gpu_has_results_of_its_own(make_gpu):
    for name, folder in (
        ("NVIDIA H100 80GB HBM3 (UUID: GPU-1)", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA H200", "nvidia-h200"),
    ):
        _, said, error = make_gpu(f"echo 'GPU 0: {name}'", "-n", "GPU_RESULTS=results/gpu/$(GPU_NAME)")
        assert f"results=results/gpu/{folder}\n" in said, error


def test_its_sweep_is_a_life_per_system_on_the_gpu_config(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "3", "--nolock", "servers", "--config"]
    command += ["servers_config=workflows/config/gpu.yaml", f"results={tmp_path}"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = [shlex.split(line) for line in re.findall(r"python -m artifact (server-sweep .*)", done.stdout)]
    options = [parser().parse_args(line) for line in lines]
    assert sorted(o.system for o in options) == ["niyama", "silo", "vllm-fcfs"], done.stderr
    assert {str(o.config) for o in options} == {"workflows/config/gpu.yaml"}
    assert {(o.form, o.backend) for o in options} == {("full", "auto")}


def test_only_systems_and_loads_differ_from_the_sweep_without_a_gpu():
    gpu, emulated = (load_server_experiment(CONFIGS / f"{name}.yaml") for name in ("gpu", "servers"))
    assert (gpu.trace, gpu.classes, gpu.latency) == (emulated.trace, emulated.classes, emulated.latency)
    assert set(gpu.systems) <= set(emulated.systems) and gpu.virtual() == emulated.virtual()
    shares = gpu.form("full").loads_of_fluid_bound
    assert min(shares) < 0.7 and max(shares) > 1.0 and len(shares) >= 4, "the knees of all systems lie between"


def test_its_measuring_fits_half_an_hour():
    """On one A100, where the silo's pools take turns: a minute for each server's start, and 20 s to drain each load."""
    gpu = load_server_experiment(CONFIGS / "gpu.yaml")
    form = gpu.form("full")
    lives = sum(build_server_system(name, gpu.classes).replicas for name in gpu.systems)
    servers_s = form.seeds * lives * (60 + len(form.loads_of_fluid_bound) * (form.seconds + 20))
    assert servers_s <= 20 * 60
