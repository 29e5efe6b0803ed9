"""The scheduler's own state: queues, who is running, counters and the plan being made."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from niyama.estimators import HISTORY_COLUMNS
from niyama.queues import Queues, new_queues

KV_BLOCK_TOKENS = 16  # where the host does not say otherwise
NO_LIMIT = 1 << 40

# indices of Scheduler.count
RUNNING = 0  # decoding requests
PREFILLING = 1  # requests with part of their prompt in KV
PLANNED = 2  # prefill chunks in the plan
KV_FREE_BLOCKS = 3  # neither held nor reserved
KV_HELD_TOKENS = 4
KV_TOTAL_BLOCKS = 5
QUEUED_PREFILL_TOKENS = 6  # of requests not relegated
IMPORTANT_INTERACTIVE_TOKENS = 7  # the part of those that important interactive requests wait for
RELEGATIONS = 8
UN_RELEGATIONS = 9
PREEMPTIONS = 10
QUEUED = 11  # requests waiting, relegated ones included
RUNNING_CONTEXT = 12  # tokens of KV the decodes attend to
KV_SHORT = 13  # 1 when some decode may lack the KV for its next token
BLOCK_TOKENS = 14  # tokens that a block of KV holds
FAULT = 15  # which of the policy's rules has failed (`niyama.faults`), or NO_FAULT
STEP_TOKENS = 16  # most tokens of an iteration, decodes included
CHUNK_TOKENS = 17  # most prompt tokens of one request in an iteration
PREFILLS_HELD = 18  # 1 while only decodes may be planned, for the next iteration alone
SLOTS = 19  # most requests that hold KV at a time; at 0 none of them is to lose it
REFUSED = 20  # the request that the host has no room for, or NOBODY; for the next iteration alone
COUNTERS = 21
NO_FAULT, NOBODY = 0, -1

# indices of Scheduler.gauge
ALPHA = 0  # s per token, in force
PREFILL_RATE = 1  # tokens/s, running average (artifact: starts at 8500, weight 0.995)
MIN_SLACK_S = 2  # least decode slack of the last plan
PREDICTED_S = 3  # predicted duration of the last plan
FAULT_ANSWER = 4  # what the rule that failed answered, and then its arguments
GAUGES = 19


class Scheduler(NamedTuple):
    """Mutable arrays, written by `niyama.plan` and `niyama.commit` only."""

    queues: Queues
    running: np.ndarray  # int32[max_running + 1]; ids, the first count[RUNNING] valid
    prefilling: np.ndarray  # int32[max_running + 1]
    plan_ids: np.ndarray  # int32[max_running + 1]
    plan_tokens: np.ndarray  # int32[max_running + 1]
    count: np.ndarray  # int64[COUNTERS]
    gauge: np.ndarray  # float64[GAUGES]
    history: np.ndarray  # float64[apps, HISTORY_COLUMNS]
    kv_groups: np.ndarray  # int64[kinds, 5]: `niyama.kv`


def new_scheduler(
    capacity: int,
    max_running: int,
    apps: int,
    kv_tokens: int,
    alpha: float,
    block_tokens: int = KV_BLOCK_TOKENS,
    *,
    kv_groups: Sequence[Sequence[int]] | None = None,
    step_tokens: int = NO_LIMIT,
) -> Scheduler:
    """An idle scheduler for up to `capacity` live requests and `kv_tokens` tokens of KV (whole blocks).

    kv_groups: rows of `niyama.kv`, None for one group of full attention; then kv_tokens are those of one group that
    has all blocks. step_tokens: most of an iteration, decodes included.
    """
    ids = [np.zeros(max_running + 1, np.int32) for _ in range(4)]
    count = np.zeros(COUNTERS, np.int64)
    count[BLOCK_TOKENS] = block_tokens
    count[KV_TOTAL_BLOCKS] = count[KV_FREE_BLOCKS] = kv_tokens // block_tokens
    count[STEP_TOKENS], count[CHUNK_TOKENS] = step_tokens, NO_LIMIT
    count[SLOTS], count[REFUSED] = max_running, NOBODY
    groups = np.array(kv_groups or [(block_tokens, 1, NO_LIMIT, NO_LIMIT, 0)], np.int64)
    gauge = np.zeros(GAUGES)
    gauge[ALPHA], gauge[PREFILL_RATE] = alpha, 8500.0
    return Scheduler(new_queues(capacity), *ids, count, gauge, np.zeros((apps, HISTORY_COLUMNS)), groups)
