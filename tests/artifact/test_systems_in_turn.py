"""The server sweep with all servers running at once: at each load the systems are measured in turn."""

from __future__ import annotations

from contextlib import contextmanager

import pytest

from artifact.__main__ import main
from artifact.servers import Fleet, ServerError
from artifact.servers import sweep as server_sweep
from artifact.servers.config import load_server_experiment
from artifact.servers.measured import RunFailed
from artifact.servers.run_cycle import plan_run_cycle
from artifact.servers.sweep import measure_in_turn, measure_run_cycle
from tests.artifact.test_server_sweep import CONFIG, QUIET, run_command
from tests.helpers.fake_engine import FakeEngine, listening

pytestmark = pytest.mark.usefixtures("at_once")
SYSTEMS = ("vllm-fcfs", "niyama", "silo")


class Server:
    """A process that is alive until somebody says no."""

    def __init__(self, url, name):
        self.url, self.name, self.alive = url, name, True

    def check_alive(self):
        if not self.alive:
            raise ServerError(f"{self.name} is dead")


class Machine:
    """Stands in for `running`: which servers started, how many at a time, and in which order they were measured."""

    def __init__(self, measure):
        self.engine, self.measure = FakeEngine(), measure
        self.started, self.running, self.most, self.order, self.servers = [], 0, 0, [], {}
        self.kills = None

    @contextmanager
    def run(self, system, engine, classes, folder, **_):
        name = f"{system.name}/{system.pools[0].name}"
        self.started.append(name)
        self.running += 1
        self.most = max(self.most, self.running)
        with listening(self.engine.application()) as url:
            self.servers[name] = Server(url, name)
            yield Fleet(system, url, self.engine.model, (self.servers[name],), None, 0.1)
        self.running -= 1

    def measured(self, client, requests):
        (name,) = (name for name, server in self.servers.items() if server.url == client.url)
        self.order.append((client.seed, len(requests), name))
        if self.kills == name:
            self.servers[name].alive = False
        return self.measure(client, requests)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "servers.yaml"
    path.write_text(CONFIG.replace("seconds: 0.2", "seconds: 0.2, seeds: 2, systems_in_turn: true"))
    return path


@pytest.fixture
def machine(monkeypatch):
    machine = Machine(server_sweep.measure)
    monkeypatch.setattr(server_sweep, "running", machine.run)
    monkeypatch.setattr(server_sweep, "measure", machine.measured)
    return machine


def cycles_of(config, devices=1):
    experiment = load_server_experiment(config)
    form = experiment.form("short")
    return [
        plan_run_cycle(
            experiment, form, system, seed, experiment.trace, "emulated", config.parent / f"{system}-{seed}", devices
        )
        for seed in range(form.seeds)
        for system in SYSTEMS
    ]


def test_every_server_starts_once_and_the_systems_of_a_load_follow_each_other(config, machine):
    cycles = cycles_of(config)
    measure_in_turn(cycles, QUIET)
    servers = ["vllm-fcfs/shared", "niyama/shared", "silo/interactive", "silo/batch"]
    assert sorted(machine.started) == sorted(servers) and machine.most == 4, "one start for both seeds"
    rounds = [machine.order[i : i + 4] for i in range(0, 16, 4)]
    assert len(machine.order) == 16
    for round_ in rounds:
        assert {name for _, _, name in round_} == set(servers) and len({seed for seed, _, _ in round_}) == 1
    assert [round_[0][0] for round_ in rounds] == [0, 0, 1, 1]
    assert len({round_[0][2] for round_ in rounds}) == 4, "nobody is always the first"


def test_the_run_cycles_then_find_all_measured_and_a_second_time_nothing_starts(config, machine):
    cycles = cycles_of(config)
    measure_in_turn(cycles, QUIET)
    started = len(machine.started)
    rows = [measure_run_cycle(cycle, QUIET) for cycle in cycles]
    assert all(cycle.done(spec) for cycle in cycles for spec in cycle.specs) and all(rows)
    measure_in_turn(cycles, QUIET)
    assert len(machine.started) == started
    cycles[0].path(cycles[0].specs[1]).unlink()
    measure_in_turn(cycles, QUIET)
    assert machine.started[started:] == ["vllm-fcfs/shared"], "only what is missing"


def test_a_system_whose_server_dies_is_left_out_and_the_others_go_on(config, machine):
    machine.kills, said = "niyama/shared", []
    cycles = cycles_of(config)
    measure_in_turn(cycles, said.append)
    assert [name for _, _, name in machine.order].count("niyama/shared") == 1
    assert any("niyama/shared is dead; what is missing of niyama is measured by itself" in text for text in said)
    for cycle in cycles:
        done = [cycle.done(spec) or all(part.done(spec) for part in cycle.parts) for spec in cycle.specs]
        assert done == [cycle.system.name != "niyama"] * 2
    machine.kills = None
    assert measure_run_cycle(cycles[1], QUIET) and machine.started[-1] == "niyama/shared"


def test_a_system_whose_server_does_not_start_is_left_out(config, machine, monkeypatch):
    def failing(system, *rest, **more):
        if system.name == "silo":
            raise ServerError("no memory")
        return machine.run(system, *rest, **more)

    monkeypatch.setattr(server_sweep, "running", failing)
    said = []
    measure_in_turn(cycles_of(config), said.append)
    assert {name for _, _, name in machine.order} == {"vllm-fcfs/shared", "niyama/shared"}
    assert sum("no memory" in text for text in said) == 2, "once for each of silo's pools"


def test_when_no_system_has_a_server_left_it_fails_and_leaves_no_stamp(config, machine, tmp_path, monkeypatch):
    def failing(*_, **__):
        raise ServerError("no memory")

    monkeypatch.setattr(server_sweep, "running", failing)
    out = tmp_path / "in_turn.txt"
    with pytest.raises(RunFailed, match="the servers of every system failed"):
        measure_in_turn(cycles_of(config), QUIET)
    assert run_command(tmp_path, config, "server-turns", folder=tmp_path / "raw", out=out) == 2 and not out.exists()


def test_the_command_measures_all_and_says_so(config, machine, tmp_path):
    out = tmp_path / "in_turn.txt"
    assert run_command(tmp_path, config, "server-turns", folder=tmp_path / "raw", out=out) in (0, None)
    assert out.read_text() == "measured in turn: vllm-fcfs, niyama, silo\n"
    assert len(list((tmp_path / "raw").glob("*-[01]/requests-*.parquet"))) == 12


def test_on_gpus_it_is_refused_for_a_gpu_holds_one_server(config, machine, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("artifact.servers.run_cycle.gpu_names", lambda _: ("a", "b"))
    described = tmp_path / "trace.json"
    main(["trace", "azure-code-2023-synth", "--out", str(described)])
    more = ["--backend", "gpu", "--folder", str(tmp_path / "raw"), "--out", str(tmp_path / "in_turn.txt")]
    status = main(["server-turns", "--config", str(config), "--form", "short", "--described", str(described), *more])
    assert status == 2 and "a GPU holds one; remove it" in capsys.readouterr().err and not machine.started
