"""The request table: what the scheduler knows of each request, as a structure of arrays.

There is no field for the true output length: an engine tells the table when a request has finished, not before.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

# state; LOADS: waits, and KV that lies elsewhere is loaded before its first chunk; LOADING: that is under way;
# LOADED: that has ended, and no chunk has been computed since
NEW, QUEUED, DECODING, FINISHED, LOADS, LOADING, LOADED = range(7)


class RequestTable(NamedTuple):
    """One row per request, indexed by request id. Written by `niyama.commit` and, where said, by the planner."""

    arrival_s: np.ndarray  # float64
    deadline_s: np.ndarray  # float64; first token (interactive, Eq 1) or last token (batch, Eq 3)
    tbt_s: np.ndarray  # float64; 0 for batch
    interactive: np.ndarray  # bool
    important: np.ndarray  # bool
    app: np.ndarray  # int32; whose output-length history applies
    tenant: np.ndarray  # int32; who is charged for it
    target_tokens: np.ndarray  # int32; to prefill before the next token: prompt, plus output lost to preemption
    computed_tokens: np.ndarray  # int32; tokens in KV, 0..target while prefilling, then one more per decode
    emitted_tokens: np.ndarray  # int32; output tokens so far
    decode_estimate: np.ndarray  # float64; estimated output length, frozen when the request is queued
    state: np.ndarray  # uint8
    relegated: np.ndarray  # bool; its deadline cannot be met (planner)
    late: np.ndarray  # bool; relegated, and in line for the share of late requests (planner)
    relegations: np.ndarray  # int32; times it was relegated (planner)
    preemptions: np.ndarray  # int32; times its KV was dropped
    key: np.ndarray  # float64; rank while queued, lower first
    queue: np.ndarray  # uint8; queue it waits in, or queues.NONE (planner)
    kv_blocks: np.ndarray  # int32; KV blocks reserved or held
    kv_room_tokens: np.ndarray  # int32; tokens that those blocks hold
    tokens_due_from_s: np.ndarray  # float64; output token k + 1 is due at this + k * token_interval_s; inf: never
    token_interval_s: np.ndarray  # float64
    left_out: np.ndarray  # int32; steps in a row that the decode was left out of, the planned one included (planner)
    credit: np.ndarray  # float64; of the decode: `niyama.inputs.Decode` (planner)


_FLOATS = ("arrival_s", "deadline_s", "tbt_s", "decode_estimate", "key", "tokens_due_from_s", "token_interval_s")
_DTYPES = {
    **dict.fromkeys((*_FLOATS, "credit"), np.float64),
    **dict.fromkeys(("interactive", "important", "relegated", "late"), np.bool_),
    **dict.fromkeys(("state", "queue"), np.uint8),
}


def new_table(capacity: int) -> RequestTable:
    """A table of `capacity` blank rows."""
    return RequestTable(*(np.zeros(capacity, _DTYPES.get(name, np.int32)) for name in RequestTable._fields))


def fill(
    table: RequestTable,
    *,
    arrival_s: np.ndarray,
    prompt_tokens: np.ndarray,
    deadline_slo_s: np.ndarray,
    tbt_s: np.ndarray,
    interactive: np.ndarray,
    important: np.ndarray,
    app: np.ndarray,
    tenant: np.ndarray | int = 0,
) -> None:
    """Write the first n rows from columns of length n, after checking them. Raises ValueError naming column and row."""
    _refuse("arrival_s", arrival_s, ~np.isfinite(arrival_s), "a finite number of seconds")
    _refuse("prompt_tokens", prompt_tokens, np.asarray(prompt_tokens) < 1, "at least 1")
    _refuse("deadline_slo_s", deadline_slo_s, ~(np.asarray(deadline_slo_s) > 0), "a positive number of seconds")
    late = interactive & ~(np.asarray(tbt_s) > 0)
    _refuse("tbt_s", tbt_s, late, "positive for an interactive request")
    n = len(arrival_s)
    table.arrival_s[:n] = arrival_s
    table.deadline_s[:n] = arrival_s + deadline_slo_s
    table.tbt_s[:n] = np.where(interactive, tbt_s, 0.0)
    table.interactive[:n] = interactive
    table.important[:n] = important
    table.app[:n] = app
    table.tenant[:n] = tenant
    table.target_tokens[:n] = prompt_tokens


def hand_over(table: RequestTable, emitted_tokens: np.ndarray) -> None:
    """Rows filled in just now have put out `emitted_tokens` (int[n]) elsewhere and come with their KV where it is > 0.

    That is the KV of the prompt and of every token but the last: one token is left to compute before the next comes
    out. Their token deadlines were set where they began; here they have none.
    """
    n = len(emitted_tokens)
    table.emitted_tokens[:n] = emitted_tokens
    table.computed_tokens[:n] = np.where(emitted_tokens > 0, table.target_tokens[:n] + emitted_tokens - 1, 0)
    table.target_tokens[:n] += np.asarray(emitted_tokens, np.int32)
    table.tokens_due_from_s[:n] = np.where(emitted_tokens > 0, np.inf, 0.0)


def _refuse(column: str, values: np.ndarray, bad: np.ndarray, wanted: str) -> None:
    if np.any(bad):
        row = int(np.argmax(bad))
        raise ValueError(f"request {row}: {column} is {np.asarray(values)[row]}; it must be {wanted}")
