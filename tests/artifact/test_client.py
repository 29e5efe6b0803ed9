"""The load client against a fake engine: counts tokens and not chunks, never waits, and says what went wrong."""

import asyncio

import numpy as np
import pyarrow.parquet as pq
import pytest

from artifact.config import ConfigError
from artifact.results import metrics
from artifact.runs.raw_times import write_run
from artifact.runs.run import run
from artifact.runs.spec import RunSpec
from artifact.servers.client import prompt_ids
from artifact.servers.measured import Client, ClientLagged, RunFailed, check_fits, measure, warm_up
from artifact.servers.measured_files import read_measured, write_measured
from niyama import QoSClass
from niyama.sim import Requests
from tests.helpers.fake_engine import MODEL, FakeEngine, listening
from tests.helpers.waiting import HANG_S

pytestmark = pytest.mark.usefixtures("at_once")
CLASSES = (QoSClass("Q1", ttft_s=1.0, tbt_s=0.05), QoSClass("Q2", ttlt_s=5.0))


def requests(arrival_s=(0.0, 0.05, 0.1), outputs=(5, 3, 4), classes=(0, 1, 0), important=(True, True, False)):
    n = len(arrival_s)
    return Requests(
        CLASSES,
        np.array(classes, np.int16),
        np.array(arrival_s),
        np.full(n, 20, np.int32),
        np.array(outputs, np.int32),
        np.array(important),
    )


def client(url, **changes):
    return Client(
        **{"url": url, "model": MODEL, "priorities": {}, "max_lag_p99_s": HANG_S, "timeout_s": HANG_S, **changes}
    )


@pytest.mark.parametrize("merge", [1, 2, 10])
def test_tokens_are_counted_though_chunks_carry_several(merge):
    engine = FakeEngine(merge=merge, gap_s=0.02)
    with listening(engine.application()) as url:
        done = measure(client(url), requests())
    assert done.run.token_start.tolist() == [0, 5, 8, 12]
    assert len(done.run.token_s) == 12 and (np.diff(done.run.token_s[:5]) >= 0).all()
    assert len(np.unique(done.run.token_s[:5])) <= -(-5 // merge)  # tokens of one chunk share its time


def test_an_event_split_over_two_packets_is_one_token():
    with listening(FakeEngine(fault="split").application()) as url:
        done = measure(client(url), requests())
    assert len(done.run.token_s) == 12 and np.isfinite(done.run.token_s).all()


def test_times_are_the_servers_on_one_clock_from_the_start():
    with listening(FakeEngine(gap_s=0.1).application()) as url:
        done = measure(client(url), requests(arrival_s=(0.0, 0.3), outputs=(3, 2), classes=(0, 1), important=(1, 1)))
    assert (done.sent_s >= [0.0, 0.3]).all()
    earliest_s = np.repeat(done.sent_s, [3, 2]) + 0.1 * np.array([1, 2, 3, 1, 2])
    assert (done.run.token_s > earliest_s - 0.01).all()  # how much later is the machine's affair
    late = metrics.request_columns(done.requests, done.run)
    assert late["gaps_over_tbt"].tolist() == [2, 0] and late["late_tokens"].tolist() == [0, 0]


def test_a_slow_server_does_not_hold_back_the_next_request():
    """Open loop: the server answers nobody before all ten are there."""

    class Patient(FakeEngine):
        async def _stream(self, *arguments):
            while len(self.seen) < 10:
                await asyncio.sleep(0.01)
            await super()._stream(*arguments)

    with listening(Patient().application()) as url:
        done = measure(client(url), requests(np.arange(10) * 0.02, [1] * 10, [0] * 10, [True] * 10))
    assert done.run.token_s.min() >= done.sent_s.max()


def test_what_is_sent(monkeypatch):
    engine = FakeEngine()
    with listening(engine.application()) as url:
        measure(client(url, priorities={"Q1": 0, "Q2": 1}, seed=3), requests())
    first, second, third = sorted(engine.seen, key=lambda body: (body["max_tokens"] != 5, body["max_tokens"]))
    assert first["prompt"] == prompt_ids(3, 0, 20) and first["priority"] == 0 and first["ignore_eos"] is True
    assert first["vllm_xargs"] == {"niyama_class": "Q1"}
    assert second["vllm_xargs"] == {"niyama_class": "Q2"} and second["priority"] == 1
    assert third["vllm_xargs"] == {"niyama_class": "Q1", "niyama_importance": "low"}
    assert first["model"] == MODEL and first["stream_options"]["continuous_usage_stats"] is True


def test_requests_without_priorities_carry_none():
    engine = FakeEngine()
    with listening(engine.application()) as url:
        measure(client(url), requests())
    assert not any("priority" in body for body in engine.seen)


def test_prompts_are_deterministic_and_share_no_prefix():
    assert prompt_ids(1, 7, 50) == prompt_ids(1, 7, 50) != prompt_ids(2, 7, 50)
    blocks = {tuple(prompt_ids(1, i, 16)) for i in range(2000)}
    assert len(blocks) == 2000


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("http", ["3 of 3 requests failed", "HTTP 400", "no room"]),
        ("error", ["engine died"]),
        ("short", ["1 token(s) too few; the first is request 0, after 4 tokens"]),
        ("early-end", ["the stream ended early; the first is request 0, after 2 tokens"]),
        ("hang-up", ["ClientPayloadError"]),
        ("uncounted", ["tokens cannot be counted"]),
    ],
)
def test_a_failed_request_fails_the_run_and_says_why(fault, words):
    with listening(FakeEngine(fault=fault).application()) as url, pytest.raises(RunFailed) as caught:
        measure(client(url), requests())
    for word in ["3 of 3 requests failed", *words]:
        assert word in str(caught.value)


