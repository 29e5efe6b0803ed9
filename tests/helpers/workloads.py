"""Small odd workloads, the policies that every law holds for, and ways to run and to step through them."""

from __future__ import annotations

from collections import ChainMap
from collections.abc import Iterator
from dataclasses import astuple, dataclass, fields, replace

import numpy as np
from hypothesis import strategies as st
from numba.core.config import DISABLE_JIT

from niyama import BUILT_IN, Policy, QoSClass, load_card
from niyama.kernel import Kernel
from niyama.latency import ModelCard
from niyama.requests import RequestTable
from niyama.rules import (
    doomed_rule,
    due_rule,
    dynamic_chunk,
    first_come,
    fixed_chunk,
    never,
    predicted_miss,
    rank_rule,
    tbt_chunk,
)
from niyama.sim import LOG_COLUMNS, Requests, Run, shared, simulate
from niyama.sim.learning import nothing_learned
from niyama.sim.noise import Noise, as_noise
from niyama.sim.replica import World
from niyama.sim.set_up import set_up
from niyama.sim.stepping import addresses, run_until
from niyama.state import State
from tests.helpers.peers import LEAVING_OUT, PEERS

LINEAR, ROOFLINE = load_card("a100-llama3-8b-linear"), load_card("a100-llama3-8b-roofline")
COLUMN = {name: i + 1 for i, name in enumerate(LOG_COLUMNS)}  # of Run.log; column 0 is the replica


@rank_rule
def longest_prompt_first(job, alpha):
    """A rank no built-in policy has, of the kind a user writes."""
    return -float(job.prompt_tokens)


@doomed_rule
def short_of_a_second(outlook):
    """A doomed rule of a user: a second of margin."""
    return outlook.earliest_s + 1.0 > outlook.deadline_s


OWN = Policy(
    "own", longest_prompt_first, doomed=short_of_a_second, max_chunk_tokens=300, min_chunk_tokens=1, kv_reserve=0.0
)


@due_rule
def nobody(decode, step):
    """A due rule of a user that leaves out whom it can: the kernel must take them all the same."""
    return False


@due_rule
def pressed(decode, step):
    """Another one: who has time for five more steps is left out, but of batch requests every other token."""
    return decode.slack_s < 5.0 * step.step_s if decode.interactive else decode.left_out > 0


SKIPPING = {
    policy.name: policy
    for policy in (
        Policy("nobody-due", first_come, fixed_chunk, never, nobody, max_chunk_tokens=256, make_room=False),
        Policy("pressed-due", due=pressed),
    )
}
_OURS = {**BUILT_IN, OWN.name: OWN, **SKIPPING}
EVERY_POLICY = ChainMap(_OURS, PEERS)
#: By rules: policies that differ in numbers only. A law holds for each kind, and each drawn case draws a member.
KINDS: dict[tuple, list[Policy]] = {}
for _policy in _OURS.values():
    KINDS.setdefault((*_policy.rules(), _policy.make_room), []).append(_policy)
_FIRST = {kind[0].name: kind[0] for kind in KINDS.values()}
POLICIES = ChainMap(_FIRST, PEERS)
RELEGATING = tuple(name for name, policy in _FIRST.items() if policy.doomed is predicted_miss)
DYNAMIC = tuple(name for name, policy in _FIRST.items() if policy.prefill_budget in (dynamic_chunk, tbt_chunk))
LEAVES_OUT = (*(name for name, policy in _FIRST.items() if policy.leaves_out), *LEAVING_OUT)

