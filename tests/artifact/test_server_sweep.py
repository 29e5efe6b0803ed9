"""The server sweep against fake engines: files per load, resuming, lag, tables; and its configuration."""

import json
from contextlib import contextmanager
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.results.tables import provenance, read_table, write_table
from artifact.servers import Fleet, ServerError, build_server_system
from artifact.servers import sweep as server_sweep
from artifact.servers.config import load_server_experiment, scaling, server_specs, servers_form
from artifact.servers.crosscheck import Medians, bench_medians, compare, our_medians, write_timed_trace
from artifact.servers.measured import ClientLagged, Measured, RunFailed, seen_run
from artifact.servers.run_cycle import plan_run_cycle
from artifact.servers.simulated import can_be_simulated, run_simulated, simulated_system
from artifact.servers.sweep import measure_run_cycle
from artifact.servers.systems import NIYAMA_SYSTEMS
from niyama import BUILT_IN, PAPER_CLASSES, load_card
from niyama.sim import Requests
from tests.helpers.fake_engine import FakeEngine, listening

pytestmark = pytest.mark.usefixtures("at_once")
CONFIG = """
trace: azure-code-2023-synth
latency: a100-llama3-8b-linear
systems: [vllm-fcfs, niyama, silo]
classes:
  - {name: Q1, share: 0.5, ttft_s: 2.0, tbt_s: 0.05}
  - {name: Q2, share: 0.5, ttlt_s: 20.0}
attempts: 2
forms:
  short: {loads_qps_per_gpu: [20, 40], seconds: 0.2, max_lag_ms: 500.0}
"""
QUIET = lambda text: None  # noqa: E731


@pytest.fixture
def config(tmp_path) -> Path:
    path = tmp_path / "servers.yaml"
    path.write_text(CONFIG)
    return path


class Cycles:
    """Stands in for `running`: counts how often servers were started, and serves from a fake engine."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine, self.started = engine, 0

    @contextmanager
    def running(self, system, engine, classes, folder, **_):
        self.started += 1
        with listening(self.engine.application()) as url:
            self.server = Server(url)
            yield Fleet(system, url, self.engine.model, (self.server,), None, 0.1)


class Server:
    """A process that is alive."""

    def __init__(self, url: str) -> None:
        self.url = url

    def check_alive(self) -> None:
        if self.url is None:
            raise ServerError("dead")


@pytest.fixture
def cycles(monkeypatch) -> Cycles:
    cycles = Cycles(FakeEngine())
    monkeypatch.setattr(server_sweep, "running", cycles.running)
    return cycles


def cycle(config, system="vllm-fcfs", devices=None):
    experiment = load_server_experiment(config)
    folder = config.parent / "raw"
    return plan_run_cycle(
        experiment, experiment.form("short"), system, 0, experiment.trace, "emulated", folder, devices
    )


def test_one_server_life_serves_all_loads_and_leaves_a_file_for_each(config, cycles):
    own = cycle(config)
    rows = measure_run_cycle(own, QUIET)
    assert cycles.started == 1
    assert sorted(p.name for p in own.folder.iterdir()) == ["requests-20qps.parquet", "requests-40qps.parquet"]
    all_rows = [row for row in rows if row["group"] == "all"]
    assert [(row["load_qps"], row["requests"], row["backend"]) for row in all_rows] == [
        (20.0, 4, "emulated"),
        (40.0, 8, "emulated"),
    ]
    for row in all_rows:
        assert row["predictor"] == "none" and row["preemptions"] is None and row["iterations"] >= 0
        assert 0 <= row["violation_rate"] <= 1 and row["lag_p99_s"] < 0.5
    assert {"Q1", "Q2"} <= {row["group"] for row in rows}


def test_a_run_that_outlived_a_server_is_no_measurement(config, cycles, monkeypatch):
    """The router may have had another replica do the dead one's work."""
    whole = server_sweep.measure

    def kills(client, requests):
        measured = whole(client, requests)
        cycles.server.url = None
        return measured

    monkeypatch.setattr(server_sweep, "measure", kills)
    own = cycle(config)
    with pytest.raises(ServerError, match="dead"):
        measure_run_cycle(own, QUIET)
    assert not own.path(own.specs[0]).exists()


