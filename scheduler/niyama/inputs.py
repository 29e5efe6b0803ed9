"""What the rules of a policy may look at: plain tuples, in seconds and tokens. No true output length is among them."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niyama.jit import compiled, tuple_type

LOW_WEIGHT = 0.5


class Job(NamedTuple):
    """What `rank` may look at: one waiting request, in seconds and tokens."""

    arrival_s: float
    deadline_s: float  # first token (interactive) or last token (batch)
    prompt_tokens: int
    prefill_left: int
    decode_left: float  # estimated output still to come
    interactive: bool
    decode_s: float = 0.0  # what each token of that is taken to need
    now_s: float = 0.0  # start of the last plan, or the arrival if that is later: when the rank is computed
    step_s: float = 0.0  # what the last plan with prompts in line predicted for all decodes and a full chunk
    queued_prefill_tokens: int = 0  # of all that wait and are not relegated, this one included
    weight: float = 1.0  # 1 for high importance, LOW_WEIGHT for low
    tenant: int = 0
    tenant_tokens: float = 0.0  # served to the tenant so far: prompt tokens, and output tokens OUTPUT_WEIGHT times
    tenant_virtual: float = 0.0  # the same, but raised where the tenant comes back (`niyama.tenants`)


class Forecast(NamedTuple):
    """What `doomed` may look at: the request's deadline and when it could be met at the earliest."""

    now_s: float
    earliest_s: float  # predicted time of meeting it, were the request served from now on
    deadline_s: float
    prefill_left: int
    started: bool  # some of the prompt is in KV already
    prefill_rate: float  # tokens/s, running average of what iterations achieved


class Limits(NamedTuple):
    """What `prefill_budget` may look at beside the batch: the policy's numbers, the KV left and what is queued."""

    max_chunk_tokens: int
    min_chunk_tokens: int
    margin: float  # predicted time is multiplied by it before it is held against the slack
    kv_free_tokens: int
    kv_low_tokens: int  # below this much free KV ...
    kv_low_chunk_tokens: int  # ... chunks are no larger than this
    step_s: float = np.inf  # what a step may take, for the rule that holds every step to one length
    kv_total_tokens: int = 0
    tbt_s: float = np.inf  # the tightest TBT of the interactive decodes that have deadlines; inf without one
    step_spread: float = 0.0  # mean absolute error of the predicted step times so far, of their logarithms
    interactive_demand: float = 0.0  # share of all steps, were they full chunks, that queued interactive prompts need
    batch_demand: float = 0.0  # the same for queued batch prompts
    steady_tbts: float = np.inf  # how long a step may be, in TBTs, while little is queued ...
    longest_tbts: float = np.inf  # ... when much is ...
    urgent_tbts: float = np.inf  # ... and when that is urgent
    long_step_kv_free: float = 0.0  # the share of the KV that must be free for longer ones
    prompts: int = 0  # requests that wait for prefill or are in it, relegated ones included
    started_prompts: int = 0  # those of them with some of their prompt in KV
    queued_prefill_tokens: int = 0  # of those not relegated
    decodes: int = 0  # all that decode, those that are left out of the step included
    next_slack_s: float = np.inf  # least time until the decodes' tokens after the next ones are due


class Decode(NamedTuple):
    """What `due` may look at of one request that decodes, in seconds and tokens."""

    slack_s: float  # until its next token is due; negative once that is late, inf where nothing is promised any more
    interval_s: float  # between the deadlines of its tokens; inf where there is none
    emitted_tokens: int
    left_out: int  # steps in a row that it was left out of
    credit: float  # earns `tightest_interval_s / interval_s` a step, this one included; a token costs 1; never below 0
    interactive: bool
    important: bool


class Step(NamedTuple):
    """What `due` may look at of the step that is planned."""

    now_s: float  # when it starts
    step_s: float  # predicted to take, with all decodes and, if prompts wait, a full chunk
    mean_step_s: float  # what steps have taken, the last some hundred; 0 before the first
    kv_used: float  # share of the blocks
    decodes: int  # all, those that were left out included
    queued_prefill_tokens: int  # of requests not relegated
    tightest_interval_s: float  # the least of the decodes'; inf without one


JOB_TYPE, FORECAST_TYPE, LIMITS_TYPE = tuple_type(Job), tuple_type(Forecast), tuple_type(Limits)
DECODE_TYPE, STEP_TYPE = tuple_type(Decode), tuple_type(Step)


@compiled
def delayed(view, delay_s):
    """The forecast of the same request when it has to wait `delay_s` first."""
    return Forecast(
        view.now_s, view.earliest_s + delay_s, view.deadline_s, view.prefill_left, view.started, view.prefill_rate
    )
