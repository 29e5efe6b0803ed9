"""The benchmark: it says everything it promises, in numbers that make sense, and leaves no trace in the state."""

import json
import math
import sys
from copy import copy
from pathlib import Path

import numpy as np
import pytest

from benchmarks import Snapshot, bench, decision_state, decisions, dynosim, print_bench, startup
from niyama import BUILT_IN
from niyama.plan import plan

WANTED = {
    "machine": {"cpu", "cores", "load_average", "python", "numba", "numpy"},
    "start_up": {"import_numba_s", "import_niyama_s", "compile_cold_s", "compile_warm_s"},
    "simulator": {
        "requests_per_s",
        "requests_per_s_median",
        "iterations_per_s",
        "kernel_s",
        "set_up_s",
        "end_to_end_s",
    },
    "decision": {"decision_us_median", "decision_us_p99", "decision_and_commit_us_median"}
    | {"decision_from_python_us_median", "commit_decode_from_python_us_median", "queued"},
}


@pytest.fixture(scope="module")
def found():
    """All of it but the first runs of new processes, which compile the kernel: the last test has those."""
    loads_qps = {"azure-code-2023-synth": 3.0}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(startup, "_first_run", lambda folder: np.array([0.5, 1.0, 2.0]))
        return bench(
            requests=30, repeats=1, dynosim="off", loads_qps=loads_qps, queued=(10, 1_000), waiting=None, http=0
        )


def test_everything_is_there_and_is_json(found):
    again = json.loads(json.dumps(found))
    for part, keys in WANTED.items():
        for row in again[part] if isinstance(again[part], list) else [again[part]]:
            assert keys <= set(row)
    assert {(r["system"], r["latency"]) for r in found["simulator"]} == {
        (s, f"a100-llama3-8b-{m}") for s in ("niyama", "sarathi-fcfs") for m in ("linear", "roofline")
    }
    assert {(r["system"], r["queued"]) for r in found["decision"]} == {
        (s, n) for s in ("niyama", "sarathi-fcfs") for n in (10, 1_000)
    }


def test_start_up_is_import_and_first_simulation(found):
    wanted = {"import_numba_s": 0.5, "import_niyama_s": 1.0, "compile_cold_s": 3.0, "compile_warm_s": 3.0}
    assert found["start_up"] == wanted


def test_times_and_rates_are_finite_and_positive(found):
    rows = [found["start_up"], *found["simulator"], *found["decision"]]
    for row in rows:
        for name, value in row.items():
            if name.endswith(("_s", "_us_median", "_us_p99", "_s_median")) and value is not None:
                # a difference of two medians may fall below zero in the noise
                assert math.isfinite(value) and (value > 0 or name.startswith("call_from")), name


def test_decisions_plan_something_and_restore_the_state(found):
    for row in found["decision"]:
        assert row["planned"] >= 1 and row["state_restored"]
        assert (row["relegated"] > 0) or row["situation"] != "mass-relegation"
        assert row["relegated"] == 0 or row["situation"] != "after-relegation"


@pytest.mark.parametrize("system", ["niyama", "sarathi-fcfs"])
def test_a_decision_state_is_what_it_says(system):
    kernel = decision_state(BUILT_IN[system], 100)
    state = kernel.state
    assert (state.totals["queued"], state.totals["running"]) == (100, 64)
    kept = Snapshot(state, kernel.table)
    totals = copy(state.totals)
    assert kept.same()
    plan(kernel, 0.0)
    assert state.totals["planned"] > 0 and not kept.same()
    kept.restore()
    assert kept.same() and state.totals == totals
    assert kernel.params == BUILT_IN[system].params()


def test_more_queued_requests_relegate_at_least_as_many():
    few, many = ({r["situation"]: r for r in decisions(BUILT_IN["niyama"], n, 1)} for n in (10, 200))
    assert few["mass-relegation"]["relegated"] <= many["mass-relegation"]["relegated"] <= 200


def test_dynosim_is_skipped_with_a_reason(found, tmp_path, monkeypatch):
    assert found["dynosim"]["skipped"] == "switched off" and found["dynosim"]["pairs"] == []
    with pytest.raises(dynosim.PeerUnavailable, match="does not import"):
        dynosim.find_peer(str(tmp_path / "no-python"), tmp_path)
    monkeypatch.setattr(dynosim, "_install", lambda python: None)
    with pytest.raises(dynosim.PeerUnavailable) as reason:
        dynosim.find_peer("auto", tmp_path)
    assert str(tmp_path) not in str(reason.value)


def test_a_driver_that_dies_is_a_reason(tmp_path):
    broken = tmp_path / "python"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    with pytest.raises(dynosim.PeerUnavailable, match="stopped"):
        dynosim.Peer(broken)


def test_a_driver_without_dynosim_says_what_is_wrong():
    with pytest.raises(dynosim.PeerUnavailable, match="refused"):
        dynosim.Peer(Path(sys.executable))


def test_it_can_be_read(found, capsys):
    print_bench(found)
    text = " ".join(capsys.readouterr().out.split())
    for wanted in ("switched off", "1,000", "load average", "left out"):
        assert wanted in text


@pytest.mark.parametrize("field", ["requests", "repeats"])
def test_nothing_to_measure_is_refused(field):
    with pytest.raises(ValueError, match=field):
        bench(**{field: 0})


@pytest.mark.nightly("benchmarks", "scheduler/niyama/jit")
def test_a_first_run_compiles_and_the_next_one_need_not():
    found = startup.start_up(1)
    assert all(math.isfinite(seconds) and seconds > 0 for seconds in found.values())
    assert found["compile_warm_s"] < found["compile_cold_s"]