def test_a_second_run_measures_only_what_is_missing(config, cycles):
    own = cycle(config)
    first = measure_run_cycle(own, QUIET)
    assert measure_run_cycle(own, QUIET) == first and cycles.started == 1  # all there: no server is started
    kept = own.path(own.specs[0])
    before = kept.read_bytes()
    own.path(own.specs[1]).unlink()
    measure_run_cycle(own, QUIET)
    assert cycles.started == 2 and kept.read_bytes() == before


def test_a_file_of_another_run_is_measured_again(config, cycles):
    own = cycle(config)
    measure_run_cycle(own, QUIET)
    config.write_text(CONFIG.replace("ttft_s: 2.0", "ttft_s: 3.0"))
    assert not cycle(config).done(cycle(config).specs[0])
    config.write_text(CONFIG.replace("name: Q1", "name: chat"))
    assert not cycle(config).done(cycle(config).specs[0])
    table = read_table(own.path(own.specs[0]))
    write_table(own.path(own.specs[0]), table, **{**provenance(table), "vllm": "vllm 0.1"})
    assert not own.done(own.specs[0]) and own.done(own.specs[1])


def test_a_failed_load_leaves_no_file_and_keeps_the_finished_one(config, cycles):
    own = cycle(config)
    measure = server_sweep.measure

    def failing(client, requests):
        cycles.engine.fault = "http" if len(requests) == 8 else None
        return measure(client, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_sweep, "measure", failing)
        with pytest.raises(RunFailed, match="8 of 8 requests failed"):
            measure_run_cycle(own, QUIET)
    assert [own.done(spec) for spec in own.specs] == [True, False]
    assert not own.path(own.specs[1]).exists()


def lagging_by(lags_s, measure):
    """`measure` by a client that is late by each of these in turn."""
    lags = iter(lags_s)

    def late(client, requests):
        measured, lag_s = measure(client, requests), next(lags)
        measured = replace(measured, sent_s=requests.arrival_s + lag_s)
        if lag_s > client.max_lag_p99_s:
            raise ClientLagged("late", measured)
        return measured

    return late


def test_a_lagging_client_gets_another_attempt_and_a_busy_machine_is_written_down(config, cycles, monkeypatch):
    """The limit is 500 ms; the second load is never sent in time, and its least late attempt is what counts."""
    own, said = cycle(config), []
    monkeypatch.setattr(server_sweep, "measure", lagging_by([0.9, 0.01, 0.7, 0.8], server_sweep.measure))
    rows = [row for row in measure_run_cycle(own, said.append) if row["group"] == "all"]
    assert any("attempt 1 of 2: late" in text for text in said)
    assert [(row["attempts"], row["busy"]) for row in rows] == [(2, False), (2, True)]
    assert [row["lag_p99_s"] for row in rows] == pytest.approx([0.01, 0.7])
    assert measure_run_cycle(own, QUIET) and cycles.started == 1, "a busy point is a measured one"


def run_command(tmp_path, config, command, *options, **files):
    described = tmp_path / "trace.json"
    main(["trace", "azure-code-2023-synth", "--out", str(described)])
    common = ["--config", str(config), "--form", "short", "--described", str(described), "--backend", "emulated"]
    return main([command, *common, *options, *(part for k, v in files.items() for part in (f"--{k}", str(v)))])


