"""`serve` keeps the others when a process dies, restarts it with back-off, and says so; a measurement stops."""

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest

from artifact.runs.spec import PAPER_MIX
from artifact.servers import Engine, ServerError, build_server_system, fleet
from artifact.servers.keeping import FIRST_WAIT_S, MOST_RESTARTS, MOST_WAIT_S, STEADY_S, Keeper
from tests.artifact.test_router import of_class, post
from tests.helpers.waiting import HANG_S, wait_for

ROOT = Path(__file__).parents[2]
START_TIMEOUT_S = 60.0
#: The fake engine as a program: port, served name.
FAKE = """
import sys; sys.path[:0] = sys.argv[3:]
from aiohttp import web; from tests.helpers.fake_engine import FakeEngine
web.run_app(FakeEngine(model=sys.argv[2]).application(), host="127.0.0.1", port=int(sys.argv[1]), print=None)
"""


class Process:
    """A process that a test ends and makes healthy."""

    def __init__(self, name):
        self.name, self.status, self.is_healthy, self.starts = name, None, True, 0

    def restart(self):
        self.status, self.is_healthy, self.starts = None, False, self.starts + 1

    def log_tail(self):
        return f"log of {self.name}"


class Scene:
    """Two servers and a router, a clock that the test sets, and what people were told."""

    def __init__(self):
        self.now_s, self.told = 0.0, []
        self.a, self.b, self.router = Process("a"), Process("b"), Process("router")
        groups = ((self.a, self.b), (self.router,))
        self.keeper = Keeper(groups, self.told.append, START_TIMEOUT_S, now=lambda: self.now_s)

    def pass_time(self, seconds):
        """Looks at every half second."""
        for _ in range(round(seconds * 2)):
            self.now_s += 0.5
            self.keeper.look()


def test_one_that_ends_is_restarted_and_said_to_be_back_while_the_others_go_on():
    scene = Scene()
    scene.pass_time(5)
    assert scene.told == []
    scene.a.status = 137
    scene.keeper.look()
    (told,) = scene.told
    assert "server a ended with status 137" in told and "2 other process(es) go on" in told and "log of a" in told
    assert scene.a.starts == 0
    scene.pass_time(FIRST_WAIT_S)
    assert (scene.a.starts, scene.b.starts, scene.router.starts) == (1, 0, 0)
    scene.a.is_healthy = True
    scene.pass_time(1)
    assert scene.told[1:] == ["server a is back after 0 s"]


def test_the_wait_doubles_up_to_a_limit_and_then_it_is_given_up():
    scene, at_s = Scene(), []
    while scene.a.starts < MOST_RESTARTS:
        before = scene.a.starts
        scene.a.status = 1
        scene.keeper.look()
        died_s = scene.now_s
        while scene.a.starts == before:
            scene.pass_time(0.5)
        at_s.append(scene.now_s - died_s)
    assert at_s == [min(MOST_WAIT_S, FIRST_WAIT_S * 2**k) for k in range(MOST_RESTARTS)]
    scene.a.status = 1
    scene.keeper.look()
    assert "given up" in scene.told[-1]
    scene.pass_time(2 * MOST_WAIT_S)
    assert scene.a.starts == MOST_RESTARTS and "given up" in scene.told[-1]


def test_one_that_was_up_for_long_starts_from_nothing():
    scene = Scene()
    for _ in range(3 * MOST_RESTARTS):
        scene.pass_time(STEADY_S)
        scene.a.status = 1
        scene.pass_time(FIRST_WAIT_S + 1)
        scene.a.is_healthy = True
    assert scene.a.starts == 3 * MOST_RESTARTS and not any("given up" in line for line in scene.told)


def test_one_that_does_not_come_up_is_restarted_too():
    scene = Scene()
    scene.a.status = 1
    scene.pass_time(FIRST_WAIT_S + START_TIMEOUT_S + 5)
    assert scene.a.starts == 2 and "is not healthy" in scene.told[1]


@pytest.mark.parametrize("names", [("router",), ("a", "b")])
def test_without_any_of_a_kind_nothing_is_served_and_it_ends(names):
    scene = Scene()
    with pytest.raises(ServerError, match=rf"server {names[-1]} ended with status 3 after {MOST_RESTARTS} restarts"):
        for _ in range(1000):
            for name in names:
                getattr(scene, name).status = 3
            scene.pass_time(1)


@pytest.fixture
def fakes(monkeypatch):
    """Fleets are made of fake engines."""

    def command(engine, pool, model, port, path):
        return [sys.executable, "-c", FAKE, str(port), model, str(ROOT)]

    monkeypatch.setattr(fleet, "server_command", command)
    monkeypatch.setattr(fleet, "check_engine_installed", lambda: None)


def test_a_fleet_goes_on_without_a_server_that_is_killed_and_gets_it_back(fakes, tmp_path):
    system, told = build_server_system("vllm-fcfs", PAPER_MIX, (2,)), []
    with fleet.running(system, Engine("emulated"), PAPER_MIX, tmp_path) as up:
        keeper = Keeper(up.groups, told.append, START_TIMEOUT_S)
        victim = up.servers[0]
        kill(victim)
        assert [post(up.url, of_class("Q1"))[0] for _ in range(6)] == [200] * 6
        with pytest.raises(ServerError, match=f"server {victim.name} ended with status"):
            up.check_alive()  # which ends a measurement
        wait_for(lambda: keeper.look() or len(told) == 2)
        assert "1 of" in told[0] and "2 other process(es) go on" in told[0] and "is back" in told[1]
        wait_for(lambda: urllib.request.urlopen(f"{up.url}/health", timeout=HANG_S).status == 200)
        health = json.load(urllib.request.urlopen(f"{up.url}/health", timeout=HANG_S))
        wait_for(lambda: victim.is_healthy)
        assert victim.url in health["shared"]
    assert victim.status is not None


def kill(server):
    """Kill the server itself, as the kernel does when memory is short; its guard ends after it."""
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text().split()
    os.kill(int(children[0]), signal.SIGKILL)
    wait_for(lambda: server.status is not None)


def test_a_restarted_server_keeps_its_log(fakes, tmp_path):
    with fleet.running(build_server_system("vllm-fcfs", PAPER_MIX), Engine("emulated"), PAPER_MIX, tmp_path) as up:
        (server,) = up.servers
        server.log.write_text("what it said before\n")
        server.restart()
        assert server.wait_until_ready(60) < 60
        assert server.log.read_text().startswith("what it said before")
        assert subprocess.run(["kill", "-0", str(server.pid)], check=False).returncode == 0
