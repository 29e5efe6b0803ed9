"""`make gpu`: one command on a machine with a GPU, one line of reason without; both without running anything."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from own_make import own_environment

from artifact.__main__ import _parser
from artifact.server_config import load_server_experiment

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
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=60)
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
    options = _parser().parse_args(shlex.split(line))
    assert (options.backend, options.grid) == ("gpu", "full")
    assert options.out == tmp_path / "gpu" / "step_times.parquet"


def test_its_sweep_is_a_life_per_system_on_the_gpu_config(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "3", "--nolock", "servers", "--config"]
    command += ["servers_config=workflows/config/gpu.yaml", f"results={tmp_path}"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    lines = [shlex.split(line) for line in re.findall(r"python -m artifact (server-sweep .*)", done.stdout)]
    options = [_parser().parse_args(line) for line in lines]
    assert sorted(o.system for o in options) == ["niyama", "silo", "vllm-fcfs"], done.stderr
    assert {str(o.config) for o in options} == {"workflows/config/gpu.yaml"}
    assert {(o.form, o.backend) for o in options} == {("full", "auto")}


def test_only_systems_and_loads_differ_from_the_sweep_without_a_gpu():
    gpu, emulated = (load_server_experiment(CONFIGS / f"{name}.yaml") for name in ("gpu", "servers"))
    assert (gpu.trace, gpu.classes, gpu.latency) == (emulated.trace, emulated.classes, emulated.latency)
    assert set(gpu.systems) <= set(emulated.systems)
    loads = gpu.form("full").loads_qps_per_gpu
    assert min(loads) < max(emulated.form("full").loads_qps_per_gpu) < max(loads), "a faster GPU has its knee later"
