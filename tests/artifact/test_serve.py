"""Real vLLM on an emulated GPU, end to end: `serve`, our client over HTTP, and nothing left behind."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.servers.measured import Client, measure, warm_up
from artifact.servers.process import served_models
from niyama import PAPER_CLASSES, load_card
from niyama.latency import empty_batch, seconds
from niyama.sim import Requests
from tests.helpers.waiting import HANG_S, wait_for
from traces import Workload, write_jsonl

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.engine


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """URL, model and process of a Niyama server on an emulated A100; afterwards everything must be gone."""
    pytest.importorskip("vllm")
    folder = tmp_path_factory.mktemp("serve")
    command = [sys.executable, "-m", "artifact", "serve", "--system", "niyama", "--backend", "emulated"]
    serve = subprocess.Popen([*command, "--folder", str(folder)], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        line = serve.stdout.readline()  # comes when the server is ready; empty when `serve` has ended
        assert line, f"serve ended with status {serve.wait()}"
        url, model = line.split("/v1")[0], line.split("model ")[1].split()[0]
        yield url, model
    finally:
        serve.send_signal(signal.SIGTERM)
        assert serve.wait(HANG_S) == 128 + signal.SIGTERM
    wait_for(lambda: not processes_naming(str(folder)), "the end of all its processes")


def processes_naming(text: str) -> list[str]:
    """Command lines and environments of live processes that mention it: vLLM renames its own command lines."""
    found = []
    for path in Path("/proc").glob("[0-9]*"):
        try:
            about = (path / "cmdline").read_bytes() + (path / "environ").read_bytes()
        except (FileNotFoundError, PermissionError, ProcessLookupError):
            continue
        if text.encode() in about and int(path.name) != os.getpid():
            found.append(about[:100].decode(errors="replace"))
    return found


def requests(n=12, gap_s=0.15, output=20):
    index = np.arange(n) % 3
    whole = (index.astype(np.int16), np.arange(n) * gap_s, np.full(n, 300, np.int32), np.full(n, output, np.int32))
    return Requests(PAPER_CLASSES, *whole, np.ones(n, bool))


def test_a_measured_run_has_the_emulated_gpus_times(served):
    url, model = served
    assert served_models(url) == [model] and model.startswith("niyama-")
    client = Client(url, model, {}, max_lag_p99_s=1.0)
    warm_up(client, ["Q1", "Q2", "Q3"], 1)
    done = measure(client, requests())
    assert len(done.run.token_s) == 12 * 20
    assert done.relegated.tolist() == [False] * 12 and done.http_status.tolist() == [200] * 12
    one_decode_s = seconds(load_card("a100-llama3-8b-linear").build(), empty_batch(1, 300))
    gaps = np.concatenate([np.diff(done.run.token_s[a : a + 20]) for a in done.run.token_start[:-1]])
    assert 0.8 * one_decode_s < np.median(gaps) < 4 * one_decode_s
    first = done.run.token_s[done.run.token_start[:-1]] - done.requests.arrival_s
    assert 0.01 < np.median(first) < 1.0


def test_load_replays_a_workload_file(served, tmp_path, capsys):
    url, model = served
    own = requests(6)
    names = tuple(c.name for c in PAPER_CLASSES)
    columns = (own.arrival_s, own.prompt_tokens, own.output_tokens, own.class_index, own.important)
    write_jsonl(Workload(*columns, names, None, "made-up", "local"), tmp_path / "w.jsonl")
    arguments = ["load", "--url", url, "--workload", str(tmp_path / "w.jsonl"), "--max-lag-ms", "1000"]
    assert main([*arguments, "--out", str(tmp_path)]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["requests"] == 6 and answer["groups"]["Q2"]["group_requests"] == 2
    assert answer["groups"]["all"]["relegated_share"] == 0.0
    assert (tmp_path / "requests.parquet").is_file()
    assert main([*arguments, "--model", "gpt"]) == 2
    assert f"--model is 'gpt'; {url} serves {model}" in capsys.readouterr().err
