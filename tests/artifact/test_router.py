"""The router: class picks the pool, replicas take turns, a dead one is named and left out, disconnects pass on."""

import http.client
import json
import socket
import time
import urllib.error
import urllib.request
from contextlib import ExitStack

import pytest
from fake_engine import FakeEngine, listening
from test_client import client, requests

from artifact.router import LEAST_OUTSTANDING, Pool, Replica, Router, RouterError, main, parse_pools
from artifact.servers.measured import RunFailed, measure


def router_over(stack, *engines_of_pools, spread="round-robin"):
    """A router over fake engines: [(pool name, classes, engines)]; its URL and the router."""
    rows = [
        {"name": name, "classes": classes, "urls": [stack.enter_context(listening(e.application())) for e in engines]}
        for name, classes, engines in engines_of_pools
    ]
    router = Router(parse_pools(rows), spread)
    return stack.enter_context(listening(router.application())), router


def post(url, body, **headers):
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def of_class(name):
    return {"max_tokens": 2, "vllm_xargs": {"niyama_class": name}}


def wait_for(condition, timeout_s=5.0):
    end = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < end, "did not happen in time"
        time.sleep(0.02)


@pytest.fixture
def silo():
    chat, batch = FakeEngine(), [FakeEngine(), FakeEngine()]
    with ExitStack() as stack:
        url, router = router_over(stack, ("interactive", ["Q1"], [chat]), ("batch", ["Q2", "Q3"], batch))
        yield url, router, chat, batch


def test_the_class_picks_the_pool_and_replicas_take_turns(silo):
    url, _, chat, batch = silo
    for name in ("Q1", "Q2", "Q3", "Q2", "Q1", "Q3"):
        status, text = post(url, of_class(name))
        assert status == 200 and text.endswith("data: [DONE]\n\n")
    assert [body["vllm_xargs"]["niyama_class"] for body in chat.seen] == ["Q1", "Q1"]
    assert [len(engine.seen) for engine in batch] == [2, 2]


def test_a_header_beats_the_body_and_reaches_the_server(silo):
    url, _, chat, _ = silo
    post(url, of_class("Q2"), **{"x-niyama-class": "Q1", "x-request-id": "r7"})
    assert chat.headers[0]["x-niyama-class"] == "Q1" and chat.headers[0]["x-request-id"] == "r7"


def test_a_request_without_a_class_gets_the_last_pool(silo):
    url, _, chat, batch = silo
    assert post(url, {"max_tokens": 2})[0] == 200
    assert not chat.seen and sum(len(engine.seen) for engine in batch) == 1


def test_an_unknown_class_is_refused_naming_the_known_ones(silo):
    status, text = post(silo[0], of_class("gold"))
    assert status == 400 and "'gold'" in text and "Q1, Q2, Q3" in text


def test_status_codes_pass_through(silo):
    url, _, chat, _ = silo
    chat.fault = "http"
    status, text = post(url, of_class("Q1"))
    assert status == 400 and "no room" in text


def test_a_whole_run_through_the_router_is_as_without(silo):
    url, _, chat, batch = silo
    done = measure(client(url), requests())
    assert len(done.run.token_s) == 12
    assert len(chat.seen) == 2 and sum(len(engine.seen) for engine in batch) == 1


def test_least_outstanding_avoids_the_busy_replica():
    slow, quick = FakeEngine(gap_s=0.5), FakeEngine()
    with ExitStack() as stack:
        url, _ = router_over(stack, ("all", ["Q1"], [slow, quick]), spread=LEAST_OUTSTANDING)
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.request("POST", "/v1/completions", json.dumps(of_class("Q1")))
        wait_for(lambda: slow.seen)
        for _ in range(3):
            post(url, of_class("Q1"))
        assert len(slow.seen) == 1 and len(quick.seen) == 3
        connection.close()


def test_a_dead_replica_is_a_502_that_names_it_then_left_out_then_back():
    alive = FakeEngine()
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        port = unused.getsockname()[1]
    dead = f"http://127.0.0.1:{port}"
    with listening(alive.application()) as other:
        pool = Pool("all", ("Q1",), (Replica(dead), Replica(other)))
        router = Router([pool])
        router._check = lambda replica: _nothing()  # the watch sleeps: only requests find out
        with listening(router.application()) as url:
            status, text = post(url, of_class("Q1"))
            assert status == 502 and dead in text
            assert [post(url, of_class("Q1"))[0] for _ in range(3)] == [200] * 3
    assert not pool.replicas[0].healthy and pool.replicas[1].healthy


async def _nothing():
    return None


def test_the_watch_takes_out_and_brings_back():
    engine = FakeEngine(healthy=False)
    with ExitStack() as stack:
        url, router = router_over(stack, ("all", ["Q1"], [engine]))
        replica = router.pools[0].replicas[0]
        wait_for(lambda: not replica.healthy)
        status, text = post(url, of_class("Q1"))
        assert status == 503 and "no replica is healthy" in text
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/health", timeout=5)
        engine.healthy = True
        wait_for(lambda: replica.healthy)
        assert post(url, of_class("Q1"))[0] == 200
        assert urllib.request.urlopen(f"{url}/health", timeout=5).status == 200


def test_a_client_that_leaves_takes_its_request_along():
    engine = FakeEngine(gap_s=0.05)
    with ExitStack() as stack:
        url, router = router_over(stack, ("all", ["Q1"], [engine]))
        connection = http.client.HTTPConnection(url.removeprefix("http://"))
        connection.request("POST", "/v1/completions", json.dumps({**of_class("Q1"), "max_tokens": 1000}))
        connection.getresponse().read(10)
        connection.sock.close()
        connection.close()
        wait_for(lambda: engine.gone == 1)
        wait_for(lambda: router.pools[0].replicas[0].outstanding == 0)
        assert router.pools[0].replicas[0].healthy  # it was not the server's fault


def test_half_an_answer_does_not_look_whole():
    with ExitStack() as stack:
        url, _ = router_over(stack, ("all", ["Q1", "Q2"], [FakeEngine(fault="hang-up")]))
        with pytest.raises(RunFailed, match="of 3 requests failed"):
            measure(client(url), requests())


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([], "at least one pool"),
        ({}, "must be a list"),
        ([{"name": "a", "classes": ["Q1"]}], "entry 1"),
        ([{"name": "a", "classes": [], "urls": ["http://x"]}], "none of them empty"),
        ([{"name": n, "classes": ["Q1"], "urls": ["http://x"]} for n in "ab"], "'Q1' is in two pools"),
    ],
)
def test_pools_that_make_no_sense(rows, words):
    with pytest.raises(RouterError, match=words):
        parse_pools(rows)


def test_the_command_refuses_a_bad_file(tmp_path, capsys):
    path = tmp_path / "pools.json"
    path.write_text("[")
    assert main(["--pools", str(path), "--port", "1"]) == 2
    assert str(path) in capsys.readouterr().err
