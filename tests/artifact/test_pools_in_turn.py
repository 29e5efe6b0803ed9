"""Fewer devices than servers: a system's pools one after the other, joined into the run that they are parts of."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from artifact.config import ConfigError
from artifact.results.tables import provenance, read_table
from artifact.servers import run_cycle as server_life
from artifact.servers import sweep as server_sweep
from artifact.servers.config import load_server_experiment
from artifact.servers.measured import Measured, seen_run
from artifact.servers.measured_files import read_measured
from artifact.servers.run_cycle import plan_run_cycle
from artifact.servers.split_run import join_parts, part_of
from artifact.servers.sweep import measure_run_cycle, summary_rows
from niyama import PAPER_CLASSES
from niyama.sim import Requests
from tests.artifact.test_server_sweep import CONFIG, QUIET, Cycles, cycle
from tests.helpers.fake_engine import FakeEngine

pytestmark = pytest.mark.usefixtures("at_once")


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "servers.yaml"
    path.write_text(CONFIG)
    return path


@pytest.fixture
def cycles(monkeypatch):
    cycles = Cycles(FakeEngine())
    monkeypatch.setattr(server_sweep, "running", cycles.running)
    return cycles


def classes_of(bodies):
    return [body["vllm_xargs"]["niyama_class"] for body in bodies if "niyama_app" not in body["vllm_xargs"]]


def test_pools_take_turns_and_each_sees_only_its_own_classes(config, cycles):
    own = cycle(config, "silo", devices=1)
    assert own.in_turn
    rows = measure_run_cycle(own, QUIET)
    assert cycles.started == 2, "a start for each pool"
    seen = classes_of(cycles.engine.seen)
    assert seen == sorted(seen) and set(seen) == {"Q1", "Q2"}, "first the interactive pool, then the other"
    side_by_side = cycle(config, "silo")
    for spec in own.specs:
        whole, about = read_measured(own.path(spec), [c.qos() for c in spec.classes])
        workload = server_sweep._requests(side_by_side, spec)
        for name in ("arrival_s", "prompt_tokens", "output_tokens", "class_index"):
            assert np.array_equal(getattr(whole.requests, name), getattr(workload, name)), name
        assert len(whole.run.token_s) == whole.requests.output_tokens.sum()
        assert about["pools_in_turn"] is True and about["pools"] == ["interactive", "batch"]
    counted = {(row["group"], row["load_qps"]): row["requests"] for row in rows}
    assert counted["all", 40.0] == 8 and {row["replicas"] for row in rows} == {2}


def test_what_was_measured_of_a_pool_stays_when_the_next_one_fails(config, cycles):
    own = cycle(config, "silo", devices=1)
    measure = server_sweep.measure

    def failing(client, requests):
        cycles.engine.fault = "http" if set(requests.class_index) == {1} else None
        return measure(client, requests)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(server_sweep, "measure", failing)
        with pytest.raises(server_sweep.RunFailed):
            measure_run_cycle(own, QUIET)
    interactive, _ = own.pools
    assert [interactive.done(spec) for spec in own.specs] == [True, True] and not any(map(own.done, own.specs))
    cycles.engine.fault, cycles.started = None, 0
    cycles.engine.seen.clear()
    measure_run_cycle(own, QUIET)
    assert cycles.started == 1 and set(classes_of(cycles.engine.seen)) == {"Q2"}
    own.path(own.specs[0]).unlink()
    again = measure_run_cycle(own, QUIET)
    assert cycles.started == 1, "the parts are there: nothing is measured to join them"
    assert again == measure_run_cycle(own, QUIET)


def test_a_file_measured_in_turn_is_not_one_measured_side_by_side(config, cycles):
    own = cycle(config, "silo", devices=1)
    measure_run_cycle(own, QUIET)
    assert all(map(own.done, own.specs))
    assert not any(map(cycle(config, "silo").done, own.specs)) and all(map(cycle(config, "silo", 1).done, own.specs))


def test_a_pool_without_a_request_at_a_load_is_not_started_for_it(config, cycles):
    config.write_text(CONFIG.replace("[20, 40], seconds: 0.2", "[20], seconds: 0.02"))
    own = cycle(config, "silo", devices=1)
    (spec,) = own.specs
    present = set(server_sweep._requests(cycle(config, "silo"), spec).class_index)
    assert len(present) == 1, "a single request"
    measure_run_cycle(own, QUIET)
    assert cycles.started == 1 and own.done(spec)
    assert {row["group"] for row in summary_rows(own, spec)} >= {"all"}


def test_a_system_that_fits_is_not_taken_apart(config, cycles):
    assert not cycle(config, "niyama", devices=1).in_turn and not cycle(config, "silo", devices=2).in_turn
    own = cycle(config, "niyama", devices=1)
    measure_run_cycle(own, QUIET)
    assert cycles.started == 1 and provenance(read_table(own.path(own.specs[0])))["pools_in_turn"] is False


def test_a_pool_larger_than_the_machine_is_refused(config):
    own = cycle(config, "silo")
    pools = tuple(replace(pool, replicas=2) for pool in own.system.pools)
    with pytest.raises(
        ConfigError, match=r"pool 'interactive' has 2 server\(s\), and no more than 1 may run at a time"
    ):
        replace(own, system=replace(own.system, pools=pools), devices=1)


def test_on_gpus_their_number_decides(config, monkeypatch):
    experiment = load_server_experiment(config)
    arguments = (experiment, experiment.form("short"), "silo", 0, experiment.trace)
    monkeypatch.setattr(server_life, "gpu_names", lambda environment: ("NVIDIA H100",))
    one = plan_run_cycle(*arguments, "gpu", config.parent)
    assert one.in_turn and one.gpus == ("NVIDIA H100",) and one.about(one.specs[0])["gpus"] == ["NVIDIA H100"]
    assert not plan_run_cycle(*arguments, "emulated", config.parent).in_turn
    monkeypatch.setattr(server_life, "gpu_names", lambda environment: ("NVIDIA H100",) * 2)
    assert not plan_run_cycle(*arguments, "gpu", config.parent).in_turn
    assert not one.done(one.specs[0])


def run_of(requests, start_s):
    """Token k of each request `start_s` + k ms after its arrival."""
    tokens = [a + start_s + np.arange(n) / 1e3 for a, n in zip(requests.arrival_s, requests.output_tokens, strict=True)]
    n = len(requests)
    return Measured(requests, seen_run(requests, np.concatenate(tokens), None), requests.arrival_s + start_s / 2,
                    np.full(n, 200, np.int32), None)  # fmt: skip


def test_joined_parts_are_the_run_in_the_requests_own_order():
    n = 7
    requests = Requests(
        PAPER_CLASSES, np.arange(n, dtype=np.int16) % 3, np.arange(n) / 10, np.full(n, 5, np.int32),
        np.arange(1, n + 1, dtype=np.int32), np.arange(n) % 2 == 0,
    )  # fmt: skip
    rows = [np.flatnonzero(requests.class_index == 0), np.flatnonzero(requests.class_index != 0)]
    parts = [
        (where, run_of(part_of(requests, where), start_s)) for where, start_s in zip(rows, (1.0, 2.0), strict=True)
    ]
    joined = join_parts(requests, parts)
    for i in range(n):
        start_s = 1.0 if i % 3 == 0 else 2.0
        own = joined.run.token_s[joined.run.token_start[i] : joined.run.token_start[i + 1]]
        assert own == pytest.approx(i / 10 + start_s + np.arange(i + 1) / 1e3)
        assert joined.sent_s[i] == pytest.approx(i / 10 + start_s / 2)
    assert joined.relegated is None
    with pytest.raises(ValueError, match="7 requests are in the parts of a run of 7; each must be in one"):
        join_parts(requests, [parts[1], (parts[1][0][:3], run_of(part_of(requests, parts[1][0][:3]), 0.0))])
