"""Time of one decision, with few and with many requests queued."""

from __future__ import annotations

import time
from copy import copy
from typing import Any

import numpy as np
from numba import types

from artifact.runs.spec import LATENCY
from niyama import PAPER_CLASSES, Policy, load_card
from niyama.commit import commit_chunk, commit_decode, count_decodes, observe_step
from niyama.jit import compiled, compiled_apart
from niyama.kernel import Kernel
from niyama.plan import plan
from niyama.queues import IMPORTANT, pop
from niyama.requests import fill, new_table
from niyama.state import new_state
from niyama.waiting import enqueue, requeue

TARGET_DECISION_US = {10_000: 50.0, 100_000: 500.0}
DECODES, DECODE_CONTEXT_TOKENS = 64, 1_000
KV_TOKENS = 10 * load_card(LATENCY).kv_tokens
#: seconds after a burst of arrivals: nobody doomed yet; the first TTFTs missed, all in one decision; after that one
SITUATIONS = {"burst": 0.0, "mass-relegation": 30.0, "after-relegation": 30.0}

# Compiled code can call it, but not Python's clocks. By its name: code with an address in it cannot be cached.
_clock = types.ExternalFunction("clock_gettime", types.intc(types.intc, types.uintp))
_MONOTONIC = int(time.CLOCK_MONOTONIC)


@compiled_apart
def _timed_plan(k, now_s, stamps):
    _clock(_MONOTONIC, stamps.ctypes.data)
    plan(k, now_s)
    _clock(_MONOTONIC, stamps.ctypes.data + 16)


@compiled_apart
def _timed_step(k, now_s, stamps):
    """A plan, and the commit of all of it: every decode its token, every chunk as planned."""
    s, t = k.state, k.table
    _clock(_MONOTONIC, stamps.ctypes.data)
    batch = plan(k, now_s)
    short = False
    for i in range(s.totals.running):
        short |= commit_decode(s, t, s.running[i], 1)
    count_decodes(s, s.totals.running, short)
    for i in range(s.totals.planned):
        commit_chunk(k, s.plan_ids[i], s.plan_tokens[i], now_s + s.totals.predicted_s)
    observe_step(s, batch.prefill_tokens, s.totals.predicted_s)
    _clock(_MONOTONIC, stamps.ctypes.data + 16)


@compiled
def _arrive(k, decodes):
    """The first `decodes` requests get their whole prompt and decode; the others are queued."""
    s, t = k.state, k.table
    for r in range(len(t.arrival_s)):
        enqueue(k, r)
        if r < decodes:
            pop(s.queues, t, IMPORTANT)
            commit_chunk(k, r, t.target_tokens[r], t.arrival_s[r])


def decision_state(policy: Policy, queued: int) -> Kernel:
    """State, table, parameters, rules and predictor with `queued` requests waiting, all arrived within 1 s."""
    n, rng = queued + DECODES, np.random.default_rng(0)
    index = rng.integers(len(PAPER_CLASSES), size=n)
    prompts = rng.integers(100, 4_000, size=n)
    prompts[:DECODES] = DECODE_CONTEXT_TOKENS
    table = new_table(n)
    fill(
        table,
        arrival_s=np.linspace(-1.0, 0.0, n),
        prompt_tokens=prompts,
        deadline_slo_s=np.array([c.deadline_slo_s for c in PAPER_CLASSES])[index],
        tbt_s=np.array([c.tbt_s or 0.0 for c in PAPER_CLASSES])[index],
        interactive=np.array([c.interactive for c in PAPER_CLASSES])[index],
        important=(np.arange(n) < DECODES) | (rng.random(n) < 0.8),
        app=index,
    )
    scheduler = new_state(n, policy.max_running, len(PAPER_CLASSES), KV_TOKENS, policy.alpha_low)
    kernel = Kernel(scheduler, table, policy.params(), policy.rules(), load_card(LATENCY).build())
    _arrive(kernel, DECODES)
    return kernel


