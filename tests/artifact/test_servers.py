"""Server processes: nothing outlives its owner, errors show the log, strangers are noticed; and what is started."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from fake_engine import FakeEngine, listening

from artifact.__main__ import main
from artifact.config import PAPER_MIX, ClassSpec, ConfigError
from artifact.servers import Engine, ServerError, build_server_system
from artifact.servers import command as commands
from artifact.servers.counters import read_counters
from artifact.servers.process import ServerProcess, free_port

ROOT = Path(__file__).parents[2]
# A server that starts another process, as vLLM starts its engine core, and writes both ids to a file.
FAKE_SERVER = """
import http.server, json, os, signal, subprocess, sys, time
port, model, pids, stubborn = int(sys.argv[1]), sys.argv[2], sys.argv[3], sys.argv[4] == "stubborn"
deaf = "signal.signal(signal.SIGTERM, signal.SIG_IGN); " if stubborn else ""
code = "import signal, time; " + deaf + "time.sleep(600)"
child = subprocess.Popen([sys.executable, "-c", code])
open(pids, "w").write(f"{os.getpid()} {child.pid}")
print("fake server is up", flush=True)
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = json.dumps({"data": [{"id": model}]}).encode()
        self.send_response(200); self.send_header("Content-Length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
http.server.HTTPServer(("127.0.0.1", port), Handler).serve_forever()
"""


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_for(condition, timeout_s=15.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


def fake(tmp_path, *, model="m-1", claims="m-1", stubborn=False, code=FAKE_SERVER):
    port, pids = free_port(), tmp_path / "pids"
    arguments = [str(port), claims, str(pids), "stubborn" if stubborn else "meek"]
    command = [sys.executable, "-c", code, *arguments]
    return ServerProcess("s-0", command, os.environ, port, model, tmp_path / "s.log"), pids


@pytest.mark.parametrize("stubborn", [False, True])
def test_stopping_ends_the_whole_group(tmp_path, stubborn):
    server, pids = fake(tmp_path, stubborn=stubborn)
    try:
        assert server.wait_until_ready(20) < 20
        server.check_alive()
        own, child = map(int, pids.read_text().split())
        assert alive(own) and alive(child)
    finally:
        server.stop()
    wait_for(lambda: not alive(own) and not alive(child), 1)
    server.stop()  # the second time does nothing


def test_a_server_that_dies_takes_its_children_along_and_is_reported(tmp_path):
    server, pids = fake(tmp_path)
    try:
        server.wait_until_ready(20)
        own, child = map(int, pids.read_text().split())
        os.kill(own, signal.SIGKILL)
        wait_for(lambda: not alive(child))
        wait_for(lambda: server._guard.poll() is not None)
        with pytest.raises(ServerError, match=r"server s-0 ended with status 137; .*\n.*fake server is up"):
            server.check_alive()
    finally:
        server.stop()


def test_killing_the_owner_leaves_no_server(tmp_path):
    """Even SIGKILL, which no handler sees."""
    owner_code = (
        "import os, sys, time; sys.path.insert(0, sys.argv[1]); from pathlib import Path\n"
        "from artifact.servers.process import ServerProcess\n"
        "s = ServerProcess('s', [sys.executable, '-c', sys.argv[2], *sys.argv[4:]], os.environ, int(sys.argv[4]), 'm',"
        " Path(sys.argv[3])); time.sleep(600)"
    )
    pids = tmp_path / "pids"
    command = [sys.executable, "-c", owner_code, str(ROOT), FAKE_SERVER, str(tmp_path / "log")]
    owner = subprocess.Popen([*command, str(free_port()), "m", str(pids), "meek"])
    wait_for(lambda: pids.is_file() and len(pids.read_text().split()) == 2)
    own, child = map(int, pids.read_text().split())
    owner.kill()
    owner.wait()
    wait_for(lambda: not alive(own) and not alive(child))


def test_a_server_that_does_not_start_shows_the_end_of_its_log_without_the_noise(tmp_path):
    noise = r"nanobind: leaked 4 instances!\n - leaked type \"x\"\n"
    code = f'import sys; print("ValueError: block size 7"); print("{noise}" * 40); sys.exit(3)'
    server, _ = fake(tmp_path, code=code)
    with pytest.raises(ServerError, match=r"ended with status 3; (?s:.*)ValueError: block size 7") as caught:
        server.wait_until_ready(20)
    assert "nanobind" not in str(caught.value) and str(tmp_path / "s.log") in str(caught.value)


def test_a_server_that_never_answers_is_given_up(tmp_path):
    server, _ = fake(tmp_path, code="import time; print('thinking', flush=True); time.sleep(600)")
    try:
        with pytest.raises(ServerError, match=r"not healthy after 0.5 s; (?s:.*)thinking"):
            server.wait_until_ready(0.5)
    finally:
        server.stop()


def test_a_stranger_on_the_port_is_noticed(tmp_path):
    server, _ = fake(tmp_path, model="niyama-ours", claims="theirs")
    try:
        with pytest.raises(ServerError, match="serves theirs, not niyama-ours: another server has taken the port"):
            server.wait_until_ready(20)
    finally:
        server.stop()


def test_counters_are_read_and_summed(tmp_path):
    with listening(FakeEngine().application()) as url:
        assert read_counters(url) == {"iterations": 0, "preemptions": 2}
    with pytest.raises(ServerError, match="/metrics cannot be read"):
        read_counters(url)


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
    line = commands.server_command(Engine(backend, **engine), system.pools[pool], "name-1", 81, "/m")
    return line, dict(zip(line, [*line[1:], None], strict=True))


def test_every_system_is_measured_alike_but_for_its_scheduler():
    lines = {}
    for name in ("vllm-fcfs", "vllm-priority", "niyama"):
        line, value = flags(name, "emulated")
        assert "--no-enable-prefix-caching" in line and value["--served-model-name"] == "name-1"
        assert json.loads(value["--additional-config"])["emulated"]["latency"] == "a100-llama3-8b-linear"
        lines[name] = set(line)
    assert lines["vllm-priority"] - lines["vllm-fcfs"] == {"--scheduling-policy", "priority"}
    assert lines["niyama"] - lines["vllm-fcfs"] == {
        "--scheduler-cls", "niyama.vllm.NiyamaAsyncScheduler", "--middleware", "niyama.vllm.QoSMiddleware", "2816",
    }  # fmt: skip


def test_budgets_per_backend():
    assert flags("vllm-fcfs", "emulated")[1]["--max-num-batched-tokens"] == "2048"
    assert "--max-num-batched-tokens" not in flags("vllm-fcfs", "gpu")[0]  # stock vLLM, its own default
    assert flags("silo", "gpu")[1]["--max-num-batched-tokens"] == "256"
    assert flags("silo", "gpu", pool=1)[1]["--max-num-batched-tokens"] == "2048"
    assert "--distributed-executor-backend" not in flags("niyama", "cpu")[0]


def test_a_given_model_keeps_its_weights():
    assert flags("niyama", "gpu")[1]["--load-format"] == "dummy"
    assert "--load-format" not in flags("niyama", "gpu", model="meta-llama/Meta-Llama-3-8B")[0]


def test_environment_keeps_niyamas_settings_to_itself():
    inherited = {"NIYAMA_CONFIG": "mine.yaml", "NIYAMA_EMULATED": "{}", "PATH": "/bin"}
    stock = commands.server_environment(
        inherited, Engine("emulated"), build_server_system("vllm-fcfs", PAPER_MIX), 0, Path("c.yaml")
    )
    assert not [name for name in stock if name.startswith("NIYAMA_")] and stock["PATH"] == "/bin"
    own = commands.server_environment(
        inherited, Engine("emulated"), build_server_system("niyama", PAPER_MIX), 0, Path("c.yaml")
    )
    assert own["NIYAMA_CONFIG"] == "c.yaml"


def test_each_replica_has_its_gpu():
    silo = build_server_system("silo", PAPER_MIX)

    def device(replica, **inherited):
        return commands.server_environment(inherited, Engine("gpu"), silo, replica, Path("c"))["CUDA_VISIBLE_DEVICES"]

    assert device(1) == "1" and device(1, CUDA_VISIBLE_DEVICES="4,7") == "7"
    with pytest.raises(ConfigError, match="server 2 has no GPU"):
        device(1, CUDA_VISIBLE_DEVICES="4")


def test_detection_without_nvidia_smi_is_emulated(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert commands.detect_backend() == "emulated"
    smi = tmp_path / "nvidia-smi"
    smi.write_text("#!/bin/sh\necho 'GPU 0: NVIDIA H200'\n")
    smi.chmod(0o755)
    assert commands.detect_backend() == "gpu"
    smi.write_text("#!/bin/sh\necho 'no devices were found'; exit 6\n")
    assert commands.detect_backend() == "emulated"


def test_niyamas_configuration_is_one_that_it_takes(tmp_path):
    path = tmp_path / "n.yaml"
    commands.write_niyama_config(path, Engine("emulated"), tuple(reversed(PAPER_MIX)))
    written = yaml.safe_load(path.read_text())
    assert written["default_class"] == "Q3" and written["service_tiers"]["priority"] == "Q1"
    pytest.importorskip("vllm")
    from niyama.vllm import load_config

    config = load_config({}, {"NIYAMA_CONFIG": str(path)})
    assert [c.name for c in config.classes] == ["Q3", "Q2", "Q1"] and config.default_class == "Q3"
