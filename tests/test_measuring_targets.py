"""`make gpu` and `make cpu`: one command where their engine is, one line of reason elsewhere; nothing runs here."""

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
FIVE = ["niyama", "niyama-steady", "silo", "vllm-fcfs", "vllm-priority"]


def make(*arguments, first_on_path=None):
    """Status, output and errors of `make`; -n prints the commands instead of running them."""
    path = os.pathsep.join([*filter(None, [first_on_path]), os.environ["PATH"]])
    environment = own_environment() | {"PATH": path}
    done = subprocess.run(["make", *arguments], cwd=ROOT, env=environment, capture_output=True, text=True)
    return done.returncode, done.stdout, done.stderr


@pytest.fixture
def make_gpu(tmp_path):
    """`make gpu` with a nvidia-smi that says this."""

    def run(nvidia_smi, *options):
        path = tmp_path / "nvidia-smi"
        path.write_text(f"#!/bin/sh\n{nvidia_smi}\n")
        path.chmod(0o755)
        return make("gpu", f"GPU_RESULTS={tmp_path / 'gpu'}", *options, first_on_path=str(tmp_path))

    return run


@pytest.fixture
def make_cpu(tmp_path):
    """`make cpu` where a .venv, newer than the lock, holds this vLLM."""

    def run(installed, *options):
        (tmp_path / "installed").write_text(f"{installed}\n")
        return make("cpu", f"CPU_RESULTS={tmp_path / 'cpu'}", f"VENV={tmp_path}", "INSTALLED=", *options)

    return run


@pytest.mark.parametrize("nvidia_smi", ["exit 9", "echo 'No devices were found'"])
def test_without_a_gpu_it_is_one_line_and_nothing_runs(make_gpu, nvidia_smi):
    status, said, error = make_gpu(nvidia_smi)
    assert (status, said) == (2, "")
    assert "no GPU: nvidia-smi lists none" in error and error.count("\n") == 1


@pytest.mark.parametrize("installed", ["gpu", "none"])
def test_without_vllms_cpu_build_it_says_how_to_get_it_and_nothing_runs(make_cpu, tmp_path, installed):
    status, said, error = make_cpu(installed)
    assert (status, said) == (2, "")
    assert f"(there: {installed}). To put it there: make cpu ENGINE=cpu\n" in error
    assert [path.name for path in tmp_path.iterdir()] == ["installed"]


def check_measures(said, backend, grid, folder):
    """Step times, a card of them, servers with that card."""
    assert said.index("-m artifact profile") < said.index("-m artifact fit") < said.index("snakemake --cores")
    joined = said.replace("\\\n", "")
    (line,) = re.findall(r"-m artifact (profile .+)", joined)
    options = parser().parse_args(shlex.split(line))
    assert (options.backend, options.grid, options.resume) == (backend, grid, True)
    assert options.out == folder / "step_times.parquet"
    (line,) = re.findall(r"-m artifact (fit .+)", joined)
    fit = parser().parse_args(shlex.split(line))
    card = folder / f"{fit.name}-{fit.kinds[0]}.json"
    assert fit.profile == options.out and fit.out is None
    (line,) = re.findall(r"snakemake --cores .+", joined)
    assert f"servers_config=workflows/config/{backend}.yaml servers_backend={backend}" in " ".join(line.split())
    assert f"servers_latency={card} results={folder}" in line


def test_with_one_it_installs_measures_and_sweeps(make_gpu, tmp_path):
    status, said, error = make_gpu("echo 'GPU 0: NVIDIA H200'", "-n")
    assert status == 0, error
    assert said.index("setup ENGINE=gpu") < said.index("-m artifact profile")
    check_measures(said, "gpu", "full", tmp_path / "gpu")


def test_on_the_cpu_it_measures_and_sweeps(make_cpu, tmp_path):
    status, said, error = make_cpu("cpu", "-n")
    assert status == 0, error
    check_measures(said, "cpu", "cpu", tmp_path / "cpu")


