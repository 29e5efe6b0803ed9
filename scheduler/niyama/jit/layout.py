"""One step of the kernel by addresses: where all that it works on lies in memory, and how it is read there."""

from __future__ import annotations

import numpy as np
from numba import config, typeof, types

from niyama.jit import compiled
from niyama.jit.pointers import layout_of, rebuilt, table_at
from niyama.kernel import Kernel
from niyama.latency.model import MODEL_TYPE
from niyama.policies import PARAMS_TYPE, Rules
from niyama.requests import new_table
from niyama.rule_kinds import RULE_TYPES
from niyama.state import new_state
from niyama.step import step

ANSWER = 12  # numbers that `tell` writes


def kernel_type() -> types.Type:
    """numba's type of every Kernel."""
    state, table = new_state(1, 1, 1, 1, 0.0), new_table(1)
    rules = types.NamedTuple(RULE_TYPES, Rules)
    return types.NamedTuple([typeof(state), typeof(table), PARAMS_TYPE, rules, MODEL_TYPE], Kernel)


_kernel_at = None if config.DISABLE_JIT else rebuilt(types.Tuple([kernel_type(), types.float64[::1]]))
_events_at = table_at(types.int32[:, ::1])


def layout(kernel: Kernel, answer: np.ndarray) -> np.ndarray:
    """Where everything is, for `step_by_address`; anew when an array is replaced."""
    return layout_of((kernel, answer))


@compiled
def tell(s, batch, answer):
    """Write what the engine reads of the plan that was just made, except the chunks, into `answer`."""
    totals = s.totals
    answer[0] = totals.planned
    answer[1], answer[2], answer[3] = batch.decodes, batch.decode_context, batch.prefill_tokens
    answer[4], answer[5] = batch.prefill_work, batch.top_prefix
    answer[6], answer[7] = totals.predicted_s, totals.relegations
    answer[8], answer[9] = totals.un_relegations, totals.preemptions
    answer[10], answer[11] = totals.kv_free_blocks, totals.fault


@compiled
def step_by_address(where, events, n, prefill_tokens, began_s, ended_s, now_s):
    """`step` and `tell`: all that stays is at `where` (a `layout`); events: the address of int32[n, 3]."""
    k, answer = _kernel_at(where)
    tell(k.state, step(k, _events_at(events, n, 3), n, prefill_tokens, began_s, ended_s, now_s), answer)
