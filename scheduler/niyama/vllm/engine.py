"""What touches vLLM's internals, with `admission`, `drafts`, `encoder_inputs`, `held_kv`, `room` and `pool`.

Written against 0.26, 0.32, 0.33: see `contract`.

vLLM's `schedule` walks `running` in order, then its waiting queues, giving each request as many tokens as the budget
allows. A plan is imposed by what it finds there: the order of `running`, queues that hold the planned requests alone,
the budget, and a cap per request. Nothing of vLLM is copied or replaced, and all is put back after the call.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from vllm.v1.core.encoder_cache_manager import EncoderCacheManager
from vllm.v1.core.sched.request_queue import SchedulingPolicy, create_request_queue
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.request import Request, RequestStatus

from niyama.vllm import held_kv, mamba
from niyama.vllm.pool import Pool, queues

if TYPE_CHECKING:
    from niyama.vllm.records import Orders

_ATTRIBUTES = ("running", "waiting", "requests", "policy", "max_num_scheduled_tokens", "max_num_running_reqs")
_ATTRIBUTES += ("need_mamba_block_aligned_split", "kv_cache_manager", "kv_cache_config", "scheduler_config")
_ATTRIBUTES += ("block_size", "_pause_state", "encoder_cache_manager", "max_num_encoder_input_tokens")
_ATTRIBUTES += ("num_spec_tokens", "num_lookahead_tokens")
_OUTPUT_FIELDS = ("num_scheduled_tokens", "scheduled_spec_decode_tokens", "sampled_token_ids", "req_id_to_index")
_PARAMETERS = {
    "_preempt_request": ("request", "timestamp"),
    "_mamba_block_aligned_split": ("request", "num_new_tokens"),
    "_free_request": ("request",),
    "_free_encoder_inputs": ("request",),
    "update_from_output": ("scheduler_output", "model_runner_output"),
    "add_request": ("request",),
}
_REQUEST_FIELDS = ("num_computed_tokens", "num_tokens", "num_output_tokens", "is_prefill_chunk", "priority")
_REQUEST_FIELDS += ("resumable", "has_encoder_inputs", "get_num_encoder_embeds", "mm_features", "spec_token_ids")
_ENCODER_CACHE_FIELDS = ("cached", "freeable", "num_freeable_slots")


class Unplannable(ValueError):
    """This model, engine or request is one that Niyama cannot plan for; says which and what to do."""


def contract() -> list[str]:
    """What this vLLM lacks of what the plug-in relies on: one line each, naming it; empty when it fits."""
    missing = []
    source = inspect.getsource(Scheduler)
    for name in _ATTRIBUTES:
        if f"self.{name}" not in source:
            missing.append(f"Scheduler.{name} is gone")
    for name, wanted in _PARAMETERS.items():
        method = vars(Scheduler).get(name)
        have = tuple(inspect.signature(method).parameters)[1:] if method is not None else None
        if have is None or have[: len(wanted)] != wanted:
            missing.append(f"Scheduler.{name}({', '.join(wanted)}, ...) is now {have}")
    if source.count("= self._mamba_block_aligned_split(") != 2:
        missing.append("Scheduler._mamba_block_aligned_split is no longer asked once for running, once for waiting")
    missing += [f"{name} of a step's outputs is gone" for name in _OUTPUT_FIELDS if f".{name}" not in source]
    request_source = inspect.getsource(Request)
    missing += [f"Request.{name} is gone" for name in _REQUEST_FIELDS if name not in request_source]
    cache_source = inspect.getsource(EncoderCacheManager)
    missing += [f"EncoderCacheManager.{n} is gone" for n in _ENCODER_CACHE_FIELDS if f"self.{n}" not in cache_source]
    missing += [] if "PRIORITY" in SchedulingPolicy.__members__ else ["SchedulingPolicy.PRIORITY is gone"]
    return missing + mamba.missing() + held_kv.missing()


def refuse_unplannable(vllm_config: Any) -> None:
    """Raise Unplannable for what the plan knows nothing of: its steps would not last as predicted."""
    model, parallel = vllm_config.model_config, vllm_config.parallel_config
    reasons = (
        (model.runner_type != "generate", "pooling and embedding models have no output tokens to schedule"),
        (model.is_encoder_decoder, "encoder-decoder models have encoder steps that the latency model does not know"),
        (vllm_config.ec_transfer_config is not None, "encoder cache connectors hold requests back behind the plan"),
        (parallel.pipeline_parallel_size > 1, "pipeline stages keep several steps in flight; use tensor parallelism"),
        (not vllm_config.scheduler_config.enable_chunked_prefill, "dynamic chunking needs --enable-chunked-prefill"),
        (getattr(model, "is_diffusion", False), "diffusion models decode a canvas of tokens at a time, not one"),
        (
            getattr(vllm_config, "is_mm_encoder_only", False),
            "an encoder instance makes no tokens; schedule the instances that decode",
        ),
    )
    for holds, why in reasons:
        if holds:
            raise Unplannable(f"Niyama cannot plan for {model.model}: {why}. Or run without --scheduler-cls niyama...")


def step_room(scheduler: Scheduler) -> tuple[int, int]:
    """Most requests that may run at a time, and most tokens of a step, one for each decode included."""
    tokens = min(scheduler.max_num_scheduled_tokens, scheduler.scheduler_config.max_num_batched_tokens)
    return min(scheduler.max_num_running_reqs, getattr(scheduler, "max_num_active_reqs", tokens), tokens), tokens


def chunk_limit(scheduler: Scheduler) -> int | None:
    """Most prompt tokens of one request in the step to come, by vLLM's --long-prefill-token-threshold; None without it.

    It does not hold for a request that is alone. vLLM itself would count the requests that the plan shows it.
    """
    tokens = scheduler.scheduler_config.max_num_batched_tokens
    threshold = scheduler.scheduler_config.long_prefill_token_threshold
    if threshold <= 0:
        return None
    requests = len(scheduler.running) + sum(len(getattr(scheduler, name)) for name in queues(scheduler))
    if requests < 2:
        return tokens
    fair = tokens // requests if getattr(scheduler, "adaptive_long_prefill_threshold", False) else 0
    return min(tokens, max(threshold, fair))


def ignored(scheduler: Scheduler) -> list[str]:
    """vLLM's options that are set and have no effect, each with what has."""
    if scheduler.scheduler_config.policy == "priority":
        return ["--scheduling-policy priority has no effect: requests are served by class, deadline and importance"]
    return []


