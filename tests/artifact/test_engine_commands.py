"""`simulate --overlapped` and `--decision-log`, `replay` and `fidelity` as a user types them."""

import json
import sys
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest

from artifact.__main__ import main
from artifact.engine.fidelity import differences
from niyama import QoSClass
from niyama.sim import Requests, Run

POINT = ["--trace", "azure-code-2023-synth", "--requests", "120", "--system", "niyama", "--load", "5"]


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


@pytest.fixture
def log(capsys, tmp_path):
    path = tmp_path / "decisions.jsonl"
    assert run(capsys, "simulate", *POINT, "--decision-log", path)[0] == 0
    return path


def answer(capsys, *more):
    _, out, _ = run(capsys, "simulate", *POINT, "--json", *more)
    return {k: v for k, v in json.loads(out).items() if k not in ("kernel_s", "iterations_per_s", "requests_per_s")}


def test_overlapped_is_another_backend_with_later_tokens(capsys):
    plain, ahead = answer(capsys), answer(capsys, "--overlapped")
    assert (plain["backend"], ahead["backend"]) == ("sim", "sim-overlapped")
    assert ahead["classes"]["Q1"]["ttft_p50_s"] > plain["classes"]["Q1"]["ttft_p50_s"]


@pytest.mark.parametrize("more", [[], ["--overlapped"], ["--noise", "0.2", "--seed", "3"]])
def test_a_decision_log_changes_no_result(capsys, tmp_path, more):
    path = tmp_path / "decisions.jsonl"
    assert answer(capsys, *more) == answer(capsys, "--decision-log", str(path), *more)
    status, out, _ = run(capsys, "replay", path, "--json")
    found = json.loads(out)
    assert status == 0 and found["agrees"] and found["steps"] > 0
    assert found["divergence"] is None and found["cut_short"] is None


def test_raw_tables_come_with_a_decision_log_too(capsys, tmp_path):
    for folder, more in (("a", []), ("b", ["--decision-log", tmp_path / "log"])):
        run(capsys, "simulate", *POINT, "--out", tmp_path / folder, *more)
    for name in ("requests.parquet", "iterations.parquet"):
        assert pq.read_table(tmp_path / "a" / name) == pq.read_table(tmp_path / "b" / name)


def test_replay_says_where_it_diverges(capsys, log):
    lines = log.read_text().splitlines(keepends=True)
    lines[40] = lines[40].replace('"preemptions":0', '"preemptions":3')
    log.write_text("".join(lines))
    status, out, _ = run(capsys, "replay", log)
    assert status == 1 and "diverges at line 41, " in out and "preemptions is 3 in the log, 0 replayed" in out
    status, out, _ = run(capsys, "replay", log, "--json")
    assert status == 1 and json.loads(out)["agrees"] is False


