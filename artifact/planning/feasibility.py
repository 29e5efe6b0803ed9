"""Which classes no number of replicas helps, and why: asked before anything is searched for."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from artifact.config import ConfigError
from artifact.experiments.alone import class_rates, why_alone
from artifact.planning.question import NIYAMA, Question, Served, serve, system_of
from artifact.planning.sizing import Sizing
from artifact.results.metrics import THRESHOLD
from niyama.sim import Requests

ALONE_REQUESTS = 3_000  # each served alone: enough to tell 1 % from 2 %
APART_S = 1e4  # longer than a request alone takes


def refuse_impossible(sizing: Sizing) -> None:
    """ConfigError that names every class that misses more than the threshold although each request is served alone.

    Under Niyama's policy, whose chunks are the largest that a class's tokens leave room for: others do no better.
    """
    question = sizing.question
    system = next((name for name in question.systems if name in NIYAMA), NIYAMA[0])
    if found := impossible(sizing, system):
        advice = "relax these SLOs, give such requests another class, or plan --without the class"
        raise ConfigError("; ".join(found) + f"; {advice}")


def impossible(sizing: Sizing, system: str) -> list[str]:
    """A sentence for each class that the system cannot serve, whatever its size."""
    found = []
    for qos in sizing.pools(system):
        requests = sizing.workloads.requests(0, 1.0, qos)
        fleet = system_of(system, (qos,) if qos else sizing.question.classes, None, sizing.question.card)
        done = serve(sizing.question, fleet, system, _apart(requests), 0)
        rates = class_rates(done, sizing.question.with_tbt)
        found += [_reason(sizing.question, done, index, rates[index]) for index in np.flatnonzero(rates > THRESHOLD)]
    return found


def _apart(requests: Requests) -> Requests:
    """The first of them, each when the one before is done."""
    few = slice(0, ALONE_REQUESTS)
    arrays = {
        name: getattr(requests, name)[few] for name in ("class_index", "prompt_tokens", "output_tokens", "important")
    }
    return replace(requests, arrival_s=APART_S * np.arange(len(arrays["class_index"])), **arrays)


def _reason(question: Question, done: Served, index: int, rate: float) -> str:
    """Why a class cannot be met, and for TTFT how many of the trace's requests are to blame."""
    qos, start = done.requests.classes[index], done.run.token_start
    took_s = done.run.token_s[start[:-1]] - done.requests.arrival_s
    late = (done.requests.class_index == index) & (took_s > qos.deadline_slo_s)
    if not qos.interactive or not late.any():
        why = why_alone([done], index, question.with_tbt)
        return f"class {qos.name!r} misses {rate:.1%} of its requests on any number of GPUs: {why}"
    tokens = int(done.requests.prompt_tokens[late].min())
    share = float(np.mean(question.trace.prompt_tokens >= tokens))
    return (
        f"class {qos.name!r} cannot be met by any number of GPUs: prefill of prompts above {tokens - 1:,} tokens alone "
        f"takes longer than its TTFT of {qos.ttft_s:g} s; {share:.1%} of the trace's requests have such prompts, and "
        f"{THRESHOLD:.0%} may miss"
    )
