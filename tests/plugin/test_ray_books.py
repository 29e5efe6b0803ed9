"""What the router on Ray Serve books, hears and decides; without Ray."""

from __future__ import annotations

import pytest

from niyama import PAPER_CLASSES, load_card
from niyama.sim import ROUTERS, Arriving
from niyama.vllm.ray.books import Books, arriving

CARD = load_card("a100-llama3-8b-roofline")
CHAT = Arriving(1000, True, 6.0, 0.05, True, 300.0)
CLASSES = {c.name: c for c in PAPER_CLASSES}


def said(t, waiting=0, waiting_tokens=0, running=0, context_tokens=0):
    return {
        "t": t, "waiting": waiting, "waiting_tokens": waiting_tokens, "running": running,
        "context_tokens": context_tokens,
    }  # fmt: skip


@pytest.mark.parametrize("name", sorted(ROUTERS))
def test_equal_replicas_take_turns_within_a_period(name):
    """A burst between two statistics is spread by what was booked: no replica gets twice as much as another."""
    books = Books(ROUTERS[name], CARD, 0.5)
    told = {replica: said(10.0) for replica in "abc"}
    chosen = [books.choose(CHAT, told, 10.0 + 0.001 * i)[0] for i in range(60)]
    if name in ("xllm", "slack-pack"):  # those fill one replica first
        assert len(set(chosen[:2])) == 1
        return
    assert all(10 <= chosen.count(replica) <= 30 for replica in "abc")


def test_a_busy_replica_is_avoided_until_it_says_that_it_is_idle():
    books = Books(ROUTERS["slack"], CARD, 0.5)
    busy, idle = said(10.0, waiting=9, waiting_tokens=30_000, running=20, context_tokens=40_000), said(10.0)
    assert books.choose(CHAT, {"a": busy, "b": idle}, 10.1) == ["b", "a"]
    assert books.choose(CHAT, {"a": said(10.5), "b": said(10.5, waiting=1, waiting_tokens=1000)}, 10.6) == ["a", "b"]


def test_what_the_statistics_know_is_not_booked_twice():
    books = Books(ROUTERS["least-requests"], CARD, 0.5)
    told = {"a": said(10.0), "b": said(10.0)}
    first = books.choose(CHAT, told, 10.1)[0]
    other = "b" if first == "a" else "a"
    later = {first: said(10.5), other: said(10.5, waiting=1)}  # the booked request has ended, another came
    assert books.choose(CHAT, later, 10.6)[0] == first


def test_a_replica_that_says_nothing_for_three_periods_is_down():
    books = Books(ROUTERS["slack"], CARD, 0.5)
    told = {"a": said(10.0), "b": said(11.9, waiting=5, waiting_tokens=20_000)}
    assert books.choose(CHAT, told, 10.2)[0] == "a"
    assert books.choose(CHAT, told, 12.0) == ["b", "a"]
    assert books.choose(CHAT, {"a": {"t": 12.0, "down": 1.0}, "b": said(12.0, waiting=9)}, 12.1) == ["b", "a"]
    assert books.choose(CHAT, {"a": said(10.0), "b": said(10.0)}, 99.0)  # all are: somebody must have it


def test_a_replica_that_is_new_is_taken_and_one_that_is_gone_forgotten():
    books = Books(ROUTERS["least-requests"], CARD, 0.5)
    assert books.choose(CHAT, {"a": None}, 1.0) == ["a"]
    assert books.choose(CHAT, {"a": None, "b": None}, 1.1)[0] == "b"
    assert books.choose(CHAT, {"b": None}, 1.2) == ["b"] and books.choose(CHAT, {}, 1.3) == []


@pytest.mark.parametrize(
    "body, tokens, slo_s",
    [
        ({"prompt": [1, 2, 3], "vllm_xargs": {"niyama_class": "Q1"}}, 3, 6.0),
        ({"prompt": "x" * 400}, 100, 600.0),
        (
            {"messages": [{"role": "user", "content": "y" * 80}, {"role": "user", "content": [{"text": "z" * 40}]}]},
            30,
            600.0,
        ),
        ({"prompt": ["ab", "cdefgh"], "vllm_xargs": {"niyama_class": "none"}}, 2, 600.0),
        ({}, 1, 600.0),
    ],
)
def test_a_request_is_read_from_its_body(body, tokens, slo_s):
    found = arriving(body, CLASSES, "Q2")
    assert (found.prompt_tokens, found.slo_s) == (tokens, slo_s)