CLASSES = {
    "paper": (QoSClass("Q1", ttft_s=6.0, tbt_s=0.05), QoSClass("Q2", ttlt_s=600.0), QoSClass("Q3", ttlt_s=1800.0)),
    "tight": (QoSClass("fast", ttft_s=0.05, tbt_s=0.012), QoSClass("soon", ttlt_s=0.8)),
    "mixed": (
        QoSClass("a", ttft_s=0.3, tbt_s=0.02),
        QoSClass("b", ttft_s=2.0, tbt_s=0.2),
        QoSClass("c", ttlt_s=3.0),
        QoSClass("d", ttlt_s=1e6),
    ),
    "contended": (QoSClass("chat", ttft_s=1.0, tbt_s=0.03), QoSClass("job", ttlt_s=12.0)),
    "impossible": (QoSClass("now", ttft_s=1e-9, tbt_s=1e-9), QoSClass("done", ttlt_s=1e-9)),
    "loose": (QoSClass("whenever", ttft_s=1e9, tbt_s=1e9), QoSClass("some day", ttlt_s=1e9)),
    "absurd": (QoSClass("never", ttft_s=1e300, tbt_s=1e300), QoSClass("ever", ttlt_s=1e300)),
}
PROMPTS = {
    "ones": (1,),
    "short": (1, 2, 15, 16, 17, 100),
    "uneven": (1, 1, 1, 16, 17, 600, 1500),
    "typical": (30, 500, 2000, 6000),
    "edges": (1, 127, 128, 129, 255, 256, 257, 511, 512, 513, 2500, 2501),
    "long": (1, 4000, 12_000),
}
OUTPUTS = {"ones": (1,), "few": (1, 2, 3), "mixed": (1, 8, 40, 120)}
GAPS_S = {"at once": (0.0,), "bursts": (0.0, 0.0, 0.0, 0.5), "steady": (0.0625,), "sparse": (0.0, 0.125, 4.0)}


@dataclass(frozen=True)
class Case:
    """A workload and the replica it meets."""

    requests: Requests
    executor: ModelCard
    predictor: ModelCard
    noise: float | Noise
    seed: int
    overrides: tuple[tuple[str, object], ...]
    member: int = 0

    def policy(self, name: str) -> Policy:
        """The policy, or one `member` further in its kind, with this case's small numbers in place of its own."""
        named = EVERY_POLICY[name]
        kind = next((kind for kind in KINDS.values() if named in kind), [named])
        member = kind.index(named) + self.member
        return replace(kind[member % len(kind)], **dict(self.overrides))

    def run(self, policy: Policy, *, log: bool = True) -> Run:
        return simulate(
            shared(policy), self.requests, self.executor, self.predictor, noise=self.noise, seed=self.seed, log=log
        )


def random_requests(
    rng: np.random.Generator, n: int, classes: str, prompts: str, outputs: str, gaps: str, important_share: float
) -> Requests:
    """n rows of independent draws from the named palettes."""
    return Requests(
        CLASSES[classes],
        rng.integers(0, len(CLASSES[classes]), n),
        np.cumsum(rng.choice(GAPS_S[gaps], n)),
        rng.choice(PROMPTS[prompts], n),
        rng.choice(OUTPUTS[outputs], n),
        rng.random(n) < important_share,
    )


def kv_for(requests: Requests, spare_tokens: int) -> int:
    """KV tokens, in whole blocks, that just hold the largest request, and about `spare_tokens` more."""
    largest = int((requests.prompt_tokens + requests.output_tokens).max())
    return (largest + spare_tokens + 15) // 16 * 16


@dataclass(frozen=True)
class Theme:
    """What a case is drawn from; names of palettes."""

    classes: tuple[str, ...] = tuple(CLASSES)
    prompts: tuple[str, ...] = tuple(PROMPTS)
    outputs: tuple[str, ...] = tuple(OUTPUTS)
    gaps: tuple[str, ...] = tuple(GAPS_S)
    important_share: tuple[float, ...] = (0.5, 1.0, 0.0, 0.8)
    kv_share: tuple[float, ...] = (0.0, 0.15, 0.4, 1.0, 4.0)  # KV beyond the largest request, of all tokens together
    kv_reserve: tuple[float, ...] = (0.5, 0.0, 1.0)
    max_running: tuple[int, ...] = (256, 1, 2, 5)
    fewest: float = 0.0  # requests, of the most


