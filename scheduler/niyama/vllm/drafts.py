"""Speculative decoding: a step verifies drafted tokens beside each decode's next one, and accepts some of them.

The kernel plans with the one token that is sure. It is told before each plan how many drafted tokens the step verifies,
which take room and time, and after each step which requests got more tokens than one.
"""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import numpy as np
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.scheduler import Scheduler as VllmScheduler

from niyama.step import DECODED, DRAFTED, PACED

if TYPE_CHECKING:
    from niyama.vllm.mirror import Mirror
    from niyama.vllm.records import Orders

WEIGHT = 0.02  # of a step, in the mean of the tokens that a decode gets
TOLD_ANEW = 20  # by how many thousandths of a token that must have changed


class Drafts:
    """What the kernel is told of them.

    most: drafted tokens of a request in a step, 0 without speculation; slots: tokens of `step_tokens` that vLLM keeps
    for the drafter with each request of a step; lookahead: vLLM ends no chunk within so many tokens of a prompt's end.
    """

    def __init__(self, most: int = 0, slots: int = 0, lookahead: int = 0, step_tokens: int = 0) -> None:
        self.most, self.slots = most, slots
        self._lookahead, self._step_tokens = lookahead, step_tokens
        self._verified: dict[str, int] = {}  # drafted tokens in the step just scheduled, by request
        self._mean, self._told = 1.0, 1000

    @classmethod
    def of(cls, scheduler: Any, step_tokens: int) -> Drafts:
        """For one engine; without speculation nothing of this does anything."""
        config = scheduler.vllm_config.speculative_config
        if config is None:
            return cls()
        counts_slots = "max_num_new_slots_for_drafting" in inspect.getsource(VllmScheduler.schedule)
        slots = config.max_num_new_slots_for_drafting if counts_slots else 0  # 0.26 has taken them off step_tokens
        lookahead = getattr(scheduler, "num_prefill_lookahead", 0)  # from 0.32 on
        return cls(scheduler.num_spec_tokens, slots, lookahead, step_tokens)

    @property
    def decode_tokens(self) -> int:
        """Most tokens of a step that one decode takes."""
        return 1 + self.most + self.slots

    def unused(self, requests: int) -> int:
        """Tokens of a step of so many requests that vLLM may leave over although another one waits."""
        return self.slots * (requests + 1) + self.most

    def tell(self, mirror: Mirror) -> None:
        """Before a plan: report how many drafted tokens the next step verifies, and the mean of those accepted.

        Where a step lacks the room for all, the last decodes go without theirs: each gets its next token. While
        prompts wait, drafts take no more than half of what that leaves.
        """
        if not self.most:
            return
        requests = mirror.decoding()
        room, drafts = self._step_tokens - len(requests) * (1 + self.slots), 0
        if mirror.scheduler.state.totals["queued"]:
            room //= 2
        for request in requests:
            if drafts + len(request.spec_token_ids) > room:
                request.spec_token_ids = []
            drafts += len(request.spec_token_ids)
        if drafts:
            mirror.scheduler.report(DRAFTED, 0, drafts)
        pace = round(1000 * self._mean)
        if abs(pace - self._told) >= TOLD_ANEW:
            mirror.scheduler.report(PACED, 0, pace)
            self._told = pace

    def widened(self, orders: Orders, mirror: Mirror) -> Orders:
        """The orders with the few more tokens without which vLLM would pass a prompt over.

        It pads the last token of a prompt that it admits to the length of a decode with its drafts, or shortens a
        chunk that ends shortly before the prompt's end.
        """
        if not self.most or not orders.plan.rows:
            return orders
        caps, table = dict(orders.caps), mirror.scheduler.table
        for row in orders.plan.rows:
            live = mirror.by_row[row]
            tokens = caps[live.request.request_id]
            if not live.held:
                tokens = max(tokens, 1 + self.most)
            left = int(table.target_tokens[row] - table.computed_tokens[row])
            if 0 < left - tokens < self._lookahead:
                tokens = left
            caps[live.request.request_id] = tokens
        more = sum(caps.values()) - sum(orders.caps.values())
        return orders._replace(caps=caps, budget_tokens=orders.budget_tokens + more)

    def scheduled(self, output: Any, mirror: Mirror) -> int:
        """Note how many drafted tokens of each planned request vLLM has scheduled; returns how many in all."""
        self._verified = {i: len(t) for i, t in output.scheduled_spec_decode_tokens.items() if i in mirror.lives}
        return sum(self._verified.values())

    def without_padding(self, request: Any, tokens: int) -> tuple[int, int]:
        """Tokens computed of a prompt, and `tokens` of its chunk just scheduled, less what vLLM padded it with."""
        padding = self._verified.get(request.request_id, 0)
        return request.num_computed_tokens - padding, tokens - padding

    def accepted(self, output: Any, made: Any, mirror: Mirror, rows: np.ndarray, decodes: int) -> np.ndarray:
        """The step scheduled as `output` has ended: report all tokens but the first of each request.

        made: what the model made in it; rows: to whom its tokens go. Returns the row of each token that came out.
        """
        if not self.most or not decodes:
            return rows
        more, alive = [], set(rows.tolist())
        for request_id in output.scheduled_spec_decode_tokens:
            live = mirror.lives.get(request_id)
            if live is not None and live.row in alive and made.sampled_token_ids:
                tokens = made.sampled_token_ids[made.req_id_to_index[request_id]]
                more += [live.row] * (len(tokens) - 1)
        for row in more:
            mirror.scheduler.report(DECODED, row)
        self._mean += WEIGHT * (1 + len(more) / decodes - self._mean)
        return np.concatenate([rows, np.array(more, np.int32)])


def tokens_ahead(scheduler: Any) -> int:
    """For how many tokens vLLM holds KV beyond those that the kernel knows of a request: drafts of the step and, if a
    step is planned before the last one has ended, those that may still be rejected.
    """
    if scheduler.vllm_config.speculative_config is None:
        return 0
    steps = 2 if isinstance(scheduler, AsyncScheduler) else 1
    return steps * scheduler.num_spec_tokens + scheduler.num_lookahead_tokens
