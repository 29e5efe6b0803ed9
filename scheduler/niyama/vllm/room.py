"""Room for requests that hold no KV yet: how many more there may be, and whom vLLM had no room for.

The kernel counts what its own plans hold. vLLM knows more: a pause, requests that no plan knows, cached blocks that are
free until a hit takes them. Where it admits fewer than planned the kernel is told, or it would keep the step for those
that are refused again and again, and nobody else would run.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from vllm.logger import init_logger

from niyama import Policy
from niyama.step import NO_ROOM, SIZED, SLOTTED
from niyama.vllm import engine, mamba
from niyama.vllm.drafts import Drafts

if TYPE_CHECKING:
    from niyama.vllm.mirror import Mirror
    from niyama.vllm.records import Live, Orders

logger = init_logger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only


class Room:
    """What the kernel was told of it. most: requests that may run at a time; step_tokens: of a step."""

    def __init__(self, most: int, step_tokens: int, drafts: Drafts | None = None) -> None:
        self.drafts = drafts or Drafts()
        self.most = self._told = min(most, max(1, step_tokens // (1 + self.drafts.slots)))
        self.step_tokens = step_tokens
        self._refused: tuple[Live, int] | None = None  # and how many blocks there were for it

    @classmethod
    def of(cls, scheduler: Any) -> Room:
        """That of one engine."""
        most, step_tokens = engine.step_room(scheduler)
        return cls(most, step_tokens, Drafts.of(scheduler, step_tokens))

    def fitted(self, policy: Policy) -> Policy:
        """The policy within what the engine can do at most. Raises Unplannable for one that it cannot serve at all."""
        if policy.leaves_out and self.drafts.most:
            raise engine.Unplannable(
                f"policy {policy.name!r} leaves decodes out of steps (its rule `due`), and speculative decoding has "
                "tokens drafted for the next one; take a policy without it, or serve without --speculative-config"
            )
        decodes = self.most * self.drafts.decode_tokens
        chunk, beside = policy.max_chunk_tokens, max(0, self.step_tokens - decodes)
        if beside < chunk:
            logger.warning(
                "Niyama: beside %d decodes chunks are at most %d tokens and not the policy's %d; for those, "
                "--max-num-batched-tokens %d",
                self.most, beside, chunk, chunk + decodes,
            )  # fmt: skip
        chunk = min(chunk, self.step_tokens)
        return replace(
            policy,
            max_running=min(policy.max_running, self.most),
            max_chunk_tokens=chunk,
            min_chunk_tokens=min(policy.min_chunk_tokens, chunk),
        )

    def tell(self, scheduler: Any, mirror: Mirror) -> None:
        """Before a plan: report drafts, how many may hold KV, and who is not to be planned as there is no room yet."""
        self.drafts.tell(mirror)
        slots = 0 if scheduler.pause_state else max(0, self.most - mirror.outside.slots())
        if slots != self._told:
            self._told = slots
            mirror.scheduler.report(SLOTTED, 0, slots)
        if self._refused is not None:
            live, blocks = self._refused
            waits = mirror.by_row.get(live.row) is live and not live.held
            waits &= any(mirror.running) or bool(mirror.loads.loading)
            if waits and blocks_for(scheduler, live.request) <= blocks:
                mirror.scheduler.report(NO_ROOM, live.row)
            else:
                self._refused = None

    def note(
        self, scheduler: Any, mirror: Mirror, orders: Orders, output: Any, must_wait: Callable[[Any], bool]
    ) -> None:
        """After a step, before its grants are reported: whom did vLLM stop at, of those that it was to admit?

        Where it preempts, it admits nobody, and where requests of no plan used up the step, it looked at nobody.
        """
        scheduled = output.num_scheduled_tokens
        left = min(orders.budget_tokens, self.step_tokens) - output.total_num_scheduled_tokens
        if not orders.waiting or output.preempted_req_ids or left <= self.drafts.unused(len(scheduled)):
            return
        for request in orders.waiting:
            if request.request_id in scheduled or must_wait(request):
                continue
            if mamba.hit_of_this_step(scheduler, request):
                return
            live, table = mirror.lives[request.request_id], mirror.scheduler.table
            if table.kv_blocks[live.row] > 0:  # its KV was loaded
                return
            self._refused = live, blocks_for(scheduler, request)
            tokens = max(1, request.num_tokens - engine.cached_prefix_tokens(scheduler, request))
            if tokens != table.target_tokens[live.row] and not table.computed_tokens[live.row]:  # nothing elsewhere
                mirror.scheduler.report(SIZED, live.row, tokens)
            return


def blocks_for(scheduler: Any, request: Any) -> int:
    """Blocks of KV that the waiting request could have: the free ones, and those that others hold of its prefix.

    It cannot be admitted before there are more than when it was refused. A cached block that nobody holds is one of the
    free ones, so that to find it there gains nothing.
    """
    manager = scheduler.kv_cache_manager
    free = manager.block_pool.get_num_free_blocks()
    if not manager.enable_caching:
        return free
    groups = manager.get_computed_blocks(request)[0].blocks
    return free + sum(block.ref_cnt > 0 and not block.is_null for group in groups for block in group)
