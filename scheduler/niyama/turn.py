"""One turn of a host that is not compiled: take in what happened since the last turn, then plan the next iteration.

A host in Python (the vLLM plug-in, a replay) calls this once per iteration. All that it knows arrives as a list of
events, in the order in which they happened; the events of every turn, written down, are a decision log.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import typeof, types

from niyama.addresses import arrays_at, layout_of, numbers_at, table_at
from niyama.commit import (
    commit_chunk,
    commit_decode,
    count_decodes,
    count_prefill,
    enqueue,
    observe_step,
)
from niyama.compiled import compiled
from niyama.latency import LatencyModel
from niyama.plan import plan
from niyama.policies import Params, Rules
from niyama.queues import Queues
from niyama.release import leave, preempt, secure_decode_blocks
from niyama.requests import RequestTable, new_table
from niyama.rules import budget_at, doomed_at, rank_at
from niyama.scheduler import (
    CHUNK_TOKENS,
    FAULT,
    KV_FREE_BLOCKS,
    PLANNED,
    PREDICTED_S,
    PREEMPTIONS,
    PREFILLS_HELD,
    REFUSED,
    RELEGATIONS,
    RUNNING,
    SLOTS,
    UN_RELEGATIONS,
    Scheduler,
)

# Kinds of event: (kind, request, value).
DECODED = 0  # got its next token; value: unused
CHUNK = 1  # `value` tokens of a planned request were computed, 0 when the host granted none
SIZED = 2  # it has `value` tokens to prefill in all, not what was said before (a prefix was cached, output was lost)
LOST = 3  # the host dropped its KV, and `value` tokens that were reported and that nobody has seen
ENDED = 4  # finished with `value` output tokens
LEFT = 5  # aborted
ARRIVED = 6  # its row of the table is filled in
ALL_DECODED = 7  # every decoding request got its next token; request and value: unused
HELD = 8  # the next iteration has decodes only; request and value: unused
CAPPED = 9  # from now on no request gets more than `value` prompt tokens in an iteration; request: unused
NO_ROOM = 10  # the host has no room for a request without KV: neither it nor one behind it starts in the next iteration
SLOTTED = 11  # from now on at most `value` requests hold KV; at 0 (a pause) those that do keep it; request: unused
KINDS = ("decoded", "chunk", "sized", "lost", "ended", "left", "arrived", "all decoded", "held", "capped")
KINDS += ("no room", "slotted")


@compiled
def turn(s, t, p, rules, model, events, n, prefill_tokens, began_s, ended_s, now_s):
    """Take in the first `n` rows of `events` (int32[:, 3]: kind, request, value); plan the iteration from `now_s` on.

    began_s, ended_s: the iteration whose tokens the events report, as far as the host knows; prefill_tokens: how many
    prompt tokens it computed. Returns the planned Batch; chunks are in s.plan_ids, s.plan_tokens, s.count[PLANNED].
    """
    decoded, short = 0, False
    for i in range(n):
        kind, r, value = events[i, 0], events[i, 1], events[i, 2]
        if kind == DECODED:
            short |= commit_decode(s, t, r, 1)
            decoded += 1
            continue
        if decoded > 0:
            count_decodes(s, decoded, short)
            decoded, short = 0, False
        if kind == ALL_DECODED:
            for k in range(s.count[RUNNING]):
                short |= commit_decode(s, t, s.running[k], 1)
            decoded = s.count[RUNNING]
        else:
            _take_in(s, t, p, rules, kind, r, value, ended_s)
    if decoded > 0:
        count_decodes(s, decoded, short)
    if ended_s > began_s:
        observe_step(s, prefill_tokens, ended_s - began_s)
    secure_decode_blocks(s, t, p, rules)
    return plan(s, t, p, rules, model, now_s)


class _Lists(NamedTuple):
    """The arrays of a Scheduler beside its queues, and what else does not change from turn to turn."""

    running: np.ndarray
    prefilling: np.ndarray
    plan_ids: np.ndarray
    plan_tokens: np.ndarray
    count: np.ndarray
    gauge: np.ndarray
    history: np.ndarray
    kv_groups: np.ndarray
    params: np.ndarray  # float64: Params
    coefficients: np.ndarray  # float64: those of the predictor
    answer: np.ndarray  # float64[ANSWER]: what `tell` writes


# What the host reads of a plan beside its chunks: PLANNED, the five numbers of the Batch, and these.
ANSWER = 12

_I4, _F8 = types.int32[::1], types.float64[::1]
_COLUMNS = tuple(typeof(column) for column in new_table(1))
_LISTS = (_I4, _I4, _I4, _I4, types.int64[::1], _F8, types.float64[:, ::1], types.int64[:, ::1], _F8, _F8, _F8)
_NUMBA = {int: types.int64, float: types.float64, bool: types.boolean}
_table_at = arrays_at(RequestTable, _COLUMNS)
_queues_at = arrays_at(Queues, (types.float64[:, ::1], types.int32[:, ::1], types.int64[::1]))
_lists_at = arrays_at(_Lists, _LISTS)
_params_at = numbers_at(Params, tuple(_NUMBA[kind] for kind in Params.__annotations__.values()))
_events_at = table_at(types.int32[:, ::1])
_QUEUES_FIRST = 2 * len(_COLUMNS)  # address and length of each
_LISTS_FIRST = _QUEUES_FIRST + 3 + 3 + 2
_RULES_FIRST = _LISTS_FIRST + sum(1 + kind.ndim for kind in _LISTS)


def layout(
    s: Scheduler, t: RequestTable, params: np.ndarray, rules: tuple[int, ...], model: LatencyModel, answer: np.ndarray
) -> np.ndarray:
    """Where everything is, for `turn_by_address`; anew when an array is replaced. rules: addresses."""
    arrays = layout_of((*t, *s.queues, *s[1:], params, model.coef, answer))
    return np.concatenate([arrays, np.array([*rules, model.kind], np.int64)])


@compiled
def tell(s, batch, answer):
    """Write what the host reads of the plan that was just made, except the chunks, into `answer`."""
    answer[0] = s.count[PLANNED]
    answer[1], answer[2], answer[3] = batch.decodes, batch.decode_context, batch.prefill_tokens
    answer[4], answer[5] = batch.prefill_work, batch.top_prefix
    answer[6], answer[7] = s.gauge[PREDICTED_S], s.count[RELEGATIONS]
    answer[8], answer[9] = s.count[UN_RELEGATIONS], s.count[PREEMPTIONS]
    answer[10], answer[11] = s.count[KV_FREE_BLOCKS], s.count[FAULT]


@compiled
def turn_by_address(where, events, n, prefill_tokens, began_s, ended_s, now_s):
    """`turn` and `tell`: all that stays is at `where` (a `layout`); events: the address of int32[n, 3]."""
    lists = _lists_at(where, _LISTS_FIRST)
    s = Scheduler(
        _queues_at(where, _QUEUES_FIRST),
        lists.running,
        lists.prefilling,
        lists.plan_ids,
        lists.plan_tokens,
        lists.count,
        lists.gauge,
        lists.history,
        lists.kv_groups,
    )
    first = _RULES_FIRST
    rules = Rules(rank_at(where[first]), budget_at(where[first + 1]), doomed_at(where[first + 2]))
    model = LatencyModel(where[first + 3], lists.coefficients)
    batch = turn(
        s, _table_at(where, 0), _params_at(lists.params), rules, model, _events_at(events, n, 3), n, prefill_tokens,
        began_s, ended_s, now_s,
    )  # fmt: skip
    tell(s, batch, lists.answer)


@compiled
def _take_in(s, t, p, rules, kind, r, value, ended_s):
    if kind == CHUNK:
        commit_chunk(s, t, p, rules, r, value, ended_s)
    elif kind == SIZED:
        _resize(s, t, r, value)
    elif kind == LOST:
        preempt(s, t, p, rules, r, value)
    elif kind == ARRIVED:
        enqueue(s, t, p, rules, r)
    elif kind == HELD:
        s.count[PREFILLS_HELD] = 1
    elif kind == CAPPED:
        s.count[CHUNK_TOKENS] = value
    elif kind == NO_ROOM:
        s.count[REFUSED] = r
    elif kind == SLOTTED:
        s.count[SLOTS] = min(value, p.max_running)
    else:
        leave(s, t, r, value)


@compiled
def _resize(s, t, r, tokens):
    if not t.relegated[r]:
        count_prefill(s, t, r, np.int64(tokens) - t.target_tokens[r])
    t.target_tokens[r] = tokens
