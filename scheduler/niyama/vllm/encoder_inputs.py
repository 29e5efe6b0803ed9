"""Images, video and audio in prompts: how much of each planned prompt vLLM's encoder lets a step hold.

vLLM ends a chunk before an item (an image, say) that the encoder's budget or cache has no room for in the step, even if
that leaves nothing of the chunk, and at such a waiting request it stops. The plan knows no items. Here its chunks are
cut as vLLM would cut them, but in the plan's order, so that nobody takes the encoder from a more urgent request or
stands in the way of the others.
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.core.sched.scheduler import Scheduler

from niyama.vllm import engine

if TYPE_CHECKING:
    from niyama.vllm.records import Live, Orders

_SCHEDULE = inspect.getsource(Scheduler.schedule)
#: 0.26 asks for a chunk's encoder inputs before it asks where the chunk ends.
_ENCODER_FIRST = _SCHEDULE.index("_try_schedule_encoder_inputs(") < _SCHEDULE.index("_mamba_block_aligned_split(")


def embeds(scheduler: Any, output: Any) -> int:
    """Embeddings that the encoder makes in a step that vLLM has scheduled."""
    inputs = output.scheduled_encoder_inputs.items()
    return sum(scheduler.requests[name].get_num_encoder_embeds(i) for name, items in inputs for i in items)


def fitted(scheduler: Any, orders: Orders, by_row: Mapping[int, Live]) -> Orders:
    """The orders with the chunks that vLLM can grant; who would get nothing is not offered."""
    # a text model, or a cache of somebody else's, of which only vLLM knows what fits
    if not scheduler.max_num_encoder_input_tokens or type(scheduler.encoder_cache_manager) is not EncoderCacheManager:
        return orders
    if _ENCODER_FIRST:
        _ask_for_capped(scheduler, orders.caps)
    in_line = [*(by_row[row].request for row in orders.plan.rows), *orders.beside]
    if not any(request.has_encoder_inputs for request in in_line):
        return orders
    step, caps = _Step(scheduler, orders), dict(orders.caps)
    offered = {request.request_id for request in (*orders.running, *orders.waiting, *orders.beside)}
    for request in in_line:
        name = request.request_id
        step.before.add(name)
        if name in offered and request.has_encoder_inputs and caps[name]:
            caps[name] = step.chunk(request, caps[name])
    step.keep_cached()
    if _ENCODER_FIRST:
        _ask_for_capped(scheduler, caps)
    waiting, beside = ([r for r in each if caps[r.request_id]] for each in (orders.waiting, orders.beside))
    return orders._replace(waiting=waiting, beside=beside, caps=caps, budget_tokens=orders.budget_tokens + step.added)


def _ask_for_capped(scheduler: Any, caps: Mapping[str, int]) -> None:
    """Have vLLM ask for the encoder inputs of a step's planned chunks, not for those of all that has room."""
    own, aligned = type(scheduler)._try_schedule_encoder_inputs, scheduler.need_mamba_block_aligned_split

    def ask(request: Any, computed: int, tokens: int, *more: Any, **named: Any) -> Any:
        cap = caps.get(request.request_id, tokens)
        planned = "_mamba_block_aligned_split" in vars(scheduler)  # else the plug-in has been switched off
        if planned and not (aligned and cap):  # 0.26 has whole blocks only, which may be longer
            tokens = min(tokens, cap)
        return own(scheduler, request, computed, tokens, *more, **named)

    scheduler._try_schedule_encoder_inputs = ask


class _Step:
    """What is left of the encoder in the step to come. before: ids of the present request and of those before it."""

    def __init__(self, scheduler: Any, orders: Orders) -> None:
        self._scheduler, self._running = scheduler, orders.running
        self._cache: EncoderCacheManager = scheduler.encoder_cache_manager
        self._budget: int = scheduler.max_num_encoder_input_tokens
        planned_tokens = orders.budget_tokens - sum(orders.caps[request.request_id] for request in orders.beside)
        self._room = engine.step_room(scheduler)[1] - planned_tokens  # for longer chunks than planned ...
        self.added = 0  # ... by so many tokens in all
        self._whole = getattr(scheduler.scheduler_config, "disable_chunked_mm_input", False)
        # tokens behind a chunk that a drafter (EAGLE, MTP) reads with it; 0.26 has no number of them
        self._ahead = int(getattr(scheduler, "num_prefill_lookahead", getattr(scheduler, "use_eagle", False)))
        self._needed: dict[str, int] = {}  # embeddings of the items of this step's chunks, by identifier
        self.before: set[str] = set()

    def chunk(self, request: Any, planned: int) -> int:
        """Tokens that the request can have of those planned, or more where an item must be computed at once."""
        computed = request.num_computed_tokens or engine.cached_prefix_tokens(self._scheduler, request)
        ends, covered = computed + planned, 0  # covered: the end of the last item that must not be cut and fits
        for i, item in enumerate(request.mm_features):
            starts, item_ends = item.mm_position.offset, item.mm_position.offset + item.mm_position.length
            if item_ends <= computed:
                continue
            if starts >= ends + self._ahead:
                break
            before = max(starts - self._ahead, computed)
            if self._whole and item_ends > ends and starts >= computed:
                ends = before if before > computed else self._to_the_end(item_ends, ends, computed)
            if before >= ends or not self._has_room(item.identifier, request.get_num_encoder_embeds(i)):
                # vLLM itself ends the chunk there; were it asked for no more, it would leave out the item before, too
                ends = min(ends, before) if before >= covered else ends
                break
            covered = item_ends if self._whole else 0
        longer = max(0, ends - computed - planned)
        self._room, self.added = self._room - longer, self.added + longer
        return ends - computed

    def _to_the_end(self, item_ends: int, ends: int, computed: int) -> int:
        """Where a chunk ends that would end within its first item and must not: behind it, or else nowhere.

        An item that never fits into a step beside its decodes is computed in parts, as by vLLM alone.
        """
        if item_ends - ends <= self._room:
            return item_ends
        return ends if len(self.before) == 1 else computed

    def _has_room(self, identifier: str, size: int) -> bool:
        """Whether the item is encoded, or now will be."""
        if identifier in self._needed:
            return True
        cached = identifier in self._cache.cached
        if not cached and size > self._budget:
            return False
        if not self._cache.cached.get(identifier) and not self._make_space(size):
            return False
        self._budget -= 0 if cached else size
        self._needed[identifier] = size
        return True

    def _space(self) -> int:
        """Embeddings that the cache has room for, those aside that this step's chunks need and nobody holds."""
        cached = self._cache.cached
        return self._cache.num_freeable_slots - sum(n for name, n in self._needed.items() if not cached.get(name))

    def _make_space(self, size: int) -> bool:
        """Whether there is space for an item, if need be from those who come later.

        An item is kept until its tokens are computed. A prompt that is passed over halfway through one would keep it
        for as long as it waits; where somebody needs the space, it is encoded again when its prompt goes on.
        """
        if size > self._space():
            for request in self._running:
                self._scheduler._free_encoder_inputs(request)  # as vLLM does when a step in flight has ended
        for request in reversed(self._running):
            if size <= self._space():
                return True
            if request.request_id not in self.before:
                self._cache.free(request)
        return size <= self._space()

    def keep_cached(self) -> None:
        """Have vLLM evict last what the chunks of this step need and nobody holds yet."""
        for identifier in self._needed:
            if identifier in self._cache.freeable:
                self._cache.freeable.move_to_end(identifier)
