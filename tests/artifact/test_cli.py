"""The daily commands as a user types them: their JSON, and one clear line for every mistake."""

import json

import pyarrow.parquet as pq
import pytest

from artifact.__main__ import main
from artifact.commands.bounds import BOUNDS
from artifact.commands.table import parser
from artifact.runs import unread
from artifact.runs.options import NUMBERS
from artifact.runs.spec import ClassSpec, RunSpec
from figures.groups import NOT_CLASSES
from niyama import Policy
from niyama.sim import shared

SHORT_WAVE = '{"kind": "square", "low_qps": 1, "high_qps": 5, "dwell_s": 5e-324}'
POINT = ["--trace", "azure-code-2023-synth", "--requests", "400"]


def run(capsys, *arguments):
    status = main([str(a) for a in arguments])
    return status, *capsys.readouterr()


def test_simulate_json_has_the_nouns(capsys):
    status, out, _ = run(capsys, "simulate", *POINT, "--system", "niyama", "--load", 3.5, "--json")
    answer = json.loads(out)
    assert status == 0
    assert answer["backend"] == "sim" and answer["latency"] == "a100-llama3-8b-linear"
    assert answer["predictor"] == "a100-llama3-8b-linear (oracle)"
    assert answer["trace"] == "azure-code-2023-synth" and answer["requests"] == 400
    assert set(answer["classes"]) == {"Q1", "Q2", "Q3"}
    for group in (answer, *answer["classes"].values()):
        assert 0 <= group["violation_rate"] <= 1
        assert group["ttft_p50_s"] <= group["ttft_p99_s"] and group["max_gap_p99_s"] >= 0
    for key in ("backlog_slope_qps", "drain_s", "iterations_per_s", "requests_per_s", "relegated_share", "seed"):
        assert key in answer


def test_simulate_is_the_same_for_the_same_seed(capsys):
    def answer(seed):
        _, out, _ = run(capsys, "simulate", *POINT, "--system", "niyama", "--load", 5, "--seed", seed, "--json")
        timed = {"kernel_s", "iterations_per_s", "requests_per_s"}
        return {k: v for k, v in json.loads(out).items() if k not in timed}

    assert answer(1) == answer(1) != answer(2)


def test_simulate_for_people_names_backend_and_models(capsys):
    status, out, _ = run(capsys, "simulate", *POINT, "--system", "sarathi-silo", "--load", 3, "--replicas", "2,1,1")
    assert status == 0 and "backend sim, latency a100-llama3-8b-linear" in out and "Q3" in out


def test_simulate_writes_raw_tables(capsys, tmp_path):
    run(capsys, "simulate", *POINT, "--system", "niyama", "--load", 3, "--out", tmp_path)
    requests = pq.read_table(tmp_path / "requests.parquet").to_pylist()
    assert len(requests) == 400
    for row in requests:
        assert len(row["token_times_s"]) == row["output_tokens"]
        assert row["arrival_s"] <= row["first_scheduled_s"] < row["token_times_s"][0]
    iterations = pq.read_table(tmp_path / "iterations.parquet")
    assert sum(iterations["prefill_tokens"].to_pylist()) == sum(r["prompt_tokens"] for r in requests)


def test_capacity_json(capsys):
    arguments = ["--system", "sarathi-fcfs", "--seeds", 2, "--step", 0.25, "--json"]
    status, out, _ = run(capsys, "capacity", "--trace", "azure-code-2023-synth", "--requests", 1500, *arguments)
    answer = json.loads(out)
    assert status == 0 and answer["passes_qps"] <= answer["capacity_qps"] <= answer["fails_qps"]
    assert answer["interval_low_qps"] <= answer["capacity_qps"] <= answer["interval_high_qps"]
    assert answer["capacity_without_tbt_qps"] >= answer["capacity_qps"]


def test_capacity_is_null_when_no_crossing_is_seen(capsys):
    """Two requests never violate anything, whatever the load."""
    arguments = ["--system", "niyama", "--requests", 2, "--seeds", 1, "--step", 1, "--json"]
    status, out, _ = run(capsys, "capacity", "--trace", "azure-conv-2023-synth", *arguments)
    answer = json.loads(out)
    assert status == 0 and answer["capacity_qps"] is None and answer["fails_qps"] is None


