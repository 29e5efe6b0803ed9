"""What the router does not let through: bodies that take room from others."""

import http.client
import socket
from contextlib import ExitStack, contextmanager

from fake_engine import FakeEngine
from patience import HANG_S, wait_for
from test_router import of_class, post, raw_post, router_over

from artifact.router_bodies import Bodies


@contextmanager
def guarded(bodies):
    """A router over one fake engine; its URL, and the engine."""
    engine = FakeEngine()
    with ExitStack() as stack:
        url, _ = router_over(stack, ("all", ["Q1"], [engine]), bodies=bodies)
        yield url, engine


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
