"""Which servers make up a system, and the command line and environment that each is started with."""

import json
from pathlib import Path

import pytest
import yaml

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.latency.engine_profile import engine_environment
from artifact.runs.spec import PAPER_MIX, ClassSpec
from artifact.servers import Engine, build_server_system, command_line, gpu_names
from artifact.servers.systems import NIYAMA_SYSTEMS
from niyama import BUILT_IN


def test_systems_are_pools():
    silo = build_server_system("silo", PAPER_MIX)
    assert [(p.name, p.classes, p.batched_tokens) for p in silo.pools] == [
        ("interactive", ("Q1",), 256),
        ("batch", ("Q2", "Q3"), 2048),
    ]
    assert silo.replicas == 2 and build_server_system("silo", PAPER_MIX, (1, 2)).replicas == 3
    priority = build_server_system("vllm-priority", tuple(reversed(PAPER_MIX)))
    assert dict(priority.priorities) == {"Q1": 0, "Q2": 1, "Q3": 2}  # by urgency, whatever the order of the list
    assert build_server_system("vllm-fcfs", PAPER_MIX).priorities == ()
    only_batch = build_server_system("silo", (ClassSpec(name="B", share=1.0, ttlt_s=9.0),))
    assert [p.name for p in only_batch.pools] == ["batch"]


