"""The simulator: plan, execute by a latency model, commit."""

from niyama.sim.disaggregated import Disaggregated, DisaggregatedRun, KVLink, simulate_disaggregated
from niyama.sim.logged import simulate_logged
from niyama.sim.replica import LOG_COLUMNS
from niyama.sim.requests import Requests
from niyama.sim.routers import ROUTERS, Arriving, Router, Seen, route_rule
from niyama.sim.run import Run, simulate
from niyama.sim.system import LEAST_WORK, PACKED, ROUND_ROBIN, ROUTINGS, Pool, System, shared

__all__ = [
    "LEAST_WORK",
    "LOG_COLUMNS",
    "PACKED",
    "ROUND_ROBIN",
    "ROUTERS",
    "ROUTINGS",
    "Arriving",
    "Disaggregated",
    "DisaggregatedRun",
    "KVLink",
    "Pool",
    "Requests",
    "Router",
    "Run",
    "Seen",
    "System",
    "route_rule",
    "shared",
    "simulate",
    "simulate_disaggregated",
    "simulate_logged",
]
