"""Ray Serve's request router, by `niyama.vllm.ray.books`.

Ray pickles the class with all that its module knows, which compiled rules cannot be: they are imported where needed.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica


class NiyamaRouter(RequestRouter):
    """Ranks the replicas for each request by a routing rule; see `Books`."""

    def initialize_state(
        self, routing: str, latency: str, classes: list[dict[str, Any]], default_class: str, period_s: float
    ) -> None:
        """routing: a name of `niyama.sim.ROUTERS`, or FILE.py:NAME; classes: fields of `QoSClass`."""
        from niyama.latency import load_card
        from niyama.policy_files import load_from_file
        from niyama.qos import QoSClass
        from niyama.sim.routers import ROUTERS, Router
        from niyama.vllm.ray.books import Books

        router = ROUTERS.get(routing) or load_from_file(routing)
        if not isinstance(router, Router):
            raise ValueError(f"routing {routing!r} is {router!r}; it must be a niyama Router")
        self._books = Books(router, load_card(latency), period_s)
        self._books.warm_up()
        self._classes, self._default = {row["name"]: QoSClass(**row) for row in classes}, default_class

    async def choose_replicas(
        self, candidate_replicas: list[RunningReplica], pending_request: PendingRequest | None = None
    ) -> list[list[RunningReplica]]:
        """One replica a rank, the best first."""
        from niyama.vllm.ray.books import arriving
        from niyama.vllm.ray.engine import STATISTICS

        by_name = {replica.replica_id.unique_id: replica for replica in candidate_replicas}
        told = {name: (replica.routing_stats or {}).get(STATISTICS) for name, replica in by_name.items()}
        request = arriving(_body(pending_request), self._classes, self._default)
        return [[by_name[name]] for name in self._books.choose(request, told, time.time())]


def _body(pending: PendingRequest | None) -> Mapping[str, Any]:
    """The request's body; empty where Ray forwards none."""
    first = pending.args[0] if pending is not None and pending.args else None
    if isinstance(first, Mapping):
        return first
    dumped = getattr(first, "model_dump", None)
    return dumped() if callable(dumped) else vars(first) if hasattr(first, "__dict__") else {}