ANYTHING = Theme()
CROWDED_KV = Theme(
    prompts=("short", "uneven"),
    outputs=("mixed",),
    gaps=("at once", "bursts"),
    kv_share=(0.0, 0.05),
    kv_reserve=(0.0,),
    max_running=(256, 5),
    fewest=0.5,
)
HINTS = Theme(
    classes=("contended", "tight", "mixed", "paper"),
    prompts=("typical", "long"),
    outputs=("few", "mixed"),
    gaps=("bursts", "steady", "sparse"),
    important_share=(0.5, 0.8),
    kv_share=(4.0,),
    max_running=(256,),
    fewest=0.5,
)
ESTIMATES = (
    {},
    {"estimator": "constant", "estimator_value": 3.0},
    {"estimator": "quantile", "estimator_value": 0.7},
    {"estimator_prior": 1.0},
)


@st.composite
def cases(draw: st.DrawFn, most: int = 60, classes: tuple[str, ...] = tuple(CLASSES)) -> Case:
    """Odd cases of up to `most` requests with SLOs of the named sets: anything, crowded KV, or mixed importance."""
    theme = draw(st.sampled_from((ANYTHING, CROWDED_KV, HINTS)))
    rng = np.random.default_rng(draw(st.integers(0, 999), label="seed of rows"))
    requests = random_requests(
        rng,
        draw(st.integers(max(1, int(theme.fewest * most)), most)),
        draw(st.sampled_from([name for name in classes if name in theme.classes] or classes)),
        draw(st.sampled_from(theme.prompts)),
        draw(st.sampled_from(theme.outputs)),
        draw(st.sampled_from(theme.gaps)),
        draw(st.sampled_from(theme.important_share)),
    )
    all_tokens = int((requests.prompt_tokens + requests.output_tokens).sum())
    kv_tokens = kv_for(requests, int(draw(st.sampled_from(theme.kv_share)) * all_tokens))
    overrides = {
        "max_running": draw(st.sampled_from(theme.max_running)),
        "kv_reserve": draw(st.sampled_from(theme.kv_reserve)),
        "kv_low_tokens": draw(st.sampled_from((0, 32_000))),
        **draw(st.sampled_from(ESTIMATES)),
    }
    return Case(
        requests,
        replace(draw(st.sampled_from((ROOFLINE, LINEAR))), kv_tokens=kv_tokens),
        draw(st.sampled_from((ROOFLINE, LINEAR))),
        draw(st.sampled_from((0.0, 0.2, Noise(0.3, bursts=0.5, stalls=0.05)))),
        draw(st.integers(0, 3)),
        tuple(overrides.items()),
        draw(st.integers(0, 3)),
    )


def steps(case: Case, policy: Policy) -> Iterator[tuple[World, RequestTable, State]]:
    """The state after each iteration, on one replica; the same arrays every time, changed in place."""
    requests, n = case.requests, len(case.requests)
    start = np.concatenate([[0], np.cumsum(requests.output_tokens)])
    kv_tokens = case.executor.kv_tokens // 16 * 16
    noise, learning = as_noise(case.noise).numbers(case.seed), nothing_learned(case.predictor, True, False)
    token_s = np.zeros(start[-1])
    state = set_up(requests, np.arange(n), start, token_s, policy, kv_tokens, noise, False, False, learning)
    world, table, scheduler = state
    kernel = Kernel(scheduler, table, policy.params(), policy.rules(), case.predictor.build())
    parts = world, kernel, case.executor.build(), None
    where = np.zeros((1, 0), np.int64) if DISABLE_JIT else addresses(parts)[np.newaxis]
    while world.progress["finished"] < n:
        run_until(where, [parts], np.inf, 1)
        yield world, table, scheduler


def tokens_of(run: Run, r: int) -> np.ndarray:
    """Times of request r's output tokens."""
    return run.token_s[run.token_start[r] : run.token_start[r + 1]]


def last_token_s(run: Run) -> np.ndarray:
    """Time of every request's last token."""
    return run.token_s[run.token_start[1:] - 1]


def assert_same_run(first: Run, second: Run, *, skip: tuple[str, ...] = ()) -> None:
    """Both runs are equal to the last bit, field by field."""
    for field, a, b in zip(fields(Run), astuple(first), astuple(second), strict=True):
        if field.name not in skip:
            np.testing.assert_array_equal(np.asarray(a), np.asarray(b), err_msg=field.name, strict=True)
