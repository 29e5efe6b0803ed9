"""The paper's three mechanisms as pure functions: `rank`, `prefill_budget` and `doomed`, in several versions each.

A policy picks one of each. They are compiled to function pointers, so every policy, a user's own included, runs
through the same compiled kernel. They see only what their arguments say: no clock, no table, no true output length.

To write one, put its decorator above a function of these arguments, and give it to a `Policy` under the rule's name:

    @rank_rule    def f(job, alpha)                             a number, lower is served first: `Job`
    @budget_rule  def f(model, batch, limits, prefix, slack_s)  prompt tokens to add to the batch, 0 or more: `Limits`,
                                                                `latency.model.Batch`, and its `seconds`, `fit_tokens`
    @doomed_rule  def f(forecast)                               True to relegate: `Forecast`

Rules keep no state: a rule may read constants (numbers, tuples, numpy arrays), and changes nothing. No rule touches
decodes: every started output gets its next token in every iteration, and `prefill_budget` decides only what is added.
A rule that raises, a rank that is not finite or a budget below 0 stops the run (in vLLM: hands over to vLLM's own
order) with file, line and arguments (`niyama.faults`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import types

from niyama.jit import compiled, tuple_type
from niyama.latency.model import (
    BATCH_TYPE,
    MODEL_TYPE,
    Batch,
    LatencyModel,
    empty_batch,
    fit_tokens,
    seconds,
    with_prefill,
)
from niyama.own_rules import RuleKind, rule_decorator

_F, _I = types.float64, types.int64


class Job(NamedTuple):
    """What `rank` may look at: one waiting request, in seconds and tokens."""

    arrival_s: float
    deadline_s: float  # first token (interactive) or last token (batch)
    prompt_tokens: int
    prefill_left: int
    decode_left: float  # estimated output still to come
    interactive: bool


class Forecast(NamedTuple):
    """What `doomed` may look at: the request's deadline and when it could be met at the earliest."""

    now_s: float
    earliest_s: float  # predicted time of meeting it, were the request served from now on
    deadline_s: float
    prefill_left: int
    started: bool  # some of the prompt is in KV already
    prefill_rate: float  # tokens/s, running average of what iterations achieved


Outlook = Forecast  # its earlier name, which files of users may import


class Limits(NamedTuple):
    """What `prefill_budget` may look at beside the batch: the policy's numbers and the KV left."""

    max_chunk_tokens: int
    min_chunk_tokens: int
    margin: float  # predicted time is multiplied by it before it is held against the slack
    kv_free_tokens: int
    kv_low_tokens: int  # below this much free KV ...
    kv_low_chunk_tokens: int  # ... chunks are no larger than this
    step_s: float = np.inf  # what a step may take, for the rule that holds every step to one length


JOB_TYPE, FORECAST_TYPE, LIMITS_TYPE = tuple_type(Job), tuple_type(Forecast), tuple_type(Limits)

_RANK = _F(JOB_TYPE, _F)  # (job, alpha) -> key, lower first; finite
# (model, batch so far, limits, prefix of the next chunk, least slack in s) -> prefill tokens to add
_BUDGET = _I(MODEL_TYPE, BATCH_TYPE, LIMITS_TYPE, _I, _F)
_DOOMED = types.int8(FORECAST_TYPE)  # (forecast) -> whether to relegate: 0 or 1, -1 where the rule raised

# Decorators for rules, a user's own too. A number that no rule answers says that it raised.
rank_rule = rule_decorator(RuleKind("rank", _RANK, {"job": Job, "alpha": None}, "float(value)", np.nan))
budget_rule = rule_decorator(
    RuleKind(
        "prefill_budget",
        _BUDGET,
        {"model": LatencyModel, "batch": Batch, "limits": Limits, "prefix": None, "slack_s": None},
        "int(value) if isfinite(value) else fault",
        -(2**63),
    )
)
doomed_rule = rule_decorator(RuleKind("doomed", _DOOMED, {"forecast": Forecast}, "1 if value else 0", -1))
RULE_TYPES = tuple(types.FunctionType(signature) for signature in (_RANK, _BUDGET, _DOOMED))


@compiled
def delayed(view, delay_s):
    """The forecast of the same request when it has to wait `delay_s` first."""
    return Forecast(
        view.now_s, view.earliest_s + delay_s, view.deadline_s, view.prefill_left, view.started, view.prefill_rate
    )


@rank_rule
def hybrid(job, alpha):
    """Eq 4 and 5: deadline plus alpha (s/token) times the remaining work; lower is served first."""
    work = job.prefill_left if job.interactive else job.prefill_left + job.decode_left
    return job.deadline_s + alpha * work