@pytest.mark.parametrize(
    ("name", "replicas", "words"),
    [
        ("vllm-fcsf", None, "did you mean 'vllm-fcfs'"),
        ("silo", (1,), "'silo' has 2 pool"),
        ("niyama", (0,), "replicas is 0"),
    ],
)
def test_systems_that_make_no_sense(name, replicas, words):
    with pytest.raises(ConfigError, match=words):
        build_server_system(name, PAPER_MIX, replicas)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "nyiama"], "did you mean 'niyama'"),
        (["--system", "silo", "--replicas", "two"], "--replicas is 'two'; write whole numbers"),
        (["--system", "silo", "--replicas", "1"], "'silo' has 2 pool"),
        (["--system", "silo", "--backend", "tpu"], "backend is 'tpu'"),
        (["--system", "silo", "--latency", "h100"], "latency model 'h100' is unknown"),
    ],
)
def test_a_mistake_in_serve_is_one_line_and_starts_nothing(capsys, tmp_path, arguments, words):
    folder = tmp_path / "serve"
    assert main(["serve", *arguments, "--folder", str(folder)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and words in err and len(err.splitlines()) == 1 and not folder.exists()


def test_engines_that_make_no_sense():
    with pytest.raises(ConfigError, match="backend is 'tpu'; use one of gpu, cpu, emulated"):
        Engine("tpu")
    with pytest.raises(ValueError, match="latency model 'h100' is unknown"):
        Engine("emulated", "h100")


def flags(system, backend, pool=0, **engine):
    system = build_server_system(system, PAPER_MIX)
    line = command_line.server_command(Engine(backend, **engine), system.pools[pool], "name-1", 81, "/m")
    return line, dict(zip(line, [*line[1:], None], strict=True))


def test_every_system_is_measured_alike_but_for_its_scheduler():
    lines = {}
    for name in ("vllm-fcfs", "vllm-priority", "niyama", "niyama-steady"):
        line, value = flags(name, "emulated")
        assert "--no-enable-prefix-caching" in line and value["--served-model-name"] == "name-1"
        assert json.loads(value["--additional-config"])["emulated"]["latency"] == "a100-llama3-8b-linear"
        lines[name] = set(line)
    assert lines["vllm-priority"] - lines["vllm-fcfs"] == {"--scheduling-policy", "priority"}
    assert lines["niyama"] - lines["vllm-fcfs"] == {
        "--scheduler-cls", "niyama.vllm.NiyamaAsyncScheduler", "--middleware", "niyama.vllm.QoSMiddleware", "2816",
    }  # fmt: skip
    assert lines["niyama-steady"] == lines["niyama"], "they differ in the configuration that their servers read"


@pytest.mark.parametrize("name", NIYAMA_SYSTEMS)
def test_a_niyama_system_has_room_for_its_policys_largest_step(name):
    (pool,) = build_server_system(name, PAPER_MIX).pools
    assert pool.batched_tokens >= BUILT_IN[name].max_chunk_tokens + command_line.MAX_RUNNING


def test_budgets_per_backend():
    assert flags("vllm-fcfs", "emulated")[1]["--max-num-batched-tokens"] == "2048"
    assert "--max-num-batched-tokens" not in flags("vllm-fcfs", "gpu")[0]  # stock vLLM, its own default
    assert flags("silo", "gpu")[1]["--max-num-batched-tokens"] == "256"
    assert flags("silo", "gpu", pool=1)[1]["--max-num-batched-tokens"] == "2048"
    assert "--distributed-executor-backend" not in flags("niyama", "cpu")[0]


def test_on_the_cpu_the_engine_is_the_one_that_is_profiled():
    """Synchronous, eager and on one core, as in `artifact profile`."""
    for name in NIYAMA_SYSTEMS:
        line, value = flags(name, "cpu")
        assert value["--scheduler-cls"] == "niyama.vllm.NiyamaScheduler" and "--enforce-eager" in line
    assert "--enforce-eager" in flags("vllm-fcfs", "cpu")[0] and "--enforce-eager" not in flags("vllm-fcfs", "gpu")[0]
    fcfs = build_server_system("vllm-fcfs", PAPER_MIX)
    served, profiled = command_line.server_environment({}, Engine("cpu"), fcfs, 0, Path("c")), engine_environment("cpu")
    for name in ("OMP_NUM_THREADS", "VLLM_CPU_OMP_THREADS_BIND"):
        assert served[name] == profiled[name]


def test_a_given_model_keeps_its_weights():
    assert flags("niyama", "gpu")[1]["--load-format"] == "dummy"
    assert "--load-format" not in flags("niyama", "gpu", model="meta-llama/Meta-Llama-3-8B")[0]


def test_environment_keeps_niyamas_settings_to_itself():
    inherited = {"NIYAMA_CONFIG": "mine.yaml", "NIYAMA_EMULATED": "{}", "PATH": "/bin"}
    stock = command_line.server_environment(
        inherited, Engine("emulated"), build_server_system("vllm-fcfs", PAPER_MIX), 0, Path("c.yaml")
    )
    assert not [name for name in stock if name.startswith("NIYAMA_")] and stock["PATH"] == "/bin"
    own = command_line.server_environment(
        inherited, Engine("emulated"), build_server_system("niyama", PAPER_MIX), 0, Path("c.yaml")
    )
    assert own["NIYAMA_CONFIG"] == "c.yaml"


def test_each_replica_has_its_gpu():
    silo = build_server_system("silo", PAPER_MIX)

    def device(replica, **inherited):
        environment = command_line.server_environment(inherited, Engine("gpu"), silo, replica, Path("c"))
        return environment["CUDA_VISIBLE_DEVICES"]

    assert device(1) == "1" and device(1, CUDA_VISIBLE_DEVICES="4,7") == "7"
    with pytest.raises(ConfigError, match="server 2 has no GPU"):
        device(1, CUDA_VISIBLE_DEVICES="4")


def test_detection_without_nvidia_smi_is_emulated(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert command_line.detect_backend() == "emulated"
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    smi.chmod(0o755)
    assert command_line.detect_backend() == "gpu"
    smi.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert command_line.detect_backend() == "emulated"


LISTING = """GPU 0: NVIDIA H100 80GB HBM3 (UUID: GPU-aa11)
  MIG 1g.10gb Device 0: (UUID: MIG-cc)
GPU 1: NVIDIA H200 (UUID: GPU-bb22)
"""


@pytest.fixture
def two_gpus(monkeypatch, tmp_path):
    smi = tmp_path / "nvidia-smi"
    smi.write_text(f"#!/bin/sh\n/bin/cat <<'END'\n{LISTING}END\n")
    smi.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)


@pytest.mark.parametrize(
    ("visible", "names"),
    [
        (None, ("NVIDIA H100 80GB HBM3", "NVIDIA H200")),
        ("1", ("NVIDIA H200",)),
        ("0,1", ("NVIDIA H100 80GB HBM3", "NVIDIA H200")),
        ("GPU-bb", ("NVIDIA H200",)),
        ("7", ()),
    ],
)
def test_gpus_are_those_that_are_listed_and_allowed(two_gpus, visible, names):
    assert gpu_names({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible}) == names


def test_more_servers_than_gpus_are_refused_before_any_starts(two_gpus, monkeypatch):
    silo = build_server_system("silo", PAPER_MIX)
    command_line.check_gpus(Engine("gpu"), silo)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    with pytest.raises(ConfigError, match="silo: its 2 servers take a GPU each, and this machine lends 1"):
        command_line.check_gpus(Engine("gpu"), silo)
    command_line.check_gpus(Engine("emulated"), silo)


def test_niyamas_configuration_is_one_that_it_takes(tmp_path):
    path = tmp_path / "n.yaml"
    command_line.write_niyama_config(path, "niyama-steady", Engine("emulated"), tuple(reversed(PAPER_MIX)))
    written = yaml.safe_load(path.read_text())
    assert written["policy"] == "niyama-steady" and written["default_class"] == "Q3"
    assert written["service_tiers"]["priority"] == "Q1"
    pytest.importorskip("vllm")
    from niyama.vllm import load_config

    config = load_config({}, {"NIYAMA_CONFIG": str(path)})
    assert [c.name for c in config.classes] == ["Q3", "Q2", "Q1"] and config.default_class == "Q3"