class Snapshot:
    """Copies of all arrays of a state and its table. `restore` writes them back; the originals are never replaced."""

    def __init__(self, scheduler: Any, table: Any) -> None:
        self._live = [*scheduler.queues, *scheduler[1:], *table]
        self._kept = [copy(numbers) for numbers in self._live]

    def restore(self) -> None:
        for live, kept in zip(self._live, self._kept, strict=True):
            for name in live.dtype.names or (...,):
                live[name] = kept[name]

    def same(self) -> bool:
        """Whether the state is what it was."""
        return all(np.array_equal(a, b) for a, b in zip(self._live, self._kept, strict=True))


def decisions(policy: Policy, queued: int, repeats: int) -> list[dict[str, Any]]:
    """Microseconds of one decision: `plan` alone, plan and commit, and `plan` as an engine in Python calls it."""
    relegates = policy.make_room
    return [_decision(policy, queued, name, repeats) for name in (SITUATIONS if relegates else ("burst",))]


def _decision(policy: Policy, queued: int, situation: str, repeats: int) -> dict[str, Any]:
    state, now_s = decision_state(policy, queued), SITUATIONS[situation]
    if situation == "after-relegation":
        _settle(state, now_s)
    kept = Snapshot(*state[:2])
    times = repeats * (200 if queued <= 10_000 and situation != "mass-relegation" else 40)
    relegated = state[0].totals["relegations"]
    stamps = np.zeros((2, 2), np.int64)
    plan_us = _compiled_us(_timed_plan, state, now_s, stamps, kept, times)
    answer = {
        "system": policy.name,
        "situation": situation,
        "queued": queued,
        "decodes": DECODES,
        "planned": int(state[0].totals["planned"]),
        "relegated": int(state[0].totals["relegations"] - relegated),
        "decisions": times,
    }
    step_us = _compiled_us(_timed_step, state, now_s, stamps, kept, times)
    python_us, decode_us = _python_us(state, now_s, kept, times)
    kept.restore()
    for name, values in (("decision", plan_us), ("decision_and_commit", step_us), ("decision_from_python", python_us)):
        answer |= {f"{name}_us_median": float(np.median(values)), f"{name}_us_p99": float(np.quantile(values, 0.99))}
    answer["call_from_python_us_median"] = answer["decision_from_python_us_median"] - answer["decision_us_median"]
    answer["commit_decode_from_python_us_median"] = float(np.median(decode_us))
    answer["target_us"] = TARGET_DECISION_US.get(queued) if situation == "burst" else None
    answer["state_restored"] = kept.same()
    return answer


def _settle(state: Kernel, now_s: float) -> None:
    """Plan, and take the plan back, until no more requests are relegated."""
    scheduler, table = state[:2]
    before = -1
    while scheduler.totals["relegations"] != before:
        before = scheduler.totals["relegations"]
        plan(state, now_s)
        for r in scheduler.plan_ids[: scheduler.totals["planned"]]:
            requeue(scheduler, table, r)


def _compiled_us(timed: Any, state: Any, now_s: float, stamps: np.ndarray, kept: Snapshot, times: int) -> np.ndarray:
    """Read inside the compiled code, so without the call from Python; two clock readings (some 0.05 us) are in it."""
    found = np.zeros(times + 1)
    for i in range(times + 1):
        kept.restore()
        timed(state, now_s, stamps)
        found[i] = (stamps[1] - stamps[0]) @ (1e6, 1e-3)
    return found[1:]


def _python_us(state: Any, now_s: float, kept: Snapshot, times: int) -> tuple[np.ndarray, np.ndarray]:
    """One call of `plan` and one of `commit_decode` from Python: unboxing some 35 arrays is most of it."""
    found = np.zeros((2, times + 1))
    scheduler, table = state[:2]
    for i in range(times + 1):
        kept.restore()
        start = time.perf_counter_ns()
        plan(state, now_s)
        middle = time.perf_counter_ns()
        commit_decode(scheduler, table, scheduler.running[0], 1)
        found[:, i] = middle - start, time.perf_counter_ns() - middle
    return found[0, 1:] / 1e3, found[1, 1:] / 1e3