def test_a_server_that_is_not_there_fails_the_run():
    with listening(FakeEngine().application()) as url:
        pass
    with pytest.raises(RunFailed, match="3 of 3 requests failed: 3 x ClientConnectorError"):
        measure(client(url), requests())


def test_a_request_that_takes_too_long_fails_the_run():
    with listening(FakeEngine(gap_s=0.5).application()) as url, pytest.raises(RunFailed, match="3 x timed out"):
        measure(client(url, timeout_s=0.3), requests())


def test_a_client_that_lags_voids_the_run(monkeypatch):
    """The client's own loop is held up, as on a busy machine."""
    import time

    from artifact.servers import client as module

    take = module._take
    monkeypatch.setattr(module, "_take", lambda *a: (time.sleep(0.03), take(*a)))
    many = requests(np.arange(20) * 0.01, [1] * 20, [0] * 20, [True] * 20)
    with listening(FakeEngine().application()) as url, pytest.raises(ClientLagged, match=r"lag is \d+\.\d ms \(p99\)"):
        measure(client(url, max_lag_p99_s=0.005), many)


def test_warm_up_reaches_every_class_and_leaves_no_history():
    engine = FakeEngine()
    with listening(engine.application()) as url:
        warm_up(client(url), ["Q1", "Q2"], replicas=2)
        engine.fault = "http"
        with pytest.raises(RunFailed, match="8 of 8"):
            warm_up(client(url), ["Q1", "Q2"], replicas=2)
    assert {body["vllm_xargs"]["niyama_app"] for body in engine.seen} == {"warm-up"}
    assert {body["vllm_xargs"]["niyama_class"] for body in engine.seen} == {"Q1", "Q2"}


def test_what_niyama_says_of_a_request_is_kept():
    with listening(FakeEngine(served={"class": "Q1", "relegated": True}).application()) as url:
        assert measure(client(url), requests()).relegated.tolist() == [True] * 3
    with listening(FakeEngine().application()) as url:
        assert measure(client(url), requests()).relegated is None


def test_a_run_on_disk_has_the_simulators_columns_and_comes_back(tmp_path):
    with listening(FakeEngine(gap_s=0.01).application()) as url:
        done = measure(client(url), requests())
    write_measured(tmp_path / "r.parquet", done, backend="emulated")
    again, about = read_measured(tmp_path / "r.parquet", CLASSES)
    assert about["backend"] == "emulated" and again.relegated is None
    assert np.array_equal(again.run.token_s, done.run.token_s) and np.array_equal(again.sent_s, done.sent_s)
    assert again.requests.class_index.tolist() == [0, 1, 0] and again.requests.important.tolist() == [1, 1, 0]

    spec = RunSpec(trace="azure-code-2023-synth", system="niyama", load_qps=1.0, requests=3)
    write_run(tmp_path, run(spec, log=True))
    simulated, measured = (pq.read_schema(tmp_path / name) for name in ("requests.parquet", "r.parquet"))
    own = {"intended_send_s", "actual_send_s", "http_status"}
    assert set(measured.names) - set(simulated.names) == own and not set(simulated.names) - set(measured.names)
    for name in set(simulated.names) - {"qos_class", "status"}:
        assert simulated.field(name).type == measured.field(name).type, name
    table = pq.read_table(tmp_path / "r.parquet")
    assert table["relegations"].null_count == table["preemptions"].null_count == table["replica"].null_count == 3


def test_a_request_longer_than_the_servers_take_is_refused():
    with pytest.raises(ConfigError, match=r"request 0: prompt_tokens \+ output_tokens is 25; the servers take 24"):
        check_fits(requests(), 24)
