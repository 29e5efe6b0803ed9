"""The paper's three mechanisms as pure functions: `rank`, `prefill_budget` and `doomed`, in several versions each.

A policy picks one of each, and may add a fourth, `due`, which the paper does not have. They are compiled to function
pointers, so every policy, a user's own included, runs through the same compiled kernel. They see only what their
arguments say: no clock, no table, and no true output length, unless the simulator's `estimator` is `oracle`:
`decode_left` is then what is left of it.

To write one, put its decorator above a function of these arguments, and give it to a `Policy` under the rule's name:

    @rank_rule    def f(job, alpha)                             a number, lower is served first: `Job`
    @budget_rule  def f(model, batch, limits, prefix, slack_s)  prompt tokens to add to the batch, 0 or more: `Limits`,
                                                                `latency.model.Batch`, and its `seconds`, `fit_tokens`
    @doomed_rule  def f(forecast)                               True to relegate: `Forecast`
    @due_rule     def f(decode, step)                           False to leave it out of the step: `Decode`, `Step`

Rules keep no state: a rule may read constants (numbers, tuples, numpy arrays), and changes nothing. What has to be kept
the kernel keeps: what each tenant was served (`Job`), a decode's credit and how often it was left out (`Decode`). A
rank is computed on arrival and after each chunk; one that looks at the time, the load or tenants wants the policy's
number `rerank_s`. Every started output gets its next token in every iteration, unless `due` leaves it out
(`niyama.due`); `prefill_budget` decides only what is added. docs/ARCHITECTURE.md says what no rule can do.
A rule that raises, a rank that is not finite or a budget below 0 stops the run (in vLLM: hands over to vLLM's own
order) with file, line and arguments (`niyama.faults`).
"""

from __future__ import annotations

import math

import numpy as np

from niyama.inputs import Forecast
from niyama.inputs import Job as Job  # files of users may import these from here, too
from niyama.inputs import Limits as Limits
from niyama.jit import compiled
from niyama.latency.model import empty_batch, fit_tokens, seconds, with_prefill
from niyama.rule_kinds import budget_rule, doomed_rule, due_rule, rank_rule

Outlook = Forecast  # its earlier name, which files of users may import


@rank_rule
def hybrid(job, alpha):
    """Eq 4 and 5: deadline plus alpha (s/token) times the remaining work; lower is served first."""
    work = job.prefill_left if job.interactive else job.prefill_left + job.decode_left
    return job.deadline_s + alpha * work


@rank_rule
def latest_start(job, alpha):
    """Eq 4; of a batch request the time that its decodes take comes before the deadline, as `doomed` counts it."""
    deadline_s = job.deadline_s if job.interactive else job.deadline_s - job.decode_s * job.decode_left
    return deadline_s + alpha * job.prefill_left


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


@compiled
def _room(batch, limits):
    """Prefill tokens up to the largest chunk, a smaller one while KV is low."""
    most = limits.max_chunk_tokens
    if limits.kv_free_tokens < limits.kv_low_tokens:
        most = min(most, limits.kv_low_chunk_tokens)
    return most - batch.prefill_tokens


@budget_rule
def dynamic_chunk(model, batch, limits, prefix, slack_s):
    """Section 3.3: the most prefill tokens whose predicted step fits the decodes' least slack."""
    room = _room(batch, limits)
    if room <= 0:
        return 0
    if slack_s == np.inf:
        return room
    fits = fit_tokens(model, batch, prefix, slack_s / limits.margin, room)
    return min(room, max(fits, limits.min_chunk_tokens - batch.prefill_tokens, 0))


#: Queued demand from which steps grow longer, and at which they are longest: of batch and of interactive prompts.
BATCH_DEMAND, INTERACTIVE_DEMAND = (0.02, 0.10), (0.20, 0.40)
#: Steady steps are so many mean errors of the prediction shorter, so that few of them outlast the TBT.
SPREADS = 2.0


@compiled
def _between(demand, bounds):
    return min(1.0, max(0.0, (demand - bounds[0]) / (bounds[1] - bounds[0])))


@budget_rule
def tbt_chunk(model, batch, limits, prefix, slack_s):
    """Section 3.3 with even steps: they last `steady_tbts` TBTs, and longer as the queue demands it.

    Long steps prefill faster, but every decode feels them, and each request holds its KV for longer: they stay short
    while KV is scarce.
    """
    room = _room(batch, limits)
    if room <= 0:
        return 0
    if slack_s == np.inf:
        return room
    step_s = slack_s / limits.margin
    if limits.tbt_s < np.inf:
        tbts = limits.steady_tbts / math.exp(SPREADS * limits.step_spread)
        if limits.kv_free_tokens >= limits.long_step_kv_free * limits.kv_total_tokens:
            much = _between(limits.batch_demand, BATCH_DEMAND) * (limits.longest_tbts - tbts)
            urgent = _between(limits.interactive_demand, INTERACTIVE_DEMAND) * (limits.urgent_tbts - tbts)
            tbts += max(much, urgent, 0.0)
        step_s = min(step_s, tbts * limits.tbt_s)
    fits = fit_tokens(model, batch, prefix, step_s, room)
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


#: They read neither demand nor `tbt_s`, which are then not computed; a user's rule may.
WITHOUT_DEMAND = (fixed_chunk, dynamic_chunk, steady_chunk, grid_chunk)


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


@due_rule
def always(decode, step):
    """Every decode gets its next token in every step."""
    return True
