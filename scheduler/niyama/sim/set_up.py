"""A replica before its first iteration: the engine's world, the request table and the scheduler's state."""

from __future__ import annotations

import numpy as np

from niyama.jit import record
from niyama.policies import Policy
from niyama.requests import RequestTable, fill, hand_over, new_table
from niyama.sim.learning import Learning
from niyama.sim.replica import LOG_COLUMNS, Progress, World
from niyama.sim.requests import Requests
from niyama.state import State, new_state

ORACLE_ESTIMATOR = "oracle"
LOG_ROWS = 65_536


def set_up(
    requests: Requests,
    rows: np.ndarray,
    start: np.ndarray,
    token_s: np.ndarray,
    policy: Policy,
    kv_tokens: int,
    noise: np.ndarray,
    log: bool,
    started_first: bool,
    learning: Learning,
    *,
    table: RequestTable | None = None,
    room: int | None = None,
) -> tuple[World, RequestTable, State]:
    """The engine's world, the request table and the scheduler's state of one replica that serves `rows`.

    table: one that has them already; room: requests that the queues have room for, if not for all.
    """
    table = filled_table(requests, rows) if table is None else table
    outputs = requests.output_tokens[rows].astype(np.int32)
    if policy.estimator == ORACLE_ESTIMATOR:
        table.decode_estimate[:] = outputs
    apps = int(table.app.max(initial=0)) + 1
    tenants = requests.tenants
    state = new_state(
        len(rows) if room is None else room, policy.max_running, apps, kv_tokens, policy.alpha_low, tenants=tenants
    )
    world = World(
        np.arange(len(rows), dtype=np.int32),
        requests.arrival_s[rows].astype(np.float64),
        outputs,
        start[rows],
        token_s,
        np.full(len(rows), np.nan),
        record(Progress(sent=len(rows))),
        np.zeros((LOG_ROWS if log else 0, len(LOG_COLUMNS))),
        noise,
        started_first,
        learning,
    )
    return world, table, state


def filled_table(requests: Requests, rows: np.ndarray) -> RequestTable:
    """A request table that holds `rows` of the requests, all still to arrive."""
    table, classes, index = new_table(len(rows)), requests.classes, requests.class_index[rows]
    fill(
        table,
        arrival_s=requests.arrival_s[rows],
        prompt_tokens=requests.prompt_tokens[rows],
        deadline_slo_s=np.array([c.deadline_slo_s for c in classes])[index],
        tbt_s=np.array([c.tbt_s or 0.0 for c in classes])[index],
        interactive=np.array([c.interactive for c in classes])[index],
        important=requests.important[rows],
        app=requests.histories[rows],
        tenant=0 if requests.tenant is None else requests.tenant[rows],
    )
    if requests.emitted_tokens is not None:
        hand_over(table, requests.emitted_tokens[rows])
    return table