def test_a_busy_machine_is_no_failure_and_a_failed_life_is_in_the_table(config, cycles, tmp_path, monkeypatch):
    """vllm-fcfs is measured while busy, niyama fails at its second load: one table."""
    measure, parts = server_sweep.measure, {name: tmp_path / f"{name}.parquet" for name in ("vllm-fcfs", "niyama")}

    def sweep(system):
        files = {"folder": tmp_path / system, "out": parts[system]}
        return run_command(tmp_path, config, "server-sweep", "--system", system, "--note-failure", **files)

    monkeypatch.setattr(server_sweep, "measure", lagging_by([0.01, 0.7, 0.8], measure))
    assert sweep("vllm-fcfs") == 0

    def failing(client, requests):
        cycles.engine.fault = "http" if len(requests) == 8 else None
        return measure(client, requests)

    monkeypatch.setattr(server_sweep, "measure", failing)
    assert sweep("niyama") == 0
    assert run_command(tmp_path, config, "server-simulated", out=tmp_path / "sim.parquet") == 0
    everything = [str(path) for path in (*parts.values(), tmp_path / "sim.parquet")]
    joined = tmp_path / "tables" / "servers.parquet"
    assert main(["server-table", *everything, "--out", str(joined)]) == 0
    table = read_table(joined)
    rows = [r for r in table.to_pylist() if r["group"] == "all" and r["backend"] == "emulated"]
    assert [(r["system"], r["load_qps"], r["busy"]) for r in rows] == [
        ("vllm-fcfs", 20.0, False), ("vllm-fcfs", 40.0, True), ("niyama", 20.0, False),
    ]  # fmt: skip
    (failure,) = provenance(table)["failures"]
    assert failure["part"] == "niyama, seed 0" and "8 of 8 requests failed" in failure["reason"]


def test_niyamas_word_on_relegation_reaches_the_table(config, cycles):
    cycles.engine.served = {"class": "Q1", "relegated": True}
    rows = measure_run_cycle(cycle(config, "niyama"), QUIET)
    assert {row["relegated_share"] for row in rows} == {1.0}
    assert rows[0]["predictor"] == "a100-llama3-8b-linear (oracle)"
    cycles.engine.served = None
    for path in (config.parent / "raw").iterdir():
        path.unlink()
    assert {row["relegated_share"] for row in measure_run_cycle(cycle(config, "niyama"), QUIET)} == {None}


def test_the_silo_gets_twice_the_load_for_its_two_gpus(config):
    experiment = load_server_experiment(config)
    specs = server_specs(experiment, experiment.form("short"), build_server_system("silo", experiment.classes), 0, "t")
    assert [(spec.load_qps, spec.requests, spec.replicas) for spec in specs] == [(40.0, 8, (1, 1)), (80.0, 16, (1, 1))]


