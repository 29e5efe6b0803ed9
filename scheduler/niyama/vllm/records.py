"""What the mirror keeps of a request, what a plan orders, what vLLM granted of it, and what each says to the other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from niyama.latency import Batch, LatencyModel, empty_batch, seconds, with_prefill
from niyama.qos import MIN_SLO_S
from niyama.requests import RequestTable
from niyama.scheduler import Arrival, Plan
from niyama.vllm.qos import Served
from niyama.waiting import kv_line_of

# Ranks are seconds since start; a tier apart keeps relegated after not, and low importance after high.
TIER = 1e9
NO_ROW = -1


@dataclass(slots=True, eq=False)
class Live:
    """One unfinished request: vLLM's, what it was promised, its row in the kernel's table, and what became of it."""

    request: Any
    served: Served
    row: int
    arrival_s: float
    priority: int  # the client's; while the request holds KV, vLLM sees its rank instead
    held: bool = False  # some of it is in KV
    preemptions: int = 0
    relegations: int = 0
    relegated: bool = False
    needs_adapter: bool = False  # it is counted among those that need its adapter

    def arrival(self, prompt_tokens: int, delivery_s: float) -> Arrival:
        """What the kernel is told of it: `prompt_tokens` to compute, and its deadline `delivery_s` earlier."""
        served = self.served
        return Arrival(
            self.arrival_s,
            prompt_tokens,
            max(MIN_SLO_S, served.deadline_slo_s - delivery_s),
            served.tbt_s,
            served.interactive,
            served.important,
            served.app,
            served.tenant,
        )


class Orders(NamedTuple):
    """A plan in vLLM's words: the order of `running`, whom to admit, and the most tokens of each prompt in `caps`, in
    which decodes that are left out have 0.

    dropped: running requests whose KV the plan gives up; they are not in `running` any more.
    beside: waiting requests that are no part of the plan, and offered in every step.
    """

    plan: Plan
    running: list[Any]
    waiting: list[Any]
    caps: dict[str, int]
    budget_tokens: int
    dropped: list[Any]
    beside: Sequence[Any] = ()


class Granted(NamedTuple):
    """What vLLM made of a plan: rows that produce a token (int32), how many decode and at how many tokens of KV in all,
    each chunk's prefix and tokens, in vLLM's order, and the chunks' tokens in all. drafts: tokens that decodes verify.
    """

    producing: np.ndarray
    decodes: int
    decode_context: int
    chunks: list[tuple[int, int]]
    prefill_tokens: int
    drafts: int = 0

    def predicted_s(self, plan: Plan, model: LatencyModel) -> float:
        """Predicted duration in seconds; 0 for an empty step.

        A plan counts requests that vLLM knows to have their last token in flight, and leaves out.
        """
        decodes = self.decodes + self.drafts
        as_planned = decodes == plan.batch.decodes and self.prefill_tokens == plan.batch.prefill_tokens
        return plan.predicted_s if as_planned and len(self.chunks) < 2 else self.modelled_s(model)

    def modelled_s(self, model: LatencyModel) -> float:
        """How long the model says it takes, in seconds; 0 for an empty step."""
        if not self.decodes and not self.chunks:
            return 0.0
        batch = empty_batch(self.decodes + self.drafts, self.decode_context)
        for prefix, tokens in self.chunks:
            batch = with_prefill(batch, prefix, tokens)
        return float(seconds(model, Batch(*batch)))


def vllm_priority(t: RequestTable, row: int) -> float:
    """vLLM's priority number, by which it picks a victim when KV runs out: higher goes first."""
    return TIER * kv_line_of(t, row) + float(t.key[row])