def test_replay_says_that_a_log_is_cut_short_or_none(capsys, log, tmp_path):
    text = log.read_text()
    log.write_text(text[: len(text) // 2])
    status, out, _ = run(capsys, "replay", log)
    assert status == 0 and "decided alike, but the log is cut short: line " in out
    log.write_text("a,b\n1,2\n")
    for path, words in ((log, "line 1 is not JSON"), (tmp_path / "nothing", "cannot be read")):
        status, out, err = run(capsys, "replay", path)
        assert status == 2 and out == "" and words in err and err.startswith("error: ") and "Traceback" not in err


def test_a_log_of_an_own_policy_is_replayed_with_its_file(capsys, tmp_path):
    file, log = tmp_path / "mine.py", tmp_path / "log"
    file.write_text(
        "from niyama import Policy\nfrom niyama.rules import rank_rule\n\n"
        "@rank_rule\ndef longest_first(job, alpha):\n    return -float(job.prefill_left)\n\n"
        "mine = Policy('mine', rank=longest_first)\n"
    )
    mine = f"{file}:mine"
    assert run(capsys, "simulate", *POINT, "--system", mine, "--decision-log", log)[0] == 0
    status, _, err = run(capsys, "replay", log)
    assert status == 2 and "name them with --system FILE.py:NAME" in err
    assert run(capsys, "replay", log, "--system", mine)[0] == 0
    status, _, err = run(capsys, "replay", log, "--system", "sarathi-silo")
    assert status == 2 and "3 pools" in err


def test_a_log_never_runs_the_file_that_it_names(capsys, tmp_path, log, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "helper.py").write_text("from pathlib import Path\nPath('ran').write_text('')\nx = None\n")
    log.write_text(log.read_text().replace('"rules_of":"niyama"', '"rules_of":"helper.py:x"', 1))
    assert "helper.py:x" in log.read_text()
    status, _, err = run(capsys, "replay", log)
    assert status == 2 and "name them with --system FILE.py:NAME" in err and not (tmp_path / "ran").exists()


def test_a_decision_log_is_of_one_replica(capsys, tmp_path):
    status, _, err = run(capsys, "simulate", *POINT, "--replicas", 2, "--decision-log", tmp_path / "log")
    assert status == 2 and "has 2 replicas" in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--loads", "0.7,high"], ["--loads is '0.7,high'", "0.7,1.0,1.3"]),
        (["--loads", "0"], ["--loads is '0'"]),
        (["--slos", "strict"], ["slos is 'strict'", "paper, tight"]),
        (["--system", "sarathi-silo"], ["system is 'sarathi-silo'", "niyama"]),
        (["--capacity", "-1"], ["--capacity is -1.0"]),
        (["--trace", "mooncake-conv"], ["no reference capacity of niyama on mooncake-conv", "--capacity QPS"]),
        (["--requests", "0"], ["requests is 0"]),
        (["--loads", "0.7,0.70"], ["loads: 0.7 is there 2 times; give it once"]),
        (["--trace", "azure-code-2023,azure-code-2023"], ["trace: 'azure-code-2023' is there 2 times"]),
        (["--slos", "paper,paper"], ["slos: 'paper' is there 2 times"]),
        (["--latency", "a,a"], ["latency: 'a' is there 2 times"]),
    ],
)
def test_a_mistake_is_one_line(capsys, arguments, words):
    status, out, err = run(capsys, "fidelity", *arguments)
    assert status == 2 and out == ""
    for word in words:
        assert word in err


def test_fidelity_without_vllm_says_how_to_get_it(capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "niyama.vllm.emulated.virtual", None)  # as if it could not be imported
    arguments = ["--trace", "azure-code-2023-synth", "--capacity", 5, "--loads", 1, "--requests", 5]
    status, _, err = run(capsys, "fidelity", *arguments, "--scheduler", "sync")
    assert status == 2 and "fidelity needs vLLM" in err and "make setup ENGINE=cpu" in err


def test_differences_worked_by_hand():
    """Two classes of two requests; one chat's first token is 10 % late and misses its deadline by it."""
    requests = Requests(
        (QoSClass("chat", ttft_s=1.05, tbt_s=5.0), QoSClass("job", ttlt_s=9.0)),
        np.array([0, 0, 1, 1]),
        np.zeros(4),
        np.full(4, 10),
        np.array([2, 2, 1, 1]),
        np.ones(4, bool),
    )
    zeros, start = np.zeros(4, np.int32), np.array([0, 2, 4, 5, 6])
    token_s = np.array([1.0, 2.0, 1.0, 2.0, 5.0, 5.0])
    vllm = Run(zeros, np.zeros(4), start, token_s, zeros, zeros > 0, zeros, 7, 0, np.zeros((0, 11)))
    same = differences(requests, vllm, vllm)
    assert same["identical"] and same["passes"] and same["token_time_difference"] == 0.0
    late = replace(vllm, token_s=np.array([1.1, 2.0, 1.1, 2.0, 5.0, 5.0]), relegations=zeros + 1)
    row = differences(requests, late, vllm)
    assert row["violation_rate_sim"] == [1.0, 0.0] and row["violation_rate_vllm"] == [0.0, 0.0]
    assert row["violation_difference_points"] == 100.0
    assert row["ttft_p50_sim_s"] == [1.1, 5.0] and row["ttlt_p95_vllm_s"] == [2.0, 5.0]
    assert row["ttft_difference"] == pytest.approx(0.1) and row["ttlt_difference"] == 0.0
    assert row["token_time_difference"] == pytest.approx(0.1)
    assert (row["relegated_sim"], row["relegated_vllm"]) == (4, 0)
    assert not row["identical"] and not row["passes"]
    assert not differences(requests, replace(vllm, iterations=8), vllm)["identical"]