def test_commands_write_tables_with_provenance(config, cycles, tmp_path, capsys):
    described = tmp_path / "trace.json"
    assert main(["trace", "azure-code-2023-synth", "--out", str(described)]) == 0
    common = ["--config", str(config), "--form", "short", "--described", str(described)]
    for system in ("vllm-fcfs", "silo"):
        out = ["--folder", str(tmp_path / system), "--out", str(tmp_path / f"{system}.parquet")]
        assert main(["server-sweep", *common, "--system", system, "--backend", "emulated", *out]) == 0
    assert main(["server-simulated", *common, "--out", str(tmp_path / "sim.parquet")]) == 0
    parts = [str(tmp_path / f"{name}.parquet") for name in ("vllm-fcfs", "silo", "sim")]
    assert main(["server-table", *parts, "--out", str(tmp_path / "servers.parquet")]) == 0
    table = read_table(tmp_path / "servers.parquet")
    about = provenance(table)
    assert about["backend"] == "emulated" and about["form"] == "short" and "vllm" in about["vllm"]
    assert "Q1 TTFT 2 s (paper: 6 s)" in about["scaling"] and about["classes"][0]["name"] == "Q1"
    rows = table.to_pylist()
    assert {(row["backend"], row["system"]) for row in rows} == {
        ("emulated", "vllm-fcfs"), ("emulated", "silo"),
        ("sim-overlapped", "vllm-fcfs"), ("sim-overlapped", "silo"), ("sim-overlapped", "niyama"),
    }  # fmt: skip
    measured, simulated = (
        {(row["system"], row["load_qps"], row["requests"]) for row in rows if (row["backend"] == "emulated") is real}
        for real in (True, False)
    )
    assert measured <= simulated
    assert about["pools_in_turn"] is False and about["gpus"] == []
    assert about["latency_model"]["hardware"] == "A100-80GB SXM, TP1"


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("systems: [vllm-fcfs,", "systems: [vllm-fcsf,", "did you mean 'vllm-fcfs'"),
        ("loads_qps_per_gpu: [20, 40]", "loads_qps_per_gpu: [20, 20]", "is there 2 times; give it once"),
        ("loads_qps_per_gpu: [20, 40]", "loads_qps_per_gpu: [-1]", "greater than or equal to 0.0001"),
        ("loads_qps_per_gpu: [20, 40]", "loads_of_fluid_bound: [0.5, 0.5]", "is there 2 times; give it once"),
        ("loads_qps_per_gpu: [20, 40],", "", "0 of loads_qps_per_gpu and loads_of_fluid_bound are set"),
        ("seconds: 0.2", "loads_of_fluid_bound: [1], seconds: 0.2", "2 of loads_qps_per_gpu and loads_of"),
        ("seconds: 0.2", "seconds: .nan", "forms.short.seconds"),
        ("attempts: 2", "attempts: 0", "attempts is 0"),
        ("attempts: 2", "tries: 2", "tries is not a known field"),
        ("a100-llama3-8b-linear", "h100", "latency model 'h100' is unknown"),
        ("ttlt_s: 20.0", "ttlt_s: -20.0", "ttlt_s is -20"),
    ],
)
def test_a_bad_configuration_is_one_line(config, old, new, words):
    config.write_text(CONFIG.replace(old, new))
    with pytest.raises(ConfigError, match=words) as caught:
        load_server_experiment(config)
    assert "\n" not in str(caught.value)


def test_an_unknown_form_names_the_known_ones(config):
    with pytest.raises(ConfigError, match="form 'long' is unknown; use one of short"):
        load_server_experiment(config).form("long")


def test_without_vllm_the_servers_are_left_out_with_a_note(config, monkeypatch, caplog):
    experiment = load_server_experiment(config)
    monkeypatch.setattr("artifact.servers.config.find_spec", lambda name: None)
    assert servers_form("short", experiment) == "none" and "vLLM is not installed" in caplog.text
    caplog.clear()
    assert servers_form("none", experiment) == "none" and not caplog.records  # asked for: nothing to say
    with pytest.raises(ConfigError, match="form 'long' is unknown; use one of short, or none"):
        servers_form("long", experiment)
    monkeypatch.setattr("artifact.servers.config.find_spec", lambda name: object())
    assert servers_form("short", experiment) == "short"


def test_scaling_says_what_is_not_the_papers(config):
    text = scaling(load_server_experiment(config).classes)
    assert text == "Q1 TTFT 2 s (paper: 6 s), Q1 TBT 0.05 s, Q2 TTLT 20 s (paper: 600 s)"


def test_the_simulated_systems_are_the_servers_systems(config):
    experiment = load_server_experiment(config)
    silo = simulated_system("silo", experiment.classes, (1, 1), "A100")
    assert [(pool.policy.max_chunk_tokens, pool.classes) for pool in silo.pools] == [(256, ("Q1",)), (2048, ("Q2",))]
    for hardware, tokens in (("A100-80GB SXM, TP1", 2048), ("NVIDIA H100 80GB HBM3", 8192), ("NVIDIA L4", 2048)):
        stock = simulated_system("vllm-fcfs", experiment.classes, (1,), hardware).pools[0].policy
        assert stock.max_chunk_tokens == tokens, "vLLM's own default there"