def test_a_policy_from_a_file(capsys, tmp_path):
    path = tmp_path / "mine.py"
    path.write_text(
        "from niyama import Policy\nfrom niyama.rules import rank_rule\n\n"
        "@rank_rule\ndef longest_first(job, alpha):\n    return -float(job.prefill_left)\n\n"
        "mine = Policy('mine', rank=longest_first)\n"
    )
    status, out, _ = run(capsys, "simulate", *POINT, "--system", f"{path}:mine", "--load", 3, "--json")
    assert status == 0 and json.loads(out)["system"].endswith(":mine")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--system", "nyiama", "--load", 3], ["system 'nyiama' is unknown", "did you mean 'niyama'"]),
        (["--system", "niyama", "--load", -1], ["load_qps is -1.0", "greater than or equal to 0.0001"]),
        (["--system", "niyama", "--load", "1e-15"], ["load_qps is 1e-15", "greater than or equal to 0.0001"]),
        (["--system", "niyama", "--load", "5e-324"], ["load_qps is 5e-324"]),
        (
            ["--system", "niyama", "--load", 3, "--arrivals", SHORT_WAVE],
            ["dwell_s = 5e-324", "greater than or equal to"],
        ),
        (
            ["--system", "niyama", "--load", 3, "--noise-bursts", 0.5],
            ["noise_bursts is 0.5", "noise is 0", "give noise"],
        ),
        (
            ["--system", "polyserve", "--load", 3, "--routing", "least-work"],
            ["routing is 'least-work'", "leave it out"],
        ),
        (["--system", "niyama", "--load", 3, "--policy", '{"margin": "1e0"}'], ["margin is text; write 1.0e+0"]),
        (["--system", "niyama", "--load", 3, "--arrivals", '{"kind": "gamma", "cv": "3"}'], ["cv is text; write 3"]),
        (["--system", "niyama", "--load", "nan"], ["load_qps is nan", "finite"]),
        (["--system", "niyama", "--load", 3, "--seed", -1], ["seed is -1"]),
        (["--system", "niyama", "--load", 3, "--latency", "h100"], ["latency model 'h100' is unknown"]),
        (["--system", "niyama", "--load", 3, "--noise", "-1"], ["noise is -1.0"]),
        (["--system", "niyama", "--load", 3, "--replicas", "2,2"], ["replicas is (2, 2)", "1 pool"]),
        (["--system", "niyama", "--load", 3, "--replicas", "two"], ["--replicas is 'two'"]),
        (["--system", "niyama", "--load", 3, "--routing", "random"], ["routing is 'random'", "least-work"]),
        (["--system", "nothere.py:x", "--load", 3], ["no file 'nothere.py'"]),
        (["--system", "niyama", "--load", 3, "--arrivals", "{kind"], ["not JSON"]),
        (["--system", "niyama", "--load", 3, "--policy", '{"margin": 0}'], ["margin is 0", "at least 1"]),
        (
            ["--system", "niyama", "--load", 3, "--policy", '{"alpha": 0}'],
            ["number 'alpha' is unknown", "alpha_low"],
        ),
        (["--system", "niyama", "--load", "1e308"], ["load_qps is 1e+308", "1000000"]),
        (["--system", "niyama", "--load", 3, "--noise", "1e308"], ["noise is 1e+308", "10"]),
        (["--system", "niyama", "--load", 3, "--requests", 99999999999], ["--requests is 99999999999", "100000000"]),
        (["--system", "niyama", "--load", 3, "--requests", 0], ["--requests is 0", "from 1"]),
        (["--system", "niyama", "--load", 3, "--seed", 10**30], ["--seed is 1000000"]),
        (["--system", "niyama", "--load", 3, "--replicas", 10**9], ["--replicas is '1000000000'", "10000"]),
        (["--system", "niyama", "--load", 3, "--policy", '{"max_running": 999999999999}'], ["max_running", "1000000"]),
        (["--system", "niyama", "--load", 3, "--policy", '{"alpha_high": 1e308}'], ["alpha_high is 1e+308", "1e+09"]),
        (["--system", "niyama", "--load", 3, "--arrivals", '{"kind": "gamma", "cv": 1e308}'], ["cv"]),
        (["--system", "niyama", "--load", 3, "--policy", '{"margin": 1, "margin": 2}'], ["'margin' 2 times"]),
        (["--system", "niyama", "--load", 3, "--policy", "[1]"], ["policy is [1]", "dictionary"]),
        (["--system", "niyama", "--load", 3, "--trace", "azure-cod"], ["azure-cod", "azure-code-2023"]),
    ],
)
def test_a_mistake_is_one_line_that_names_field_value_and_fix(capsys, arguments, words):
    status, out, err = run(capsys, "simulate", *POINT, *arguments)
    assert status == 2 and out == ""
    lines = [line for line in err.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in err
    for word in words:
        assert word in lines[0]


@pytest.mark.parametrize("option", [["--replicas", "2"], ["--routing", "round-robin"], ["--routing", "nonsense"]])
def test_a_system_from_a_file_has_its_own_replicas_and_routing(capsys, tmp_path, option):
    (file := tmp_path / "mine.py").write_text(
        "from niyama import load_policy\nfrom niyama.sim import Pool, System\n"
        "mine = System('mine', (Pool(load_policy('niyama'), 2),), 'least-work')\n"
    )
    status, out, err = run(capsys, "simulate", *POINT, "--system", f"{file}:mine", "--load", 3, *option)
    name = option[0].removeprefix("--")
    assert (status, out) == (2, "") and f"error: {name} is " in err and "has its own; leave it out" in err


@pytest.mark.parametrize(
    ("option", "changed"),
    [
        ({}, {}),
        ({"--noise": 0.5, "--stalls": 0.2}, {"noise": 0.5, "stalls": 0.2}),
        ({"--delivery-s": 1, "--policy": '{"margin": 2.0}'}, {"delivery_s": 1.0, "policy": {"margin": 2.0}}),
        ({"--low-importance-share": 0.1, "--requests": 3}, {"low_importance_share": 0.1}),
        ({"--replicas": "2", "--routing": "least-work"}, {"replicas": [2], "routing": "least-work"}),
    ],
)
@pytest.mark.parametrize("command", ["simulate", "capacity"])
def test_what_differs_from_the_defaults_is_said(capsys, command, option, changed):
    arguments = [command, "--trace", "azure-code-2023-synth", "--system", "niyama", "--requests", 2]
    arguments += ["--load", 3] if command == "simulate" else ["--seeds", 1, "--step", 10]
    arguments += [part for pair in option.items() for part in pair]
    assert json.loads(run(capsys, *arguments, "--json")[1])["changed"] == changed
    said = [line for line in run(capsys, *arguments)[1].splitlines() if line.startswith("changed: ")]
    assert len(said) == bool(changed) and all(name in said[0] for name in changed)


@pytest.mark.parametrize(
    ("system", "number", "told"),
    [
        ("sarathi-fcfs", "margin", True),
        ("sarathi-silo", "kv_low_tokens", True),
        ("niyama", "margin", False),
        ("niyama", "steady_tbts", True),
        ("niyama-steady", "steady_tbts", False),
        ("medha", "step_s", False),
        ("sarathi-fcfs", "longest_tbts", False),  # the plan reads it, whatever the rule
        ("polyserve", "margin", False),  # as does its router
    ],
)
def test_a_number_that_no_rule_reads_is_told(capfd, system, number, told):
    classes = (ClassSpec(name="a", share=1.0, ttft_s=6.0, tbt_s=0.05),)
    spec = RunSpec(
        trace="azure-code-2023", system=system, load_qps=1.0, requests=10, classes=classes, policy={number: 2}
    )
    unread.warn_of_unread(spec)
    warning = f"warning: policy has {number}, which no rule of {system!r} reads; it changes nothing\n"
    assert capfd.readouterr().err == warning * told


def test_a_users_rule_may_read_any_number():
    from niyama.rules import budget_rule

    @budget_rule
    def everything(model, batch, limits, prefix, slack_s):
        return limits[0]

    assert unread.unread(shared(Policy("mine", prefill_budget=everything)), ["margin"]) == []


@pytest.mark.parametrize(
    ("command", "option", "value"),
    [
        ("capacity", "--seeds", "0"),
        ("capacity", "--seeds", "99999999999"),
        ("capacity", "--step", "1e-300"),
        ("capacity", "--step", "inf"),
        ("fidelity", "--capacity", "nan"),
        ("fidelity", "--requests", "99999999999"),
        ("bench", "--requests", "0"),
        ("bench", "--repeats", "0"),
        ("bench", "--http", "-1"),
        ("overhead", "--repeats", "0"),
        ("load", "--max-lag-ms", "nan"),
        ("serve", "--port", "99999"),
        ("crosscheck", "--seed", "-1"),
    ],
)
def test_a_number_out_of_bounds_is_one_line_in_every_command(capsys, command, option, value):
    required = {
        "capacity": [*POINT[:2], "--system", "niyama"],
        "overhead": ["--out", "x"],
        "load": ["--url", "x", "--workload", "x"],
        "serve": ["--system", "niyama"],
    }
    status, out, err = run(capsys, command, *required.get(command, []), f"{option}={value}")
    assert (status, out) == (2, "") and len(err.splitlines()) == 1
    assert err.startswith(f"error: {option} is ") and "give a number from" in err


def test_every_number_that_an_option_takes_has_bounds():
    """Of each command; those of a run are checked as fields of RunSpec."""
    subparsers = next(a for a in parser()._actions if isinstance(a.choices, dict))
    numbers = {a.dest for p in subparsers.choices.values() for a in p._actions if a.type in (int, float)}
    assert numbers - set(BOUNDS) == {"load", *NUMBERS}


@pytest.mark.parametrize(
    ("yaml", "words"),
    [
        ("- {name: a, share: 1.0, ttft_s: -6, tbt_s: 0.05}", ["class 1: ttft_s is -6", "equal to 0.001"]),
        ("- {name: a, share: 1.0, ttlt_s: 1.0e-12}", ["class 1: ttlt_s is 1e-12", "equal to 0.001"]),
        ("- {name: a, share: 1.0, ttft_s: 1, tbt_s: 0.0009}", ["class 1: tbt_s is 0.0009", "equal to 0.001"]),
        ("- {name: a, share: 1.0, ttlt_s: .inf}", ["ttlt_s is inf", "finite"]),
        ("- {name: a, share: 1.0, ttlt_s: 1e-9}", ["ttlt_s is '1e-9'", "; write 1.0e-9, for YAML takes 1e-9 as text"]),
        ("- {name: a, share: 1.0, ttlt_s: 2.5e3}", ["ttlt_s is '2.5e3'", "; write 2.5e+3,"]),
        ("- {name: a, share: '1', ttlt_s: 6}", ["share is '1'", "; write 1 without quotes"]),
        ("- {name: a, share: 1.0, ttft_s: 6, tbt_s: -.5e3}", ["tbt_s is '-.5e3'", "; write -.5e+3,"]),
        ("- {name: a, share: one, ttlt_s: 6}", ["share is 'one': Input should be a valid number\n"]),
        *((f"- {{name: {name}, share: 1.0, ttlt_s: 6}}", [f"name is '{name}'", "rename it"]) for name in NOT_CLASSES),
        ("- {name: relegated Q1, share: 1.0, ttlt_s: 6}", ["name is 'relegated Q1'", "rename it"]),
        ("- 1", ["classes.yaml class 1: is 1, not a mapping; write its fields"]),
        ("- {name: a, share: 1.0, ttlt_s: 6}\n- null", ["classes.yaml class 2: is None, not a mapping"]),
        ("- hello", ["classes.yaml class 1: is 'hello', not a mapping"]),
        ("- [name, a]", ["classes.yaml class 1: is ['name', 'a'], not a mapping"]),
        ("- {name: a, share: 1.0, ttft_s: .nan, tbt_s: 0.05}", ["ttft_s is nan"]),
        ("- {name: a, share: 1.0, ttft_s: 6}", ["set ttft_s and tbt_s"]),
        ("- {name: a, share: 1.0, ttft_s: 6000, tbt_s: 0.05}", ["ttft_s is 6000 seconds", "write ttft_s: 6,"]),
        ("- {name: a, share: 1.0, ttft_s: 6, tbt_s: 50}", ["tbt_s is 50 seconds", "write tbt_s: 0.05"]),
        ("- {name: a, share: 1.0, ttlt_s: 1.8e+6}", ["ttlt_s is 1800000 seconds", "write ttlt_s: 1800,"]),
        ("- {name: a, share: 0.5, ttlt_s: 6}", ["shares", "sum to 1"]),
        ("- {name: a, share: 1.0, ttlt_s: 6, colour: red}", ["colour is not a known field"]),
        ("{}", ["must be a list of classes"]),
        ("- [", ["not valid YAML"]),
        ("- {name: a, share: 1.0, ttlt_s: 6, ttlt_s: 7}", ["key ttlt_s is given twice", "line 1"]),
    ],
)
def test_bad_classes_name_the_field(capsys, tmp_path, yaml, words):
    path = tmp_path / "classes.yaml"
    path.write_text(yaml)
    status, _, err = run(capsys, "simulate", *POINT, "--system", "niyama", "--load", 3, "--classes", path)
    assert status == 2
    for word in words:
        assert word in err


def test_prompt_larger_than_kv_is_refused_before_anything_runs(capsys, monkeypatch):
    from artifact.runs import run as runs
    from niyama.latency import load_card as real

    small = lambda name: real(name).__class__(**{**vars(real(name)), "kv_tokens": 4096})  # noqa: E731
    monkeypatch.setattr(runs, "load_card", small)
    status, _, err = run(capsys, "simulate", *POINT, "--system", "niyama", "--load", 3)
    assert status == 2 and "more than the KV cache holds (4096 tokens)" in err


def test_an_earlier_name_of_a_command_names_todays(capsys):
    assert main(["server-twins", "--config", "x"]) == 2
    assert capsys.readouterr().err == "error: server-twins is called server-simulated now\n"
    assert main(["capacities", "--run-length", "long"]) == 2
    assert capsys.readouterr().err == "error: capacities is called search capacity now\n"


def test_a_per_cent_sign_is_one_in_every_help(capsys):
    subparsers = next(a for a in parser()._actions if isinstance(a.choices, dict))
    texts = [parser([]).format_help(), *(command.format_help() for command in subparsers.choices.values())]
    assert any("crosses 1 %." in text for text in texts) and not any("%%" in text for text in texts)
    assert "niyama-steady, for one, has none" in " ".join(subparsers.choices["fidelity"].format_help().split())
