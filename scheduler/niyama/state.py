"""The scheduler's own state: queues, who is running, counters and the plan being made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf
from typing import Any, NamedTuple

import numpy as np

from niyama.estimators import HISTORY_COLUMNS
from niyama.jit import Numbers, compiled, record
from niyama.queues import Queues, new_queues

KV_BLOCK_TOKENS = 16  # where the engine does not say otherwise
NO_LIMIT = 1 << 40

NO_FAULT, NOBODY = 0, -1
FAULT_CALL = 32  # numbers of `State.fault_call`


@dataclass(slots=True)
class Totals(Numbers):
    """The numbers of a State: counts, and limits in force."""

    running: int = 0  # decoding requests
    prefilling: int = 0  # requests with part of their prompt in KV
    loading: int = 0  # requests whose KV is being loaded from elsewhere, of those queued
    queued: int = 0  # requests waiting, relegated ones included
    planned: int = 0  # prefill chunks in the plan
    running_context: int = 0  # tokens of KV the decodes attend to
    queued_prefill_tokens: int = 0  # of requests not relegated
    interactive_tokens: int = 0  # the part of those that interactive requests wait for
    important_interactive_tokens: int = 0  # the part of those that important interactive requests wait for
    relegations: int = 0
    un_relegations: int = 0
    preemptions: int = 0
    block_tokens: int = KV_BLOCK_TOKENS  # tokens that a block of KV holds
    kv_total_blocks: int = 0
    kv_free_blocks: int = 0  # neither held nor reserved
    kv_held_tokens: int = 0
    kv_taken_blocks: int = 0  # held by no request of the table
    kv_short: bool = False  # some decode may lack the KV for its next token
    step_tokens: int = NO_LIMIT  # most tokens of an iteration, decodes included
    ahead_tokens: int = 0  # of KV that an engine holds for a request beyond those that are reported (drafted tokens)
    drafts: int = 0  # drafted tokens that decodes verify, for the next iteration alone
    pace: float = 1.0  # tokens that a decode gets in an iteration, on average
    chunk_tokens: int = NO_LIMIT  # most prompt tokens of one request in an iteration
    align_tokens: int = 0  # chunks end at multiples of it where they reach one; 0: anywhere
    slots: int = 0  # most requests that hold KV at a time; at 0 none of them is to lose it
    prefills_held: bool = False  # only decodes may be planned, for the next iteration alone
    refused: int = NOBODY  # the request that the engine has no room for; for the next iteration alone
    alpha: float = 0.0  # s per token, in force
    interactive_rate: float = 0.0  # tokens/s: queued interactive prompts, not relegated, each over its SLO
    batch_rate: float = 0.0  # the same for batch requests
    tightest_tbt_s: float = inf  # of recent interactive requests: of the last 256 to 511
    newest_tbt_s: float = inf  # the same of the last 255 at most, and how many those are
    newest_interactive: int = 0
    decode_s: float = 0.0  # what a token of a batch request's output is taken to need
    late_tokens: float = 0.0  # prompt tokens that late requests may have out of turn
    step_spread: float = 0.0  # mean absolute error of the predicted step times, of their logarithms
    prefill_rate: float = 8500.0  # tokens/s, running average (artifact: starts at 8500, weight 0.995)
    mean_step_s: float = 0.0  # running average of what iterations took; kept where decodes may be left out
    min_slack_s: float = 0.0  # least decode slack of the last plan
    predicted_s: float = 0.0  # predicted duration of the last plan
    now_s: float = -inf  # start of the last plan
    full_step_s: float = 0.0  # of the last plan with prompts in line: predicted with all decodes and a full chunk
    ranked_s: float = -inf  # when all that wait were last ranked anew because of `rerank_s`
    last_tenant: int = 0  # whose request was the last to be prefilled
    fault: int = NO_FAULT  # which of the policy's rules has failed (`niyama.faults`)


class State(NamedTuple):
    """What the scheduler knows beside the request table. Mutable, written by compiled code only."""

    queues: Queues
    running: np.ndarray  # int32[max_running + 1]; ids, the first totals.running valid
    prefilling: np.ndarray  # int32[max_running + 1]
    plan_ids: np.ndarray  # int32[max_running + 1]
    plan_tokens: np.ndarray  # int32[max_running + 1]
    totals: Any  # Totals, as a record
    fault_call: np.ndarray  # float64[FAULT_CALL]; what the rule that failed answered, and then its arguments
    history: np.ndarray  # float64[apps, HISTORY_COLUMNS]
    kv_groups: np.ndarray  # int64[kinds, 5]: `niyama.kv`
    tenants: np.ndarray  # float64[tenants, 3]: `niyama.tenants`; no rows where nobody tells tenants apart


def new_state(
    capacity: int,
    max_running: int,
    apps: int,
    kv_tokens: int,
    alpha: float,
    block_tokens: int = KV_BLOCK_TOKENS,
    *,
    kv_groups: Sequence[Sequence[int]] | None = None,
    step_tokens: int = NO_LIMIT,
    ahead_tokens: int = 0,
    align_tokens: int = 0,
    tenants: int = 0,
) -> State:
    """An idle scheduler for up to `capacity` live requests and `kv_tokens` tokens of KV (whole blocks).

    kv_groups: rows of `niyama.kv`, None for one group of full attention; then kv_tokens are those of one group that
    has all blocks. step_tokens: most of an iteration, decodes included. ahead_tokens, align_tokens: as in `Totals`.
    tenants: how many there are, numbered from 0; 0 where they are not told apart.
    """
    ids = [np.zeros(max_running + 1, np.int32) for _ in range(4)]
    blocks = kv_tokens // block_tokens
    totals = Totals(
        block_tokens=block_tokens,
        kv_total_blocks=blocks,
        kv_free_blocks=blocks,
        step_tokens=step_tokens,
        ahead_tokens=ahead_tokens,
        align_tokens=align_tokens,
        slots=max_running,
        alpha=alpha,
    )
    groups = np.array(kv_groups or [(block_tokens, 1, NO_LIMIT, NO_LIMIT, 0)], np.int64)
    history, fault_call = np.zeros((apps, HISTORY_COLUMNS)), np.zeros(FAULT_CALL)
    return State(new_queues(capacity), *ids, record(totals), fault_call, history, groups, np.zeros((tenants, 3)))


@compiled
def remove(ids, size, r):
    """Take `r` out of an unordered list of `size`; returns its size then. A list that lacks `r` stays as it is."""
    for i in range(size):
        if ids[i] == r:
            ids[i] = ids[size - 1]
            return size - 1
    return size


@compiled
def stop_decoding(s, t, r):
    """Request `r` decodes no longer."""
    s.totals.running = remove(s.running, s.totals.running, r)
    s.totals.running_context -= t.computed_tokens[r]