def prefills_held(scheduler: Scheduler, throttle: bool) -> bool:
    """Whether vLLM lets only decodes run in the step to come, as data-parallel engines take turns at prefills."""
    if not throttle or scheduler.prefill_capacity_bound:
        return False
    return any(not request.is_prefill_chunk for request in scheduler.running)


def note_saturation(scheduler: Scheduler, not_offered: Sequence[Collection[str]]) -> None:
    """Tell vLLM whether prompts were left waiting by a step that held none back: then it holds none back either.

    It looks for itself while the plan's windows stand in for its queues, and sees none. not_offered: ids of waiting
    requests that it would have passed over.
    """
    if hasattr(scheduler, "prefill_capacity_bound"):
        waiting = sum(len(getattr(scheduler, name)) for name in queues(scheduler))
        deferred = getattr(scheduler, "deferred_waiting", ())  # 0.26 has none
        sizes = [len(deferred), *map(len, not_offered)]
        bound = waiting > sum(sizes)
        if max(sizes) < waiting <= sum(sizes):  # only then does it matter who is counted twice
            bound = waiting > len({request.request_id for request in deferred}.union(*not_offered))
        scheduler.prefill_capacity_bound = bound


class Imposed:
    """Makes `schedule` see the plan's requests in the plan's order, no others, and a budget.

    `impose`, vLLM's schedule, `withdraw`; and, whatever state that has come to, `lift`.

    Between steps waiting requests lie in pools without an order; within one, windows that show the planned ones take
    the pools' places. One object serves all steps, since making things anew would be most of what planning costs.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._scheduler = scheduler
        self._pools = {name: Pool(getattr(scheduler, name)) for name in queues(scheduler)}
        self._windows = {name: Pool() for name in self._pools}
        self._caps: Mapping[str, int] = {}
        self._offered: list[Request] = []
        self._own = scheduler.policy, scheduler.max_num_scheduled_tokens, scheduler.need_mamba_block_aligned_split
        # Under KV pressure vLLM's own preemption then picks the worst rank.
        scheduler.policy = SchedulingPolicy.PRIORITY
        self._show(self._pools)
        self._split = scheduler._mamba_block_aligned_split  # asked of every chunk: where ours are capped
        scheduler._mamba_block_aligned_split = self._cap

    def _cap(self, request: Request, tokens: int, *more: int) -> int:
        cap = min(tokens, self._caps.get(request.request_id, tokens))
        return mamba.aligned(self._scheduler, self._split, request, tokens, cap, *more) if self._own[2] else cap

    def impose(self, orders: Orders) -> bool:
        """Show the next step what the plan has ordered; True."""
        scheduler = self._scheduler
        if orders.running is not scheduler.running:
            scheduler.running[:] = orders.running
        self._offered, self._caps = [*orders.waiting, *orders.beside], orders.caps
        self._own = *self._own[:2], (aligned := scheduler.need_mamba_block_aligned_split)
        scheduler.need_mamba_block_aligned_split = aligned or bool(orders.caps)
        more_tokens = scheduler.cache_config.block_size if aligned and orders.caps else 0  # 0.26 has whole blocks only
        scheduler.max_num_scheduled_tokens = min(orders.budget_tokens + more_tokens, self._own[1])
        self._show(self._windows)
        holding = self._pools.get("kv_holding_waiting", ())
        for request in orders.waiting:
            self._windows["kv_holding_waiting" if request in holding else "waiting"].add_request(request)
        for name, pool in self._pools.items():
            for request in orders.beside:
                if request in pool:
                    self._windows[name].add_request(request)
        return True

    def withdraw(self) -> None:
        """The step is scheduled: everything in its place again."""
        _, self._scheduler.max_num_scheduled_tokens, self._scheduler.need_mamba_block_aligned_split = self._own
        self._show(self._pools)
        for request in self._offered:
            if request.status == RequestStatus.RUNNING:
                for pool in self._pools.values():
                    pool.discard(request)
        for name, window in self._windows.items():
            for request in window:  # left over, or preempted meanwhile: where vLLM has put it
                for pool in self._pools.values():
                    pool.discard(request)
                self._pools[name].add_request(request)
            window.clear()

    def _show(self, queues_by_name: Mapping[str, Pool]) -> None:
        for name, queue in queues_by_name.items():
            setattr(self._scheduler, name, queue)

    def lift(self) -> None:
        """Leave the engine to itself from now on, also halfway through any of the above.

        Every unfinished request that is found ends up in one place, the one that its status asks for.
        """
        scheduler = self._scheduler
        vars(scheduler).pop("_mamba_block_aligned_split", None)
        scheduler.policy, scheduler.max_num_scheduled_tokens, scheduler.need_mamba_block_aligned_split = self._own
        found = {r.request_id: (r, "waiting") for r in scheduler.running}
        for name, pool in self._pools.items():
            found.update((r.request_id, (r, name)) for queue in (self._windows[name], pool) for r in queue)
        unfinished = [(r, name) for r, name in found.values() if not r.is_finished()]
        scheduler.running[:] = [r for r, _ in unfinished if r.status == RequestStatus.RUNNING]
        unfinished.sort(key=lambda place: (place[0].status != RequestStatus.PREEMPTED, place[0].arrival_time))
        for name in self._pools:
            queue = create_request_queue(scheduler.policy)
            for request, its in unfinished:
                if its == name and request.status != RequestStatus.RUNNING:
                    queue.add_request(request)
            setattr(scheduler, name, queue)


def preempt(scheduler: Scheduler, request: Request, timestamp_s: float) -> None:
    """Free the KV of a running request; it is prefilled again later, not in the step that follows."""
    scheduler.running.remove(request)
    drop = {"drop_stale_output": True} if getattr(scheduler, "requires_kv_delivery", False) else {}
    scheduler._preempt_request(request, timestamp_s, **drop)


def cached_prefix_tokens(scheduler: Scheduler, request: Request) -> int:
    """Tokens of the prompt that are in the prefix cache now, and need not be computed."""
    manager = scheduler.kv_cache_manager
    return int(manager.get_computed_blocks(request)[1]) if manager.enable_caching else 0
