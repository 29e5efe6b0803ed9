"""Bursts over HTTP: both servers get the same requests in turn, and the ratio is one of measured times."""

from contextlib import ExitStack, contextmanager
from types import SimpleNamespace

import numpy as np
import pytest

from artifact.servers.measured import Client, RunFailed
from benchmarks import vllm_http
from benchmarks.printing import Console, _print_servers
from niyama import PAPER_CLASSES
from niyama.sim import Requests
from tests.helpers.fake_engine import FakeEngine, listening

BURST = Requests(PAPER_CLASSES, np.arange(4) % 3, np.zeros(4), np.full(4, 10), np.full(4, 20), np.ones(4, bool))


@pytest.fixture(autouse=True)
def at_once(monkeypatch):
    """The load client sends as soon as it is ready: a fake engine has nothing that must settle."""
    monkeypatch.setattr("artifact.servers.client.SETTLE_S", 0.02)


@pytest.fixture
def pair():
    """A stock server that takes 20 ms a token and a Niyama server that takes 10, with their clients."""
    engines = {"vllm-fcfs": FakeEngine(gap_s=0.02), "niyama": FakeEngine(gap_s=0.01)}
    with ExitStack() as stack:
        urls = {name: stack.enter_context(listening(engine.application())) for name, engine in engines.items()}
        yield engines, {name: Client(url, engines[name].model, {}, max_lag_p99_s=9.0) for name, url in urls.items()}


def test_the_ratio_is_stock_over_niyama_pair_by_pair(pair):
    engines, clients = pair
    found = vllm_http._in_turn(clients, BURST, 3)
    assert len(found["ratios"]) == 3 and found["ratio"] == sorted(found["ratios"])[1]
    assert found["ratios"] == [a / b for a, b in zip(found["stock_s"], found["niyama_s"], strict=True)]
    assert 0.2 * 2 <= min(found["stock_s"]) and 0.2 <= min(found["niyama_s"]) and found["ratio"] > 1.2
    bodies = [sorted(str(body) for body in engine.seen) for engine in engines.values()]
    assert len(bodies[0]) == 3 * len(BURST) and bodies[0] == bodies[1]


def test_a_burst_that_fails_is_no_measurement(pair):
    engines, clients = pair
    engines["niyama"].fault = "http"
    with pytest.raises(RunFailed, match="4 of 4 requests failed"):
        vllm_http._in_turn(clients, BURST, 1)


def test_both_servers_have_the_same_chunk_and_one_device(tmp_path, monkeypatch):
    started, engine = [], FakeEngine()

    @contextmanager
    def starting(system, on, folder, niyama):
        started.append((system.name, system.pools[0].batched_tokens, on, niyama))
        with listening(engine.application()) as url:
            yield SimpleNamespace(url=url, model=engine.model, wait_until_ready=lambda timeout_s: 0.0)

    monkeypatch.setattr(vllm_http, "starting", starting)
    with ExitStack() as stack:
        assert set(vllm_http._start(stack, {"default_class": "Q1"}, tmp_path)) == {"vllm-fcfs", "niyama"}
    (stock, stock_tokens, *on_a), (ours, our_tokens, *on_b) = started
    assert (stock, ours, on_a[0]) == ("vllm-fcfs", "niyama", on_b[0]) and on_a[1] is None
    assert on_b[1]["default_class"] == "Q1" and on_b[1]["latency"] == on_b[0].latency
    assert stock_tokens == on_b[1]["policy"]["max_chunk_tokens"] == our_tokens - 256
    assert len(engine.seen) == 12  # both warmed up


def test_rows_can_be_read(capsys):
    row = {"trace": "t", "requests": 9, "repeats": 2, "stock_s": [15.0, 16.0], "niyama_s": [15.1, 15.9]}
    row |= {"ratios": [0.9934, 1.0063], "ratio": 0.9998, "virtual_ratio": 1.002}
    _print_servers(Console(width=140), {"skipped": None, "target_ratio": 0.99, "rows": [row]})
    printed = capsys.readouterr().out
    for wanted in ("9 requests x 2", "15.0 to 16.0", "0.9998", "0.9934 to 1.0063", "1.0020", ">= 0.99 yes"):
        assert wanted in printed


def test_they_can_be_left_out(tmp_path):
    assert vllm_http.over_http(0, tmp_path) == {
        "skipped": "switched off", "target_ratio": 0.99, "rows": []
    }  # fmt: skip
