"""What the router does not let through: bodies that take room from others, replicas' metrics, changed headers."""

import http.client
import socket
from contextlib import ExitStack, contextmanager

import pytest
from aiohttp import web

from artifact.router.bodies import Bodies
from artifact.router.pools import Pool, Replica
from artifact.router.server import KEEPALIVE_S, SERVED, Router
from tests.artifact.test_router import of_class, post, raw_post, router_over, status_of
from tests.helpers.fake_engine import FakeEngine, listening
from tests.helpers.waiting import HANG_S, wait_for


@contextmanager
def guarded(bodies):
    """A router over one fake engine; its URL, and the engine."""
    engine = FakeEngine()
    with ExitStack() as stack:
        url, _ = router_over(stack, ("all", ["Q1"], [engine]), bodies=bodies)
        yield url, engine


@contextmanager
def before(handler, host="127.0.0.1"):
    """A router over one replica that answers every POST with this handler; the router's URL."""

    async def any_method(request):
        return await handler(request) if request.method == "POST" else web.Response()

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", any_method)
    with listening(app) as replica:
        pool = Pool("all", ("Q1",), (Replica(replica.replace("127.0.0.1", host)),))
        with listening(Router([pool]).application(), **SERVED) as url:
            yield url


def half_sent(url, sent_bytes, whole_bytes):
    """A connection on which a part of a request's body has been sent."""
    host, port = url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=HANG_S)
    head = f"POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {whole_bytes}\r\n\r\n"
    connection.sendall(head.encode() + b" " * sent_bytes)
    return connection


def test_a_body_is_limited():
    with guarded(Bodies(3000)) as (url, engine):
        assert raw_post(url, b" " * 3001)[0] == 413
        assert raw_post(url, (b" " * 2000 for _ in range(2)))[0] == 413
        assert not engine.seen


def test_half_sent_bodies_keep_large_ones_out_and_small_ones_never():
    bodies = Bodies(3000, most_held_bytes=5000, small_bytes=1000)
    with guarded(bodies) as (url, _):
        with half_sent(url, 2999, 3000), half_sent(url, 1990, 3000):
            wait_for(lambda: bodies.held_bytes == 4989)
            status, text = raw_post(url, b" " * 2000)
            assert status == 503 and b"too many large requests" in text
            assert post(url, of_class("Q1"))[0] == 200
            assert raw_post(url, (b" " * 500 for _ in range(2)))[0] != 503
        wait_for(lambda: bodies.held_bytes == 0)
        assert raw_post(url, b" " * 2000)[0] != 503


def test_a_body_that_does_not_come_in_time_is_a_408_and_held_no_longer():
    bodies = Bodies(timeout_s=0.01)
    with guarded(bodies) as (url, engine), half_sent(url, 1000, 2000) as connection:
        answer = http.client.HTTPResponse(connection)
        answer.begin()
        assert answer.status == 408 and b"0.01 s" in answer.read()
        assert bodies.held_bytes == 0 and not engine.seen


async def accepted(_):
    return web.Response(status=202)


METRICS = [
    *("/metrics", "/metrics/", "/metrics/x", "/metrics?a=1", "//metrics", "///metrics/", "/metricsx"),
    *("/%6detrics", "/metric%73/", "/%2Fmetrics", "/%2f/metrics", "/metrics%2Fx", "/metrics%2F../v1/completions"),
    *("/./metrics", "/v1/../metrics", "/v1/%2e%2E/metrics", "/../metrics", "http://x/metrics", "http://x//metrics"),
]


@pytest.mark.parametrize("target", METRICS)
def test_metrics_are_the_replicas_own_however_they_are_asked_for(target):
    with before(accepted) as url:
        for method in ("GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS"):
            assert status_of(url, target, method) == 404, method


def test_who_asks_for_metrics_is_told_where_they_are():
    with ExitStack() as stack:
        url, router = router_over(stack, ("a", ["Q1"], [FakeEngine()]), ("b", ["Q2"], [FakeEngine(), FakeEngine()]))
        connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=HANG_S)
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
        connection.close()
    assert all(f"{replica.url}/metrics" in text for pool in router.pools for replica in pool.replicas)


def test_only_what_leads_to_metrics_is_refused():
    with before(accepted) as url:
        for target in ("/v1/completions?/metrics", "/metrics/../v1/completions", "/v1/metrics", "/%256detrics"):
            assert status_of(url, target) == 202, target


def test_headers_that_come_again_are_passed_on_again_and_no_cookie_is_kept():
    sent = [("Authorization", "Bearer a"), ("authorization", "Bearer b"), ("Cookie", "c=3"), ("X-A", "1"), ("x-a", "2")]
    got = []

    async def replica(request):
        got.append([(name.lower(), value) for name, value in request.headers.items()])
        answer = web.Response()
        for value in ("a=1", "b=2"):
            answer.headers.add("Set-Cookie", value)
        return answer

    with before(replica, "localhost") as url:  # cookies of addresses would not be kept anyway
        for _ in range(2):
            connection = http.client.HTTPConnection(url.removeprefix("http://"), timeout=HANG_S)
            connection.putrequest("POST", "/v1/completions")
            for name, value in sent:
                connection.putheader(name, value)
            connection.endheaders()
            assert connection.getresponse().headers.get_all("set-cookie") == ["a=1", "b=2"]
            connection.close()
    wanted = [(name.lower(), value) for name, value in sent]
    assert [[pair for pair in pairs if pair[0] in dict(wanted)] for pairs in got] == [wanted] * 2


def test_an_idle_connection_is_given_up_before_uvicorn_closes_it(monkeypatch):
    """With no patience at all, no two requests share a connection."""
    assert KEEPALIVE_S < 5
    monkeypatch.setattr("artifact.router.server.KEEPALIVE_S", -1.0)
    transports = []

    async def replica(request):
        transports.append(request.transport)
        return web.Response()

    with before(replica) as url:
        assert [post(url, of_class("Q1"))[0] for _ in range(3)] == [200] * 3
    assert len(set(transports)) == 3
