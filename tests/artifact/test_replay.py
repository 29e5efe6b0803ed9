"""A user's file as a run: replayed as recorded, with its classes or by rules, and what is too long."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from artifact.__main__ import main
from artifact.commands.table import parser
from artifact.config import ConfigError
from artifact.runs.run import arrivals_of, trace_of, workload_of
from artifact.runs.sources import about
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.servers.cli import what_to_send
from traces import write_workload

FILE = Path(__file__).parents[1] / "traces" / "data" / "twenty-rows.csv"
ROWS = np.loadtxt(FILE, delimiter=",", skiprows=1, usecols=(1, 2), dtype=int)
OWN = "arrival_s,prompt_tokens,output_tokens,qos_class,important\n0.5,400,20,chat,true\n1,9000,5,bulk,false\n"
CHAT, BULK = "- {name: chat, ttft_s: 6, tbt_s: 0.05}\n", "- {name: bulk, ttlt_s: 600}\n"


@pytest.fixture
def simulate(capsys):
    def run(path, *more):
        status = main(["simulate", "--system", "niyama", "--trace", str(path), "--json", *map(str, more)])
        out, err = capsys.readouterr()
        return (json.loads(out) if status == 0 else status), err

    return run


def requests_in(folder: Path):
    return pq.read_table(folder / "requests.parquet")


def test_a_replay_has_the_rows_and_times_of_the_file(simulate, tmp_path):
    answer, err = simulate(FILE, "--replay", "--out", tmp_path)
    table = requests_in(tmp_path)
    assert answer["requests"] == 20 and answer["load_qps"] == pytest.approx(20 / 38)
    assert table["prompt_tokens"].to_pylist() == ROWS[:, 0].tolist()
    assert table["output_tokens"].to_pylist() == ROWS[:, 1].tolist()
    assert table["arrival_s"].to_pylist() == [2.0 * i for i in range(20)]
    assert "layout azure: time = TIMESTAMP (ISO 8601)" in err and "replay of 20 requests" in err


def test_a_run_that_is_exported_and_replayed_is_the_same(simulate, tmp_path):
    first, again = tmp_path / "first", tmp_path / "again"
    simulate("azure-code-2023-synth", "--load", 3, "--requests", 300, "--low-importance-share", 0.3, "--out", first)
    simulate(first / "requests.parquet", "--replay", "--out", again)
    one, other = (requests_in(folder).replace_schema_metadata() for folder in (first, again))
    assert one.equals(other)


def test_speed_and_window(simulate, tmp_path):
    answer, _ = simulate(FILE, "--replay", "--window", "10:30", "--speed", 2, "--out", tmp_path)
    table = requests_in(tmp_path)
    assert table["prompt_tokens"].to_pylist() == ROWS[5:15, 0].tolist()
    assert table["arrival_s"].to_pylist() == [1.0 * i for i in range(10)]
    assert answer["load_qps"] == pytest.approx(2 * 10 / 18)


def test_classes_and_importance_of_the_file(simulate, tmp_path):
    (path := tmp_path / "own.csv").write_text(OWN)
    (classes := tmp_path / "c.yaml").write_text(CHAT + BULK)
    simulate(path, "--replay", "--classes", classes, "--out", tmp_path / "out")
    table = requests_in(tmp_path / "out")
    assert table["qos_class"].to_pylist() == ["chat", "bulk"] and table["important"].to_pylist() == [True, False]
    assert table["arrival_s"].to_pylist() == [0.5, 1.0]
    classes.write_text(CHAT)
    status, err = simulate(path, "--replay", "--classes", classes)
    assert status == 2 and "has the classes bulk (qos_class), and the classes of the run are chat; add them" in err


@pytest.mark.parametrize("mode", [["--replay"], ["--load", "2", "--requests", "200"]])
def test_classes_by_rule(simulate, tmp_path, mode):
    (classes := tmp_path / "c.yaml").write_text(
        "- {name: bulk, ttlt_s: 600, when: 'prompt > 1000 or output in [10, 44]'}\n" + CHAT
    )
    simulate(FILE, *mode, "--classes", classes, "--out", tmp_path)
    table = requests_in(tmp_path).to_pydict()
    rows = zip(table["prompt_tokens"], table["output_tokens"], table["qos_class"], strict=True)
    assert all((prompt > 1000 or output in (10, 44)) == (name == "bulk") for prompt, output, name in rows)


@pytest.mark.parametrize(
    ("when", "words"),
    [
        ("__import__('os').system('x')", "no part of a rule"),
        ("prompt > 8000 +", "which is no rule"),
        ("prompt.real > 1", "with 'prompt.real'"),
        ("tenant == 'a'", "the trace has no tenant; say which column: --columns tenant=NAME"),
        ("prompt > 'a'", "no part of a rule"),
        ("price > 1", "with 'price'"),
        ("prompt", "no part of a rule"),
        ("(" * 500 + "prompt > 1" + ")" * 500, "which is no rule"),
    ],
)
def test_a_rule_that_is_none_is_one_line(simulate, tmp_path, when, words):
    (classes := tmp_path / "c.yaml").write_text(CHAT + f"- {{name: bulk, ttlt_s: 600, when: {json.dumps(when)}}}\n")
    status, err = simulate(FILE, "--replay", "--classes", classes)
    assert status == 2 and words in err.splitlines()[-1] and "Traceback" not in err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ([], "--load is missing; give requests/s, or --replay"),
        (["--replay", "--requests", "21"], "requests is 21, and a replay of twenty-rows.csv@"),
        (["--replay", "--max-total-tokens", "1500"], "4 of 20 requests have up to 2256 tokens"),
        (["--replay", "--arrivals", "poisson"], "--arrivals is poisson, and a replay has the trace's own"),
        (["--replay", "--speed", "2", "--load", "3"], "--speed is 2, which is for a --replay, and instead of --load"),
        (["--load", "3", "--speed", "2"], "--speed is 2, which is for a --replay"),
        (["--load", "3", "--window", "1:2"], "--window is 1:2, which is for a replay"),
        (["--replay", "--window", "9:3"], "--window is '9:3'; write two times"),
        (
            ["--replay", "--window", "90:95"],
            "nothing of twenty-rows.csv@ba66bd68 is left to replay",
        ),
        (["--replay", "--columns", "time"], "--columns is 'time'; write each role once"),
    ],
)
def test_what_a_replay_cannot_do_is_one_line(simulate, arguments, words):
    status, err = simulate(FILE, *arguments)
    assert status == 2 and words in err.splitlines()[-1]


def test_too_long_requests_are_dropped_or_truncated(simulate, tmp_path):
    _, err = simulate(FILE, "--replay", "--max-total-tokens", 1500, "--too-long", "drop", "--out", tmp_path / "d")
    assert "4 of 20 rows have more than 1500 tokens and are dropped" in err
    total = ROWS.sum(axis=1)
    assert requests_in(tmp_path / "d")["prompt_tokens"].to_pylist() == ROWS[total <= 1500, 0].tolist()
    simulate(FILE, "--replay", "--max-total-tokens", 1500, "--too-long", "truncate", "--out", tmp_path / "t")
    cut = requests_in(tmp_path / "t")
    assert cut["output_tokens"].to_pylist() == ROWS[:, 1].tolist()
    assert cut["prompt_tokens"].to_pylist() == np.minimum(ROWS[:, 0], 1500 - ROWS[:, 1]).tolist()


def test_a_resampled_run_of_the_catalogue_says_what_it_truncates(simulate):
    long = ["--max-total-tokens", 1000, "--too-long", "truncate"]
    answer, err = simulate("azure-code-2023-synth", "--load", 2, "--requests", 50, *long)
    assert answer["requests"] == 50 and "rows have more than 1000 tokens and are truncated" in err


def test_load_sends_what_simulate_plays(tmp_path):
    options = parser().parse_args(["load", "--url", "x", "--workload", str(FILE), "--speed", "2", "--window", "0:10"])
    classes, workload = what_to_send(options)
    assert workload.prompt_tokens.tolist() == ROWS[:5, 0].tolist() and workload.arrival_s.tolist() == [0, 1, 2, 3, 4]
    options = parser().parse_args(["load", "--url", "x", "--trace", str(FILE), "--load", "4", "--requests", "7"])
    assert len(what_to_send(options)[1]) == 7 and [c.name for c in classes] == ["Q1", "Q2", "Q3"]
    for more in ([], ["--workload", "x", "--trace", "y"]):
        with pytest.raises(ConfigError, match="give --trace, or --workload FILE"):
            what_to_send(parser().parse_args(["load", "--url", "x", *more]))


def test_load_replays_what_write_workload_wrote(tmp_path):
    spec = RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=1.0, requests=5)
    write_workload(workload_of(spec, None), tmp_path / "w.parquet")
    options = parser().parse_args(["load", "--url", "x", "--workload", str(tmp_path / "w.parquet")])
    assert what_to_send(options)[1].arrival_s.tolist() == workload_of(spec, None).arrival_s.tolist()


def test_a_resampled_run_says_how_often_it_repeats_rows(simulate):
    _, err = simulate(FILE, "--load", 2, "--requests", 230)  # a number of its own: it is said once a process
    assert err.count("230 requests of 20 rows, each up to 12 times") == 1


def test_provenance_names_the_bytes_and_how_they_were_read(tmp_path):
    spec = RunSpec(trace=str(FILE), system="niyama", load_qps=1.0, requests=5)
    told = about(trace_of(spec))
    assert told["source"] == "file" and len(told["sha256"]) == 64 and told["understood"]["layout"] == "azure"
    (path := tmp_path / "day.csv").write_text("prompt_tokens,output_tokens\n5,2\n")
    own = spec.model_copy(update={"trace": str(path)})
    before = trace_of(own)
    path.write_text("prompt_tokens,output_tokens\n5,2\n6,2\n")
    assert len(before) == 1 and len(trace_of(own)) == 2 and before.name != trace_of(own).name


def test_a_trace_of_the_catalogue_is_drawn_as_before():
    """Fields that came with files change no request."""
    classes = (ClassSpec(name="a", share=0.5, ttlt_s=60), ClassSpec(name="b", share=0.5, ttlt_s=90))
    spec = RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=2.0, requests=6, classes=classes)
    requests = arrivals_of(spec)
    assert requests.prompt_tokens.tolist() == PROMPTS and requests.class_index.tolist() == CLASSES


PROMPTS, CLASSES = [2802, 287, 7433, 2024, 7435, 973], [1, 0, 0, 0, 0, 1]
