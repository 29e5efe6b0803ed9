"""Deadline-aware packing in the manner of PolyServe (arXiv 2507.17769): load few replicas fully, others little.

A request goes to the most loaded replica of its own pool that is expected to meet its deadlines; when none is, to one
of a pool with shorter steps that has room; and when there is none either, to its own pool's least loaded replica.
What is modelled: the packing and the sharing of tighter pools. What is not: scaling the fleet, moving requests or
replicas between pools, and feedback. The router knows what it has sent and reckons with the predictor, with the
pools' margin and their policies' guess of an output (`estimator_prior`); it sees no output length and no queue.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from niyama.jit import compiled
from niyama.latency import LatencyModel
from niyama.latency.model import empty_batch, fit_tokens, seconds, with_prefill
from niyama.policies import Policy


class Bins(NamedTuple):
    """Pools of interactive classes by the length of their steps, longest first: b pools over k replicas."""

    first: np.ndarray  # int64[b]; the first replica of each, in the numbering of the system
    count: np.ndarray  # int64[b]
    step_s: np.ndarray  # float64[b]; what a step may take, margin included
    margin: np.ndarray  # float64[b]
    max_chunk_tokens: np.ndarray  # int64[b]
    min_chunk_tokens: np.ndarray  # int64[b]
    output_tokens: np.ndarray  # float64[b]; guess of a request's output


class Loads(NamedTuple):
    """What the router believes of each of k replicas: a ring of the requests it has sent there, oldest first."""

    free_s: np.ndarray  # float64[k]; when all prompts sent so far will be prefilled
    end_s: np.ndarray  # float64[k, most]; when the request's output will end
    tokens: np.ndarray  # float64[k, most]; context of the request
    oldest: np.ndarray  # int64[k]
    size: np.ndarray  # int64[k]
    context: np.ndarray  # float64[k]; sum of tokens over the ring


def bins_of(policies: tuple[Policy, ...], replicas: tuple[int, ...]) -> tuple[Bins, np.ndarray]:
    """The pools as bins, and int64[pools]: the bin of each pool."""
    order = sorted(range(len(policies)), key=lambda i: -policies[i].step_s)
    first = np.concatenate([[0], np.cumsum(replicas)])[:-1]
    chosen = [policies[i] for i in order]
    bins = Bins(
        first[order].astype(np.int64),
        np.array(replicas, np.int64)[order],
        np.array([p.step_s for p in chosen]),
        np.array([p.margin for p in chosen]),
        np.array([p.max_chunk_tokens for p in chosen], np.int64),
        np.array([p.min_chunk_tokens for p in chosen], np.int64),
        np.array([p.estimator_prior for p in chosen]),
    )
    return bins, np.argsort(order).astype(np.int64)


def empty_loads(replicas: int, most: int) -> Loads:
    """Idle replicas that hold at most `most` requests each."""
    ring = np.zeros((replicas, most)), np.zeros((replicas, most))
    whole = np.zeros(replicas, np.int64), np.zeros(replicas, np.int64)
    return Loads(np.full(replicas, -np.inf), *ring, *whole, np.zeros(replicas))


def pack(
    arrival_s: np.ndarray,
    prompt_tokens: np.ndarray,
    deadline_slo_s: np.ndarray,
    bin_index: np.ndarray,
    bins: Bins,
    most: int,
    model: LatencyModel,
) -> np.ndarray:
    """int32[n]: the replica of each of n requests, sorted by arrival; `bin_index` is the bin of its own class."""
    replica = np.zeros(len(arrival_s), np.int32)
    loads = empty_loads(int((bins.first + bins.count).max()), most)
    columns = (arrival_s, prompt_tokens.astype(np.int64), deadline_slo_s, bin_index.astype(np.int64))
    _assign(*(np.ascontiguousarray(column) for column in columns), bins, loads, model, replica)
    return replica


@compiled
def _assign(arrival_s, prompt_tokens, deadline_slo_s, bin_index, bins, loads, model, replica):
    for i in range(len(arrival_s)):
        now_s, prompt, own = arrival_s[i], prompt_tokens[i], bin_index[i]
        k, b, found = 0, own, False
        while b < len(bins.first) and not found:
            k, found = _most_loaded(bins, loads, model, b, now_s, prompt, deadline_slo_s[i])
            b += 0 if found else 1
        if not found:
            k, b = _least_loaded(bins, loads, own), own
        replica[i] = k
        _send(bins, loads, model, b, k, now_s, prompt)


@compiled
def _most_loaded(bins, loads, model, b, now_s, prompt, deadline_slo_s):
    """(replica, whether there is one): of bin `b`, expected to meet the deadline, the one with the most to do."""
    best, found = bins.first[b], False
    for k in range(bins.first[b], bins.first[b] + bins.count[b]):
        _forget(loads, k, now_s)
        wait_s, holds = _prefill_wait_s(bins, loads, model, b, k, now_s, prompt)
        if holds and wait_s <= deadline_slo_s and (not found or _busier(loads, k, best)):
            best, found = k, True
    return best, found


@compiled
def _busier(loads, k, other):
    """By the prompts still to prefill, then by the requests there, then the first."""
    if loads.free_s[k] != loads.free_s[other]:
        return loads.free_s[k] > loads.free_s[other]
    return loads.size[k] > loads.size[other]


@compiled
def _least_loaded(bins, loads, b):
    best = bins.first[b]
    for k in range(bins.first[b], bins.first[b] + bins.count[b]):
        if loads.free_s[k] < loads.free_s[best]:
            best = k
    return best


@compiled
def _forget(loads, k, now_s):
    """Drop what has ended by now."""
    while loads.size[k] > 0 and loads.end_s[k, loads.oldest[k]] <= now_s:
        loads.context[k] -= loads.tokens[k, loads.oldest[k]]
        loads.oldest[k] = (loads.oldest[k] + 1) % loads.end_s.shape[1]
        loads.size[k] -= 1


@compiled
def _prefill_wait_s(bins, loads, model, b, k, now_s, prompt):
    """(time to the first token of a prompt sent to `k` now, whether the step has room for one more request)."""
    decodes, context = loads.size[k], np.int64(loads.context[k])
    step_s, least = bins.step_s[b] / bins.margin[b], bins.min_chunk_tokens[b]
    beside = empty_batch(decodes, context)
    chunk = fit_tokens(model, beside, 0, step_s, bins.max_chunk_tokens[b])
    room = chunk >= least and decodes < loads.end_s.shape[1]
    chunk = max(chunk, least)
    per_token_s = bins.margin[b] * seconds(model, with_prefill(beside, 0, chunk)) / chunk
    return max(loads.free_s[k], now_s) + prompt * per_token_s - now_s, room


@compiled
def _send(bins, loads, model, b, k, now_s, prompt):
    """Enter the request in the books of replica `k`."""
    most = loads.end_s.shape[1]
    wait_s, _ = _prefill_wait_s(bins, loads, model, b, k, now_s, prompt)
    loads.free_s[k] = now_s + wait_s
    if loads.size[k] == most:  # more than it can hold wait there: the oldest makes room in the books
        _forget(loads, k, loads.end_s[k, loads.oldest[k]])
    place = (loads.oldest[k] + loads.size[k]) % most
    loads.end_s[k, place] = loads.free_s[k] + bins.output_tokens[b] * bins.step_s[b]
    loads.tokens[k, place] = prompt + bins.output_tokens[b]
    loads.context[k] += loads.tokens[k, place]
    loads.size[k] += 1
