"""Asking a policy's rules, and what happens when one of them fails: the run stops and says where.

Compiled code cannot carry an exception out of a function pointer. So a user's rule answers what no sound rule does
when it raises (`niyama.own_rules`); whoever asks notes that, once, with the arguments, and the engine stops. The call
is then repeated in plain Python, which names file, line and error. A senseless answer stops the engine too.
"""

from __future__ import annotations

import math
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any

from niyama.inputs import Decode, Forecast, Job, Limits, Step
from niyama.jit import compiled, compiled_apart
from niyama.latency import Batch, LatencyModel
from niyama.own_rules import RuleError, source_of
from niyama.state import NO_FAULT, State

if TYPE_CHECKING:
    from niyama.policies import Policy

RANK, BUDGET, DOOMED, DUE = 1, 2, 3, 4  # values of totals.fault beside NO_FAULT
_RULES = {RANK: "rank", BUDGET: "prefill_budget", DOOMED: "doomed", DUE: "due"}
_WANTED = {RANK: "a finite number", BUDGET: "a number of tokens from 0 to 2147483647 (decodes are left out by `due`)"}
_WANTED |= dict.fromkeys((DOOMED, DUE), "True or False")
MOST_TOKENS = 2**31 - 1


@compiled
def ask_rank(k, job):
    """The request's rank, lower first."""
    alpha = k.state.totals.alpha
    key = k.rules.rank(job, alpha)
    if not math.isfinite(key):
        _note_rank(k.state, job, alpha, key)
    return key


@compiled
def ask_budget(k, batch, limits, prefix, slack_s):
    """Prefill tokens to add to the batch."""
    tokens = k.rules.prefill_budget(k.model, batch, limits, prefix, slack_s)
    if not 0 <= tokens <= MOST_TOKENS:
        _note_budget(k.state, batch, limits, prefix, slack_s, tokens)
        return 0
    return int(tokens)


@compiled
def ask_doomed(k, view):
    """Whether to relegate."""
    verdict = k.rules.doomed(view)
    if verdict < 0:
        _note_doomed(k.state, view)
        return False
    return verdict > 0


@compiled
def ask_due(k, decode, step):
    """Whether the decode gets its next token in the step."""
    verdict = k.rules.due(decode, step)
    if verdict < 0:
        _note_due(k.state, decode, step)
        return True
    return verdict > 0


@compiled_apart
def _note_rank(s, job, alpha, key):
    if s.totals.fault != NO_FAULT:
        return
    s.totals.fault = RANK
    call = s.fault_call
    call[0], call[1], call[2], call[3], call[4] = (
        key,
        job.arrival_s,
        job.deadline_s,
        job.prompt_tokens,
        job.prefill_left,
    )
    call[5], call[6], call[7], call[8] = job.decode_left, job.interactive, job.decode_s, job.now_s
    call[9], call[10], call[11], call[12] = job.step_s, job.queued_prefill_tokens, job.weight, job.tenant
    call[13], call[14], call[15] = job.tenant_tokens, job.tenant_virtual, alpha


@compiled_apart
def _note_budget(s, batch, limits, prefix, slack_s, tokens):
    if s.totals.fault != NO_FAULT:
        return
    s.totals.fault = BUDGET
    call = s.fault_call
    call[0], call[1], call[2], call[3] = tokens, batch.decodes, batch.decode_context, batch.prefill_tokens
    call[4], call[5], call[6] = batch.prefill_work, batch.top_prefix, limits.max_chunk_tokens
    call[7], call[8], call[9] = limits.min_chunk_tokens, limits.margin, limits.kv_free_tokens
    call[10], call[11], call[12] = limits.kv_low_tokens, limits.kv_low_chunk_tokens, limits.step_s
    call[13], call[14], call[15] = limits.kv_total_tokens, limits.tbt_s, limits.step_spread
    call[16], call[17], call[18] = limits.interactive_demand, limits.batch_demand, limits.steady_tbts
    call[19], call[20], call[21] = limits.longest_tbts, limits.urgent_tbts, limits.long_step_kv_free
    call[22], call[23], call[24] = limits.prompts, limits.started_prompts, limits.queued_prefill_tokens
    call[25], call[26], call[27], call[28] = limits.decodes, limits.next_slack_s, prefix, slack_s