def test_each_kind_of_gpu_has_results_of_its_own(make_gpu):
    for name, folder in (
        ("NVIDIA H100 80GB HBM3 (UUID: GPU-1)", "nvidia-h100-80gb-hbm3"),
        ("NVIDIA H200", "nvidia-h200"),
    ):
        _, said, error = make_gpu(f"echo 'GPU 0: {name}'", "-n", "GPU_RESULTS=results/gpu/$(GPU_NAME)")
        assert f"results=results/gpu/{folder}\n" in said, error


@pytest.mark.parametrize("backend, seeds", [("gpu", 1), ("cpu", 3)])
def test_its_sweep_is_a_run_cycle_per_system_and_seed(tmp_path, backend, seeds):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "3", "--nolock", "servers", "--config"]
    command += [f"servers_config=workflows/config/{backend}.yaml", f"servers_backend={backend}", f"results={tmp_path}"]
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    lines = re.findall(r"python -m artifact (server-s.*)", done.stdout)
    *sweeps, simulated = sorted(
        (parser().parse_args(shlex.split(line)) for line in lines), key=lambda o: "seed" not in o
    )
    systems = load_server_experiment(CONFIGS / f"{backend}.yaml").systems
    assert sorted((o.system, o.seed) for o in sweeps) == sorted((s, k) for s in systems for k in range(seeds)), (
        done.stderr
    )
    assert {str(o.config) for o in (*sweeps, simulated)} == {f"workflows/config/{backend}.yaml"}
    assert {(o.form, o.backend) for o in (*sweeps, simulated)} == {("full", backend)}


def test_a_backend_that_does_not_exist_is_one_line(tmp_path):
    command = [sys.executable, "-m", "snakemake", "-n", "--cores", "1", "--nolock", "servers", "--config"]
    done = subprocess.run(
        [*command, "servers_backend=tpu", f"results={tmp_path}"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stderr.endswith(
        "error: backend is 'tpu'; use auto, or one of gpu, cpu, emulated\n"
    )


def test_only_systems_and_loads_differ_from_the_sweep_without_a_gpu():
    gpu, emulated = (load_server_experiment(CONFIGS / f"{name}.yaml") for name in ("gpu", "servers"))
    assert (gpu.trace, gpu.classes, gpu.latency) == (emulated.trace, emulated.classes, emulated.latency)
    assert set(gpu.systems) <= {*emulated.systems, "niyama-steady"} and gpu.virtual() == emulated.virtual()


def test_on_the_cpu_five_systems_are_compared_on_the_same_trace():
    cpu = load_server_experiment(CONFIGS / "cpu.yaml")
    assert sorted(cpu.systems) == FIVE and cpu.form("full").seeds >= 3
    assert cpu.trace == load_server_experiment(CONFIGS / "servers.yaml").trace


@pytest.mark.parametrize("name", ["gpu", "cpu"])
def test_the_knees_of_all_systems_lie_between_its_loads(name):
    shares = load_server_experiment(CONFIGS / f"{name}.yaml").form("full").loads_of_fluid_bound
    assert min(shares) <= 0.7 and max(shares) > 1.0 and len(shares) >= 4


@pytest.mark.parametrize("name, start_s, drain_s, most_s", [("gpu", 60, 20, 25 * 60), ("cpu", 25, 4, 28 * 60)])
def test_its_measuring_fits_half_an_hour(name, start_s, drain_s, most_s):
    """On one device, where the silo's pools take turns; drain: what a load takes after its last arrival."""
    experiment = load_server_experiment(CONFIGS / f"{name}.yaml")
    form = experiment.form("full")
    starts = sum(build_server_system(system, experiment.classes).replicas for system in experiment.systems)
    measured_s = form.seeds * starts * len(form.loads_of_fluid_bound) * (form.seconds + drain_s)
    assert measured_s + start_s * starts * (1 if form.systems_in_turn else form.seeds) <= most_s