def test_the_priority_twin_serves_urgent_classes_first(config):
    """Under overload the urgent class waits far less than under FCFS, and the rest longer."""
    experiment = load_server_experiment(config)
    waits = {}
    for name in ("vllm-fcfs", "vllm-priority"):
        spec = server_specs(experiment, experiment.form("short"), build_server_system(name, experiment.classes), 0, "t")
        done = run_simulated(spec[1].model_copy(update={"trace": experiment.trace, "requests": 200}))
        first = done.run.token_s[done.run.token_start[:-1]] - done.requests.arrival_s
        waits[name] = [float(np.median(first[done.requests.class_index == c])) for c in (0, 1)]
    assert waits["vllm-priority"][0] < 0.7 * waits["vllm-fcfs"][0]
    assert waits["vllm-priority"][1] > waits["vllm-fcfs"][1]


def test_a_twin_plans_ahead_as_the_servers_do_and_niyamas_leaves_time_for_delivery(config):
    """One request at a time: its tokens come when the model says, whatever the twin plans with."""
    experiment = load_server_experiment(config)
    for name in experiment.systems:
        system = build_server_system(name, experiment.classes)
        spec = server_specs(experiment, experiment.form("short"), system, 0, experiment.trace)[0]
        done = run_simulated(spec)
        assert done.backend == "sim-overlapped"
        assert [c.deadline_slo_s for c in done.requests.classes] == [2.0, 20.0], "judged by the promise itself"


@pytest.mark.parametrize("name", NIYAMA_SYSTEMS)
def test_the_twin_of_a_niyama_server_has_its_policy(config, name):
    (pool,) = simulated_system(name, load_server_experiment(config).classes, (1,), "A100").pools
    assert pool.policy == BUILT_IN[name]


def test_on_the_cpu_a_twin_plans_no_step_ahead_and_one_server_runs_at_a_time(config, tmp_path):
    """vLLM's engine is synchronous there, and all servers are on the same cores."""
    described, out, card = tmp_path / "trace.json", tmp_path / "sim.parquet", card_file(tmp_path)
    assert main(["trace", "azure-code-2023-synth", "--out", str(described)]) == 0
    line = ["server-simulated", "--config", str(config), "--form", "short", "--described", str(described)]
    for backend, wanted in (("cpu", "sim"), ("gpu", "sim-overlapped")):
        assert main([*line, "--latency", str(card), "--backend", backend, "--out", str(out)]) == 0
        table = read_table(out)
        assert {row["backend"] for row in table.to_pylist()} == {wanted} == {provenance(table)["backend"]}
    experiment = load_server_experiment(config)
    planned = partial(plan_run_cycle, experiment, experiment.form("short"), "silo", 0, experiment.trace)
    assert planned("cpu", tmp_path).in_turn and not planned("emulated", tmp_path).in_turn
    assert planned("cpu", tmp_path, devices=2).in_turn is False


@pytest.mark.parametrize(
    ("backend", "latency", "has"),
    [
        ("emulated", "a100-llama3-8b-linear", True),
        ("gpu", "a100-llama3-8b-linear", False),
        ("cpu", "a100-llama3-8b-linear", False),
        ("gpu", "results/gpu/card.json", True),
    ],
)
def test_only_a_latency_model_of_the_machine_can_be_simulated(backend, latency, has):
    assert can_be_simulated(backend, latency) is has


def card_file(tmp_path, name="own-gpu", times=1.0):
    """The roofline card as a file, `times` as slow."""
    card = load_card("a100-llama3-8b-roofline")
    path = tmp_path / f"{name}.json"
    slower = [c * times for c in card.coefficients]
    path.write_text(json.dumps({**asdict(card), "name": name, "coefficients": slower, "hardware": "Own GPU"}))
    return path


def test_loads_follow_the_gpu(config, tmp_path):
    config.write_text(CONFIG.replace("loads_qps_per_gpu: [20, 40]", "loads_of_fluid_bound: [0.5, 1.0]"))
    loads = {}
    for times in (1.0, 0.5):
        experiment = load_server_experiment(config, str(card_file(tmp_path, times=times)))
        system = build_server_system("silo", experiment.classes)
        specs = server_specs(experiment, experiment.form("short"), system, 0, experiment.trace)
        assert {spec.latency_name for spec in specs} == {"own-gpu"}
        loads[times] = [spec.load_qps for spec in specs]
    assert loads[1.0][1] == pytest.approx(2 * loads[1.0][0], rel=0.01)
    assert loads[0.5] == pytest.approx([2 * load for load in loads[1.0]], rel=0.01), "twice as fast, twice the load"


