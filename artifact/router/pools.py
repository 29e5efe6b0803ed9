"""The pools of the router: replicas that serve the same classes, and how a request finds its own.

Imports nothing of ours, for the router's sake.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field

CLASS_HEADER, CLASS_KEY = "x-niyama-class", "niyama_class"
ROUND_ROBIN, LEAST_OUTSTANDING = SPREADS = ("round-robin", "least-outstanding")
#: Parsing a body of more lists and objects would make all streams wait: its class must be in the header.
MOST_CONTAINERS = 100_000


class RouterError(ValueError):
    """The pools or a request make no sense; one line: what and the fix. status: of the answer to a request."""

    def __init__(self, text: str, status: int = 400) -> None:
        super().__init__(text)
        self.status = status


@dataclass(eq=False)
class Replica:
    """One server. Mutable: the router counts what it has outstanding and whether it can be reached."""

    url: str
    outstanding: int = 0
    healthy: bool = True


@dataclass
class Pool:
    """Replicas that serve the same classes. `turn` moves on with every request."""

    name: str
    classes: tuple[str, ...]
    replicas: tuple[Replica, ...]
    turn: int = field(default=0)

    def pick(self, spread: str, tried: Sequence[Replica] = ()) -> Replica | None:
        """The replica for the next request; None when none is healthy but those that were tried."""
        healthy = [replica for replica in self.replicas if replica.healthy and replica not in tried]
        if not healthy:
            return None
        self.turn += 1
        start = self.turn - 1
        in_turn = [healthy[(start + i) % len(healthy)] for i in range(len(healthy))]
        return in_turn[0] if spread == ROUND_ROBIN else min(in_turn, key=lambda replica: replica.outstanding)


def parse_pools(rows: object) -> tuple[Pool, ...]:
    """Pools from JSON. Raises RouterError."""
    wanted = {"name", "classes", "urls"}
    if not isinstance(rows, list) or not rows:
        raise RouterError("pools: must be a list with at least one pool of name, classes and urls")
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or set(row) != wanted or not all(row.values()):
            raise RouterError(f"pools: entry {i + 1} is {row!r}; give it name, classes and urls, none of them empty")
    pools = tuple(Pool(r["name"], tuple(r["classes"]), tuple(Replica(u.rstrip("/")) for u in r["urls"])) for r in rows)
    names = [name for pool in pools for name in pool.classes]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise RouterError(f"pools: class {twice!r} is in two pools; leave it in one")
    return pools


def pool_of(pools: Sequence[Pool], header: str | None, body: bytes) -> Pool:
    """The pool of the class that the header or the body's vllm_xargs name; without either, the last pool's.

    Pools stand in the order of urgency, so a request that asks for nothing gets the least urgent service.
    Raises RouterError for a class that no pool serves.
    """
    name = header if header is not None else class_in(body)
    if name is None:
        return pools[-1]
    for pool in pools:
        if name in pool.classes:
            return pool
    known = ", ".join(c for pool in pools for c in pool.classes)
    raise RouterError(f"class {str(name)[:80]!r} is served by no pool; use one of {known}")


def class_in(body: bytes) -> str | None:
    """The class that a JSON body names; None when it names none or is no JSON, which the server will refuse."""
    if CLASS_KEY.encode() not in body:
        return None
    if body.count(b"[") + body.count(b"{") > MOST_CONTAINERS:
        raise RouterError(f"the body has too many brackets for its class to be read; name it in header {CLASS_HEADER}")
    try:
        return json.loads(body)["vllm_xargs"][CLASS_KEY]
    except RecursionError:
        raise RouterError("the body is nested too deeply; flatten it") from None
    except (ValueError, KeyError, TypeError):
        return None
