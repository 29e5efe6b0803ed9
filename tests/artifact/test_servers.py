"""Server processes: nothing outlives its owner, errors show the log, strangers are noticed."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from artifact.servers import ServerError, guard
from artifact.servers.counters import read_counters
from artifact.servers.process import ServerProcess, free_port
from artifact.servers.stopping import terminated_like_interrupted
from tests.helpers.fake_engine import FakeEngine, listening
from tests.helpers.waiting import HANG_S, wait_for

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


def fake(tmp_path, *, model="m-1", claims="m-1", stubborn=False, code=FAKE_SERVER):
    port, pids = free_port(), tmp_path / "pids"
    arguments = [str(port), claims, str(pids), "stubborn" if stubborn else "meek"]
    command = [sys.executable, "-c", code, *arguments]
    return ServerProcess("s-0", command, os.environ, port, model, tmp_path / "s.log"), pids


@pytest.mark.parametrize("stubborn", [False, True])
def test_stopping_ends_the_whole_group(tmp_path, stubborn, monkeypatch):
    if stubborn:  # it never ends by itself, however long the guard waits
        impatient = tmp_path / "guard.py"
        impatient.write_text(re.sub("GRACE_S = .*", "GRACE_S = 0.3", Path(guard.__file__).read_text()))
        monkeypatch.setattr(guard, "__file__", str(impatient))
    server, pids = fake(tmp_path, stubborn=stubborn)
    try:
        assert server.wait_until_ready(HANG_S) < HANG_S
        server.check_alive()
        own, child = map(int, pids.read_text().split())
        assert alive(own) and alive(child)
    finally:
        server.stop()
    wait_for(lambda: not alive(own) and not alive(child))
    server.stop()  # the second time does nothing


def test_a_server_that_dies_takes_its_children_along_and_is_reported(tmp_path):
    server, pids = fake(tmp_path)
    try:
        server.wait_until_ready(HANG_S)
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


def test_a_second_sigterm_does_not_interrupt_the_tidying_up():
    """`timeout` signals its child and then the child's group."""
    before, tidied = signal.getsignal(signal.SIGTERM), []
    try:
        with pytest.raises(SystemExit) as caught, terminated_like_interrupted():
            try:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(HANG_S)
            finally:
                os.kill(os.getpid(), signal.SIGTERM)
                time.sleep(0.1)
                tidied.append(True)
        os.kill(os.getpid(), signal.SIGTERM)  # and not on the last steps either
        assert tidied and caught.value.code == 128 + signal.SIGTERM
    finally:
        signal.signal(signal.SIGTERM, before)
    with terminated_like_interrupted():
        pass
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_sigterm_in_the_middle_of_a_run_leaves_no_task_behind(tmp_path):
    """The client's tasks are cancelled and the connections closed, without a word of complaint."""
    code = (
        "import os, signal, sys, threading, time; sys.path.insert(0, sys.argv[1])\n"
        "from tests.helpers.fake_engine import FakeEngine, listening\n"
        "from tests.artifact.test_client import client, requests\n"
        "from tests.helpers.waiting import wait_for\n"
        "from artifact.servers.measured import measure\n"
        "from artifact.servers.stopping import terminated_like_interrupted\n"
        "engine = FakeEngine(gap_s=0.5)\n"
        "def kill():\n"
        "    wait_for(lambda: len(engine.seen) == 3)\n"
        "    [(os.kill(os.getpid(), signal.SIGTERM), time.sleep(0.001)) for _ in range(3)]\n"
        "with listening(engine.application()) as url, terminated_like_interrupted():\n"
        "    threading.Thread(target=kill).start(); measure(client(url), requests())\n"
    )
    command = [sys.executable, "-c", code, str(ROOT)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 128 + signal.SIGTERM
    assert "destroyed" not in done.stderr and "Unclosed" not in done.stderr, done.stderr


def test_a_server_that_does_not_start_shows_the_end_of_its_log_without_the_noise(tmp_path):
    noise = r"nanobind: leaked 4 instances!\n - leaked type \"x\"\n"
    code = f'import sys; print("ValueError: block size 7"); print("{noise}" * 40); sys.exit(3)'
    server, _ = fake(tmp_path, code=code)
    with pytest.raises(ServerError, match=r"ended with status 3; (?s:.*)ValueError: block size 7") as caught:
        server.wait_until_ready(HANG_S)
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
            server.wait_until_ready(HANG_S)
    finally:
        server.stop()


def test_counters_are_read_and_summed(tmp_path):
    with listening(FakeEngine().application()) as url:
        assert read_counters(url) == {"iterations": 0, "preemptions": 2}
    with pytest.raises(ServerError, match="/metrics cannot be read"):
        read_counters(url)
