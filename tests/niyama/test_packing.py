"""Deadline-aware packing: against a plain version, and in situations whose answer is plain."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from niyama import QoSClass, load_policy
from niyama.latency import empty_batch
from niyama.sim import PACKED, Pool, System
from niyama.sim.system import route
from tests.helpers.reference_formulas import ROOFLINE, plain_fit, plain_seconds

TIGHT = replace(load_policy("medha"), name="tight", step_s=0.05)
LOOSE = replace(TIGHT, name="loose", step_s=0.1)
CLASSES = (QoSClass("T", ttft_s=6.0, tbt_s=0.05), QoSClass("L", ttft_s=6.0, tbt_s=0.1))


def system(tight, loose, first="T"):
    pools = {"T": Pool(TIGHT, tight, ("T",)), "L": Pool(LOOSE, loose, ("L",))}
    return System("packed", tuple(pools[name] for name in (first, "TL"[first == "T"])), PACKED)


def routed(fleet, index, arrival_s, prompt_tokens, classes=CLASSES):
    columns = np.array(index), np.array(arrival_s, float), np.array(prompt_tokens)
    return route(fleet, classes, *columns, ROOFLINE).tolist()


class Believed:
    """What a router believes of one replica, written plainly."""

    def __init__(self, policy):
        self.policy, self.free_s, self.sent = policy, -np.inf, []

    def wait_s(self, now_s, prompt):
        self.sent = [(end_s, tokens) for end_s, tokens in self.sent if end_s > now_s]
        beside = empty_batch(len(self.sent), int(sum(tokens for _, tokens in self.sent)))
        fits = plain_fit(ROOFLINE, beside, 0, self.policy.step_s / 1.2, 2500)
        chunk = max(fits, 128)
        self.room = fits >= 128 and len(self.sent) < 256
        per_token_s = 1.2 * float(plain_seconds(ROOFLINE, beside, 0, chunk)) / chunk
        return max(self.free_s, now_s) + prompt * per_token_s - now_s

    def send(self, now_s, prompt):
        self.free_s = now_s + self.wait_s(now_s, prompt)
        self.sent.append((self.free_s + 256 * self.policy.step_s, prompt + 256))


def plain_routes(tight, loose, index, arrival_s, prompt_tokens):
    """The tight pool's replicas come first; a tight request may use only them."""
    fleet = [Believed(TIGHT) for _ in range(tight)] + [Believed(LOOSE) for _ in range(loose)]
    pools = (range(tight), range(tight, tight + loose))
    answer = []
    for who, now_s, prompt in zip(index, arrival_s, prompt_tokens, strict=True):
        best = None
        for pool in (pools[0],) if who == 0 else (pools[1], pools[0]):
            good = [k for k in pool if fleet[k].wait_s(now_s, prompt) <= 6.0 and fleet[k].room]
            if good:
                best = max(good, key=lambda k: (fleet[k].free_s, len(fleet[k].sent), -k))
                break
        if best is None:
            best = min(pools[who], key=lambda k: (fleet[k].free_s, k))
        fleet[best].send(now_s, prompt)
        answer.append(best)
    return answer


@settings(max_examples=30)
@given(st.integers(1, 50), st.integers(0, 99), st.integers(1, 3), st.integers(1, 3), st.sampled_from((0.02, 0.3, 2.0)))
def test_packing_is_what_a_plain_router_does(n, seed, tight, loose, gap_s):
    rng = np.random.default_rng(seed)
    index, arrival_s, prompts = rng.integers(0, 2, n), np.cumsum(rng.exponential(gap_s, n)), rng.integers(1, 20_000, n)
    expected = plain_routes(tight, loose, index, arrival_s, prompts)
    assert routed(system(tight, loose), index, arrival_s, prompts) == expected


def test_one_replica_is_filled_before_the_next():
    """1,000 tokens take 0.2 s or so at a time: some twenty fit into 6 s, the next ones open the second replica."""
    replicas = routed(system(3, 1), [0] * 60, [0.0] * 60, [1000] * 60)
    assert replicas[:10] == [0] * 10 and set(replicas[:45]) == {0, 1}
    assert replicas == sorted(replicas)


def test_the_looser_class_uses_room_in_the_tighter_pool_but_not_the_other_way_round():
    loose = routed(system(1, 1), [1] * 200, [0.0] * 200, [1000] * 200)
    first = loose.index(0)
    assert set(loose[:first]) == {1} and first > 10
    assert set(routed(system(1, 1), [0] * 200, [0.0] * 200, [1000] * 200)) == {0}


def test_who_can_meet_no_deadline_stays_at_home_with_the_least_loaded():
    """A prompt that takes longer than 6 s everywhere."""
    assert routed(system(2, 2), [1] * 4, [0.0] * 4, [200_000] * 4) == [2, 3, 2, 3]


def test_idle_replicas_are_forgotten_work():
    """A minute later everything has ended, and packing starts anew at the first replica."""
    replicas = routed(system(2, 1), [0] * 61, [0.0] * 60 + [600.0], [1000] * 61)
    assert replicas[59] == 1 and replicas[60] == 0


def test_pools_are_told_apart_by_their_steps_not_by_their_order():
    """The looser pool listed first: numbering follows the list, packing the steps."""
    index, arrival_s, prompts = [0, 1] * 100, [0.0] * 200, [1500] * 200
    tight_first = routed(system(1, 1), index, arrival_s, prompts)
    assert routed(system(1, 1, first="L"), index, arrival_s, prompts) == [1 - k for k in tight_first]


def test_no_output_length_reaches_the_router():
    """`route` has no argument for it; the guess of an output is the policy's."""
    longer = replace(TIGHT, estimator_prior=2000.0)
    fleet = System("p", (Pool(longer, 3, ("T",)),), PACKED)
    spread = routed(fleet, [0] * 300, np.arange(300) * 0.1, [500] * 300, CLASSES[:1])
    packed = routed(system(3, 1), [0] * 300, np.arange(300) * 0.1, [500] * 300)
    assert sum(spread) > sum(packed)


def test_an_unknown_routing_is_named():
    with pytest.raises(ValueError, match="routing is 'pack'; use round-robin, least-work, packed"):
        System("s", (Pool(TIGHT),), "pack")