def test_on_a_gpu_twins_are_left_out_without_a_card_of_its_own(config, cycles, tmp_path, monkeypatch):
    monkeypatch.setattr("artifact.servers.run_cycle.gpu_names", lambda environment: ("Own GPU",))
    described = tmp_path / "trace.json"
    assert main(["trace", "azure-code-2023-synth", "--out", str(described)]) == 0
    common = ["--config", str(config), "--form", "short", "--described", str(described), "--backend", "gpu"]
    for part, latency in (("shipped", []), ("own", ["--latency", str(card_file(tmp_path))])):
        real, sim, out = (str(tmp_path / f"{part}-{kind}.parquet") for kind in ("real", "sim", "out"))
        folder = ["--folder", str(tmp_path / part)]
        assert main(["server-sweep", *common, *latency, "--system", "silo", *folder, "--out", real]) == 0
        assert main(["server-simulated", *common, *latency, "--out", sim]) == 0
        assert main(["server-table", real, sim, "--out", out]) == 0
        table = read_table(Path(out))
        about, backends = provenance(table), set(table["backend"].to_pylist())
        assert about["gpus"] == ["Own GPU"] and about["pools_in_turn"] is True
        assert backends == ({"gpu"} if part == "shipped" else {"gpu", "sim-overlapped"})
        assert set(table["latency"].to_pylist()) == {"own-gpu" if latency else "a100-llama3-8b-linear"}


def test_parts_of_different_gpus_are_not_joined(tmp_path, capsys):
    for gpu in ("H100", "H200"):
        about = {"backend": "gpu", "gpus": [gpu], "latency_model": {}, "pools_in_turn": False, "trace": {"trace": "t"}}
        write_table(tmp_path / f"{gpu}.parquet", [{"backend": "gpu"}], **about)
    parts = [str(tmp_path / f"{gpu}.parquet") for gpu in ("H100", "H200")]
    assert main(["server-table", *parts, "--out", str(tmp_path / "x.parquet")]) == 2
    assert 'gpus of the parts is ["H100"], ["H200"]' in capsys.readouterr().err


def requests_of(outputs, arrivals):
    n = len(outputs)
    whole = (np.zeros(n, np.int16), np.array(arrivals), np.full(n, 9, np.int32), np.array(outputs, np.int32))
    return Requests(PAPER_CLASSES, *whole, np.ones(n, bool))


def test_medians_are_those_of_both_clients(tmp_path):
    requests = requests_of([3, 2], [0.0, 1.0])
    token_s = np.array([0.5, 0.6, 0.8, 1.4, 1.5])
    measured = Measured(requests, seen_run(requests, token_s, None), np.array([0.1, 1.0]), np.full(2, 200), None)
    ours = our_medians(measured)
    assert ours.ttft_s == pytest.approx(0.4) and ours.itl_s == pytest.approx(0.1)  # no gap between two requests
    path = tmp_path / "bench.json"
    path.write_text(json.dumps({"errors": ["", ""], "ttfts": [0.4, 0.4], "itls": [[0.1, 0.2], [0.1]]}))
    assert bench_medians(path) == Medians(0.4, 0.1)
    assert compare(ours, Medians(0.4, 0.1))["agrees"] and not compare(ours, Medians(0.4, 0.103))["agrees"]
    path.write_text(json.dumps({"errors": ["", "refused"], "ttfts": [], "itls": []}))
    with pytest.raises(ServerError, match="1 requests failed, the first with 'refused'"):
        bench_medians(path)


def test_the_timed_trace_holds_the_workload(tmp_path):
    path = tmp_path / "t.jsonl"
    write_timed_trace(path, requests_of([3, 2], [0.0, 1.5]))
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    assert rows[1] == {"timestamp": 1.5, "input_length": 9, "output_length": 2, "hash_ids": [1]}
