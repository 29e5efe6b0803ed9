"""KV that comes from elsewhere and goes there (KV connectors): stores of prefixes, instances that share out the work.

vLLM asks the connector how much of a waiting request lies elsewhere. It is loaded within the request's first step, or
before it: the request then holds KV and waits. Here the connector is asked ahead, so that the plan knows; those whose
KV is on its way are left out of the plan; and KV that ended requests still hold, as it is being sent, counts as taken.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from vllm.v1.request import RequestStatus

from niyama.step import LOADABLE, STORED, TAKEN
from niyama.vllm import engine, held_kv
from niyama.vllm.held_kv import ASK

if TYPE_CHECKING:
    from niyama.vllm.mirror import Mirror
    from niyama.vllm.records import Live

ASKED_AT_ONCE = 32  # requests, before a step
Answer = tuple[int | None, bool]  # tokens that lie elsewhere, None for "ask later"; whether they are loaded beforehand
NOTHING: Answer = (0, False)


class Connector:
    """What is known of one engine's connector; without one nothing of this does anything.

    most: requests asked ahead that are still waiting.
    """

    def __init__(self, scheduler: Any, most: int) -> None:
        self._connector, self._most = scheduler.connector, most
        self._to_ask: deque[Live] = deque()
        self._answers: dict[str, Answer] = {}  # of waiting requests, by id
        self._told: dict[str, Answer] = {}  # to the kernel
        self._of_step: set[str] = set()  # ids, of whom vLLM has asked since the last plan
        self._kept: dict[str, int] = {}  # blocks of requests that have ended, by id
        self._taken = 0
        if self._connector is not None:
            self._ask = getattr(self._connector, ASK)
            setattr(self._connector, ASK, self._noted)

    def stop(self) -> None:
        """Hear nothing from now on."""
        if self._connector is not None:
            setattr(self._connector, ASK, self._ask)

    def _noted(self, request: Any, *args: Any, **kwargs: Any) -> Answer:
        """The connector's own answer to whoever asks."""
        answer = tokens, loads = self._ask(request, *args, **kwargs)
        skipped = getattr(request, "skip_reading_prefix_cache", False) or (tokens is not None and tokens <= 0)
        self._answers[request.request_id] = NOTHING if skipped else (tokens, loads)
        self._of_step.add(request.request_id)
        return answer

    def _asked(self, scheduler: Any, request: Any) -> Answer:
        here = engine.cached_prefix_tokens(scheduler, request)
        self._noted(request, here - here % scheduler.block_size)
        return self._answers[request.request_id]

    def asks_later(self, request: Any) -> bool:
        """Whether the connector does not know yet how much it has: vLLM passes the request over until then."""
        return self._answers.get(request.request_id, NOTHING)[0] is None

    def to_ask(self, live: Live) -> None:
        """The waiting request may be planned from now on."""
        if self._connector is not None:
            self._to_ask.append(live)

    def gone(self, request_id: str) -> None:
        """The request has ended, or holds KV now."""
        self._answers.pop(request_id, None)
        self._told.pop(request_id, None)

    def remembered(self) -> int:
        """Requests of which something is remembered."""
        return len({*self._answers, *self._told, *self._kept})

    def before_plan(self, scheduler: Any, mirror: Mirror) -> None:
        """Tell the kernel what lies elsewhere of requests that are new in line, and how much KV is not its own."""
        if self._connector is None:
            return
        for _ in range(min(ASKED_AT_ONCE, len(self._to_ask), self._most - len(self._told))):
            live = self._to_ask.popleft()
            request = live.request
            waits = request.status in (RequestStatus.WAITING, RequestStatus.PREEMPTED)
            if mirror.by_row.get(live.row) is live and waits and not request.num_computed_tokens:
                self._tell(mirror, live, self._asked(scheduler, request))
        self._kept = {i: blocks for i, blocks in self._kept.items() if i in scheduler.requests}
        taken = sum(self._kept.values()) + held_kv.blocks_freed_later(scheduler)
        if taken != self._taken:
            mirror.scheduler.report(TAKEN, 0, taken)
            self._taken = taken
        self._of_step.clear()

    def _tell(self, mirror: Mirror, live: Live, answer: Answer) -> None:
        request_id, (tokens, loads) = live.request.request_id, answer
        if tokens is not None and answer != self._told.get(request_id, NOTHING):
            mirror.scheduler.report(LOADABLE if loads and tokens else STORED, live.row, tokens)
        self._told[request_id] = answer if tokens is not None else NOTHING

    def granted(self, mirror: Mirror, output: Any) -> int:
        """vLLM has scheduled a step: report whose load has begun. Returns the tokens that are loaded in the step."""
        tokens = 0
        for request_id in self._of_step:
            live = mirror.lives.get(request_id)
            if live is None or live.row < 0:
                continue
            if request_id in output.num_scheduled_tokens:
                tokens += self._answers[request_id][0] or 0
                self.gone(request_id)
            elif _is_loading(live.request):
                if request_id not in mirror.loads.loading:
                    mirror.loads.starts(live)
                self.gone(request_id)
            elif request_id in self._told:
                self._tell(mirror, live, self._answers[request_id])
        self._of_step.clear()
        return tokens

    def ready(self, scheduler: Any, live: Live) -> bool:
        """Whether a request that was passed over need not wait for the connector any more."""
        request = live.request
        if _is_loading(request):
            return held_kv.load_ended(scheduler, request)
        return not self.asks_later(request) or self._asked(scheduler, request)[0] is not None

    def comes_back(self, mirror: Mirror, live: Live) -> None:
        """It may be planned again: its load has ended, or the connector knows what it has."""
        request = live.request
        mirror.ready_again(live)
        if request.request_id in self._answers:
            self._tell(mirror, live, self._answers[request.request_id])
        elif not request.num_computed_tokens:  # nothing has come
            self.to_ask(live)

    def note_kept(self, scheduler: Any, request: Any) -> None:
        """vLLM has let a request go that has ended; blocks that are being sent it frees later."""
        if request.request_id in scheduler.requests:
            self._kept[request.request_id] = held_kv.own_blocks(scheduler, request)


def _is_loading(request: Any) -> bool:
    return request.status == RequestStatus.WAITING_FOR_REMOTE_KVS


def holders(mirror: Mirror, request_ids: Collection[str]) -> list[Live]:
    """Of the requests whose KV turned out not to have come, those that hold KV."""
    lives = [mirror.lives[i] for i in request_ids if i in mirror.lives]
    return [live for live in lives if live.held]