@rank_rule
def hybrid_prefill_only(job, alpha):
    """The artifact's priority: Eq 4 for every class; a batch deadline is moved forward by 0.4 s per output token."""
    deadline_s = job.deadline_s if job.interactive else job.deadline_s - 0.4 * job.decode_left
    return deadline_s + alpha * job.prefill_left


@rank_rule
def earliest_deadline(job, alpha):
    """EDF."""
    return job.deadline_s


@rank_rule
def first_come(job, alpha):
    """FCFS."""
    return job.arrival_s


@rank_rule
def shortest_job(job, alpha):
    """SJF: prompt plus estimated output, fixed at arrival."""
    return job.prompt_tokens + job.decode_left


@rank_rule
def shortest_remaining_prompt(job, alpha):
    """SRPF: prompt tokens still to prefill."""
    return float(job.prefill_left)


@budget_rule
def fixed_chunk(model, batch, limits, prefix, slack_s):
    """Sarathi: decodes and prefill share `max_chunk_tokens` tokens per iteration."""
    return max(0, limits.max_chunk_tokens - batch.decodes - batch.prefill_tokens)


@budget_rule
def dynamic_chunk(model, batch, limits, prefix, slack_s):
    """Section 3.3: the most prefill tokens whose predicted step fits the decodes' least slack."""
    most = limits.max_chunk_tokens
    if limits.kv_free_tokens < limits.kv_low_tokens:
        most = min(most, limits.kv_low_chunk_tokens)
    room = most - batch.prefill_tokens
    if room <= 0:
        return 0
    if slack_s == np.inf:
        return room
    fits = fit_tokens(model, batch, prefix, slack_s / limits.margin, room)
    return min(room, max(fits, limits.min_chunk_tokens - batch.prefill_tokens, 0))


@budget_rule
def steady_chunk(model, batch, limits, prefix, slack_s):
    """Medha's adaptive chunking (arXiv 2409.17264), as the paper compares it: every step lasts at most `step_s`.

    So the chunk shrinks as the prefix grows, whose attention takes its share of the step, and time that decodes have
    in hand is not spent. Without decodes the target holds too (our reading): steps keep one length.
    """
    room = limits.max_chunk_tokens - batch.prefill_tokens
    if room <= 0:
        return 0
    fits = fit_tokens(model, batch, prefix, limits.step_s / limits.margin, room)
    return min(room, max(fits, limits.min_chunk_tokens - batch.prefill_tokens, 0))


@compiled
def _grid_total(step, low_kv):
    if low_kv:
        return 128 * (step + 1)
    return 128 if step == 0 else min(256 * step, 2048) if step < 9 else 2552


@budget_rule
def grid_chunk(model, batch, limits, prefix, slack_s):
    """The artifact's search over total tokens 128, 256, 512, ... 2048, 2552; the smallest when slack has run out.

    Bisects as the artifact does, so where its latency model dips it may land on a smaller grid point than the best.
    The sizes are the artifact's: of `limits` only the margin and kv_low_tokens count.
    """
    if batch.prefill_tokens > 0:
        prefix = batch.top_prefix
    low_kv = limits.kv_free_tokens < limits.kv_low_tokens
    highest = 4 if low_kv else 10  # 128, 256, 384, 512 | 128, 256, 512, 768, ..., 2048, 2552
    best, bottom, top = 0, 0, highest - 1
    if batch.decodes == 0:
        best = top
    elif slack_s > 0.0:
        while bottom <= top:
            middle = (bottom + top) // 2
            prefill = max(0, _grid_total(middle, low_kv) - batch.decodes)
            trial = with_prefill(empty_batch(batch.decodes, batch.decode_context), prefix, prefill)
            if limits.margin * seconds(model, trial) <= slack_s:
                best, bottom = middle, middle + 1
            else:
                top = middle - 1
    return max(0, _grid_total(best, low_kv) - batch.decodes - batch.prefill_tokens)


@doomed_rule
def predicted_miss(forecast):
    """Eager relegation (section 3.4): missed already, or bound to be even if served from now on."""
    return forecast.earliest_s > forecast.deadline_s


@doomed_rule
def rate_miss_before_start(forecast):
    """The artifact's test: only before the first chunk, by the running prefill rate alone."""
    return not forecast.started and forecast.now_s + forecast.prefill_left / forecast.prefill_rate > forecast.deadline_s


@doomed_rule
def never(forecast):
    """No relegation."""
    return False