@compiled_apart
def _note_doomed(s, view):
    if s.totals.fault != NO_FAULT:
        return
    s.totals.fault = DOOMED
    call = s.fault_call
    call[1], call[2], call[3] = view.now_s, view.earliest_s, view.deadline_s
    call[4], call[5], call[6] = view.prefill_left, view.started, view.prefill_rate


@compiled_apart
def _note_due(s, decode, step):
    if s.totals.fault != NO_FAULT:
        return
    s.totals.fault = DUE
    call = s.fault_call
    call[1], call[2], call[3], call[4] = decode.slack_s, decode.interval_s, decode.emitted_tokens, decode.left_out
    call[5], call[6], call[7] = decode.credit, decode.interactive, decode.important
    call[8], call[9], call[10], call[11] = step.now_s, step.step_s, step.mean_step_s, step.kv_used
    call[12], call[13], call[14] = step.decodes, step.queued_prefill_tokens, step.tightest_interval_s


def refuse_fault(policy: Policy, s: State, model: LatencyModel) -> None:
    """RuleError when a rule of `policy` has failed since the scheduler was made; model: the predictor it was given."""
    if s.totals["fault"] != NO_FAULT:
        raise _explained(policy, int(s.totals["fault"]), s.fault_call.tolist(), model)


def rule_error(policy: Policy, error: Exception) -> Exception:
    """An exception that came out of a rule run as plain Python, as a RuleError; any other as it is."""
    for kind, name in _RULES.items():
        code = source_of(getattr(policy, name)).__code__
        if any(frame.f_code is code for frame, _ in traceback.walk_tb(error.__traceback__)):
            return RuleError(f"{_where(policy, kind, error)}: {_said(error)}; correct the rule")
    return error


def _explained(policy: Policy, kind: int, noted: list[float], model: LatencyModel) -> RuleError:
    """Repeat the call that failed in plain Python and say what it does."""
    answer, arguments = noted[0], _arguments(kind, noted[1:], model)
    shown = ", ".join(str(value) for value in arguments if not isinstance(value, LatencyModel))
    try:
        again = source_of(getattr(policy, _RULES[kind]))(*arguments)
    except Exception as error:
        return RuleError(f"{_where(policy, kind, error)}: {_said(error)}, asked about {shown}; correct the rule")
    if kind in (DOOMED, DUE) or not _sound(kind, again):
        answer = again
    return RuleError(f"{_where(policy, kind, None)} answers {answer}, asked about {shown}; it must be {_WANTED[kind]}")


def _sound(kind: int, answer: Any) -> bool:
    return math.isfinite(answer) and (kind != BUDGET or 0 <= answer <= MOST_TOKENS)


def _arguments(kind: int, noted: list[float], model: LatencyModel) -> tuple[Any, ...]:
    """The rule's arguments from the numbers noted, each of its declared type."""
    if kind == RANK:
        return _typed(Job, noted[:14]), noted[14]
    if kind == DOOMED:
        return (_typed(Forecast, noted[:6]),)
    if kind == DUE:
        return _typed(Decode, noted[:7]), _typed(Step, noted[7:14])
    return model, _typed(Batch, noted[:5]), _typed(Limits, noted[5:26]), int(noted[26]), noted[27]


def _typed(view: type, numbers: list[float]) -> Any:
    kinds = {"int": int, "float": float, "bool": bool}
    names = (getattr(kind, "__name__", kind) for kind in view.__annotations__.values())
    return view(*(kinds[getattr(n, "__forward_arg__", n)](v) for n, v in zip(names, numbers, strict=True)))


def _where(policy: Policy, kind: int, error: Exception | None) -> str:
    """Policy, file, line and rule; the line is the innermost of the rule's file that `error` passed, or the rule's."""
    source = source_of(getattr(policy, _RULES[kind]))
    file, line = source.__code__.co_filename, source.__code__.co_firstlineno
    for frame in traceback.extract_tb(error.__traceback__) if error is not None else ():
        if frame.filename == file:
            line = frame.lineno
    return f"policy {policy.name!r}: {Path(file).name}, line {line}, {_RULES[kind]} {source.__name__!r}"


def _said(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split()).removesuffix(":")
