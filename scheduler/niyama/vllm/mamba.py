"""Layers that keep one state for a request instead of KV for each token (Mamba, GDN, KDA, short convolutions).

With prefix caching vLLM keeps the states at block boundaries: chunks then end there ("align"). Without it they end
anywhere, and each group of such layers has one block for a request, however long.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import MambaManager

from niyama.state import NO_LIMIT

_ATTRIBUTES = ("mamba_cache_mode", "num_speculative_blocks", "cached_blocks_this_step")


def missing() -> list[str]:
    """What this vLLM lacks of what is used here, one line each."""
    source = inspect.getsource(MambaManager)
    return [f"MambaManager.{name} is gone" for name in _ATTRIBUTES if f"self.{name}" not in source]


def aligned(scheduler: Any, split: Callable[..., int], request: Any, tokens: int, cap: int, *cached_tokens: int) -> int:
    """vLLM's own answer for a chunk of `cap` tokens; not 0 for a cap above 0, or the request would never go on.

    split: vLLM's method. tokens: most that the step has room for. cached_tokens: as vLLM gives them to `split`.
    """
    if cap == 0:
        return 0
    # A block that no step can hold is computed in parts, with an end at its boundary; so is one that this chunk cannot.
    step_tokens, scheduler.max_num_scheduled_tokens = scheduler.max_num_scheduled_tokens, cap
    try:
        granted = split(request, cap, *cached_tokens)
    finally:
        scheduler.max_num_scheduled_tokens = step_tokens
    if granted == 0:  # 0.26 has whole blocks only
        size = scheduler.cache_config.block_size
        computed = request.num_computed_tokens + sum(cached_tokens)
        granted = split(request, min(tokens, size - computed % size), *cached_tokens)
    return granted


def blocks_of(manager: Any) -> tuple[int, int]:
    """Most blocks of a request in this group, while its prompt is computed and while it decodes.

    `num_speculative_blocks` come on top, one for each drafted token.
    """
    if manager.mamba_cache_mode == "none":
        return 1, 1
    if manager.mamba_cache_mode == "align":  # a new state is computed from the one before it
        return 2 + getattr(manager.kv_cache_spec, "num_prefill_checkpoint_blocks", 0), 1
    return NO_LIMIT, 1  # 0.26's "all" keeps the state of every block until the prompt is computed


def hit_of_this_step(scheduler: Any, request: Any) -> bool:
    """Whether the request would start from a state that another one computes in the step just scheduled.

    vLLM then has it wait for one step, and all behind it.
    """
    if not scheduler.kv_cache_manager.enable_caching:
        return False
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    fresh = [getattr(manager, "cached_blocks_this_step", ()) for manager in managers]
    if not any(fresh):
        return False
    groups = scheduler.kv_cache_manager.get_computed_blocks(request)[0].blocks
    return any(blocks and blocks[-1].block_hash in new for blocks, new in zip(groups, fresh, strict=True))
