"""The router: class picks the pool, replicas take turns, a dead one is left out and passed by, disconnects pass on."""

import gzip
import http.client
import json
import socket
import urllib.error
import urllib.request
from contextlib import ExitStack, contextmanager

import pytest

from artifact.router.bodies import MAX_BODY_BYTES
from artifact.router.pools import LEAST_OUTSTANDING, MOST_CONTAINERS, Pool, Replica, RouterError, parse_pools
from artifact.router.server import SERVED, Router, main
from artifact.servers.measured import RunFailed, measure
from tests.artifact.test_client import client, requests
from tests.helpers.fake_engine import FakeEngine, listening
from tests.helpers.waiting import HANG_S, wait_for


def router_over(stack, *engines_of_pools, spread="round-robin", **options):
    """A router over fake engines: [(pool name, classes, engines)]; its URL and the router."""
    rows = [
        {"name": name, "classes": classes, "urls": [stack.enter_context(listening(e.application())) for e in engines]}
        for name, classes, engines in engines_of_pools
    ]
    router = Router(parse_pools(rows), spread, **options)
    return stack.enter_context(listening(router.application(), **SERVED)), router


def post(url, body, **headers):
    request = urllib.request.Request(
        f"{url}/v1/completions", json.dumps(body).encode(), {"Content-Type": "application/json", **headers}
    )
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def of_class(name):
    return {"max_tokens": 2, "vllm_xargs": {"niyama_class": name}}


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


def unused_url():
    """Where nobody listens."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{unused.getsockname()[1]}"


@contextmanager
def unwatched(*urls):
    """A router over one pool of these replicas whose watch sleeps, so that only requests find out; URL and pool."""
    pool = Pool("all", ("Q1",), tuple(Replica(url) for url in urls))
    router = Router([pool])
    router._check = lambda replica: _nothing()
    with listening(router.application(), **SERVED) as url:
        yield url, pool


def test_a_request_that_a_dead_replica_never_got_goes_to_another_and_the_dead_one_is_out():
    alive = FakeEngine()
    with listening(alive.application()) as other, unwatched(unused_url(), unused_url(), other) as (url, pool):
        assert [post(url, of_class("Q1"))[0] for _ in range(4)] == [200] * 4
        assert len(alive.seen) == 4
    assert [replica.healthy for replica in pool.replicas] == [False, False, True]
    assert all(replica.outstanding == 0 for replica in pool.replicas)


def test_when_nobody_can_be_reached_it_is_a_502_that_names_all():
    dead = [unused_url(), unused_url()]
    with unwatched(*dead) as (url, _):
        status, text = post(url, of_class("Q1"))
        assert status == 502 and all(one in text for one in dead)
        assert post(url, of_class("Q1"))[0] == 503


def test_a_request_that_a_replica_may_have_worked_on_is_not_sent_again():
    mute, alive = FakeEngine(fault="mute"), FakeEngine()
    with (
        listening(mute.application()) as first,
        listening(alive.application()) as second,
        unwatched(first, second) as (url, pool),
    ):
        status, text = post(url, of_class("Q1"))
        assert status == 502 and first in text and "no other was asked" in text
        assert (len(mute.seen), len(alive.seen)) == (1, 0)
        assert post(url, of_class("Q1"))[0] == 200
    assert [replica.healthy for replica in pool.replicas] == [False, True]


def status_of(url, target, method="POST"):
    """The status that a request with this target gets, whatever it is."""
    host, port = url.removeprefix("http://").split(":")
    body = json.dumps(of_class("Q1")).encode()
    with socket.create_connection((host, int(port)), timeout=HANG_S) as connection:
        head = f"{method} {target} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(body)}\r\n\r\n"
        connection.sendall(head.encode("latin-1") + body)
        return int(connection.recv(100).split()[1])


def test_a_target_in_absolute_form_is_its_path_and_nonsense_is_refused(silo):
    url, _, chat, _ = silo
    assert status_of(url, "http://elsewhere.example/v1/completions?a=1") == 200 and len(chat.seen) == 1
    for target in ("*", "http://[", "http://elsewhere.example:x/", "mailto:a", "x", "/\xff"):
        assert 400 <= status_of(url, target) < 500, target


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b'{"niyama_class":' + b"[" * 50_000, b"nested too deeply"),
        (b'{"niyama_class":' + b"[]," * MOST_CONTAINERS + b"0}", b"too many brackets"),
    ],
)
def test_a_body_whose_class_cannot_be_read_is_refused_but_for_one_in_the_header(silo, body, words):
    url, _, chat, _ = silo
    status, text = raw_post(url, body)
    assert status == 400 and words in text
    assert raw_post(url, body, **{"x-niyama-class": "Q1"})[0] != 502  # it is the server's to refuse
    assert not chat.seen


def raw_post(url, body, **headers):
    request = urllib.request.Request(f"{url}/v1/completions", body, {"Content-Type": "application/json", **headers})
    try:
        with urllib.request.urlopen(request, timeout=HANG_S) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def test_a_compressed_body_reaches_the_server_as_it_came(silo):
    url, _, chat, _ = silo
    body, encoded = gzip.compress(json.dumps(of_class("Q1")).encode()), {"Content-Encoding": "gzip"}
    assert raw_post(url, body, **encoded, **{"x-niyama-class": "Q1"})[0] == 200
    assert chat.seen == [of_class("Q1")] and chat.headers[0]["content-length"] == str(len(body))
    status, text = raw_post(url, body, **encoded)
    assert status == 415 and b"x-niyama-class" in text
    bomb = gzip.compress(b" " * (MAX_BODY_BYTES * 8))
    assert raw_post(url, bomb, **encoded)[0] == 415  # and inflated by nobody


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
            urllib.request.urlopen(f"{url}/health", timeout=HANG_S)
        engine.healthy = True
        wait_for(lambda: replica.healthy)
        assert post(url, of_class("Q1"))[0] == 200
        assert urllib.request.urlopen(f"{url}/health", timeout=HANG_S).status == 200


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
