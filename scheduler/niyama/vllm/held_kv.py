"""KV of vLLM's requests that do not run: it is being loaded or has come, or the request has ended and it is sent."""

from __future__ import annotations

import inspect

from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request

from niyama.vllm.pool import queues

ASK = "get_num_new_matched_tokens"  # of the connector: how much of a waiting request lies elsewhere
_ATTRIBUTES = ("connector", "deferred_frees", "_inflight_prefills", "finished_recving_kv_req_ids")
_METHODS = ("_handle_invalid_blocks", "_free_request_blocks")
_PROMOTE = ("_handle_blocked_waiting_request", "_try_promote_blocked_waiting_request")  # the latter: 0.26


def missing() -> list[str]:
    """What this vLLM lacks of what is used here, one line each."""
    source = inspect.getsource(Scheduler)
    lines = [f"Scheduler.{name} is gone" for name in _ATTRIBUTES if f"self.{name}" not in source]
    lines += [f"Scheduler.{name} is gone" for name in _METHODS if name not in vars(Scheduler)]
    lines += [] if any(name in vars(Scheduler) for name in _PROMOTE) else [f"Scheduler.{_PROMOTE[0]} is gone"]
    return lines + ([] if f"connector.{ASK}(" in source else [f"the connector's {ASK} is no longer asked"])


def load_ended(scheduler: Scheduler, request: Request) -> bool:
    """Whether the request's load has ended; then it stands in line as vLLM would put it there, with what has come."""
    promote = next(getattr(scheduler, name) for name in _PROMOTE if hasattr(scheduler, name))
    if not promote(request):
        return False
    if not request.num_computed_tokens:  # nothing has, and its blocks are free
        _stands_without_kv(scheduler, request)
    return True


def give_up(scheduler: Scheduler, request: Request) -> None:
    """Free what was loaded for a request that has not started yet: another one needs the KV more."""
    scheduler._free_request_blocks(request)
    scheduler._inflight_prefills.discard(request)
    request.num_computed_tokens = 0
    _stands_without_kv(scheduler, request)


def _stands_without_kv(scheduler: Scheduler, request: Request) -> None:
    for name in queues(scheduler):
        getattr(scheduler, name).remove_requests([request])
    scheduler.waiting.add_request(request)
    getattr(scheduler, "deferred_waiting", set()).discard(request)


def own_blocks(scheduler: Scheduler, request: Request) -> int:
    """Blocks that would come free if the request let go of its KV now."""
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    blocks = [block for m in managers for block in m.req_to_blocks.get(request.request_id, ())]
    return sum(block.ref_cnt == 1 and not block.is_null for block in blocks)


def blocks_freed_later(scheduler: Scheduler) -> int:
    """Blocks that nobody holds and that a step in flight may still write to."""
    return sum(len(blocks) for _, blocks in scheduler.deferred_frees)
