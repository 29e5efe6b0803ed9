"""vLLM's KV cache in the kernel's words: its blocks, and what a request holds of them in each group of layers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vllm.v1.core.single_type_kv_cache_manager import MambaManager

from niyama.kv import IN_FLIGHT
from niyama.state import NO_LIMIT
from niyama.vllm import mamba
from niyama.vllm.drafts import tokens_ahead


def kv_sizes(scheduler: Any) -> dict[str, Any]:
    """`kv_tokens`, `block_tokens` and, unless there is one group of full attention, `kv_groups` of a Scheduler; with
    speculative decoding also `ahead_tokens`, where chunks end at block boundaries `align_tokens`.

    Without the null block; and without the watermark, but never less than the longest request needs: alone, vLLM lets
    it have all.
    """
    managers = scheduler.kv_cache_manager.coordinator.single_type_managers
    ahead = tokens_ahead(scheduler)
    kinds = Counter(_kind(manager, ahead) for manager in managers)
    for manager in managers:
        if isinstance(manager, MambaManager) and manager.num_speculative_blocks:  # of a request, however long
            kinds[scheduler.max_model_len, 1, 1, 0] += manager.num_speculative_blocks
    rows = [(size, groups, *caps) for (size, *caps), groups in kinds.items()]
    blocks = scheduler.kv_cache_config.num_blocks - 1
    longest = sum(groups * min(-(-scheduler.max_model_len // size), cap) for size, groups, cap, *_ in rows)
    usable = max(1, min(blocks, max(longest, blocks - scheduler.kv_cache_manager.watermark_blocks)))
    size = min(row[0] for row in rows)
    sizes = {"kv_tokens": usable * size, "block_tokens": size} | ({"ahead_tokens": ahead} if ahead else {})
    if scheduler.need_mamba_block_aligned_split:
        sizes["align_tokens"] = scheduler.cache_config.block_size
    return sizes if rows == [(size, 1, NO_LIMIT, NO_LIMIT, 0)] else {**sizes, "kv_groups": rows}


def _kind(manager: Any, ahead: int) -> tuple[int, int, int, int]:
    """Tokens of a block, most blocks while a prompt is computed and while it decodes, tokens of a local chunk."""
    size, cap = manager.block_size, getattr(manager, "max_admission_blocks_per_request", None)
    if isinstance(manager, MambaManager):
        return size, *mamba.blocks_of(manager), 0
    if cap is None:  # keeps every block until the request ends
        return size, NO_LIMIT, NO_LIMIT, 0
    window, chunk = getattr(manager, "sliding_window", None), getattr(manager, "attention_chunk_size", None)
    if window is not None:
        return size, cap, min(cap, -(-(window - 1 + IN_FLIGHT + ahead) // size) + 1), 0
    return size, cap, cap, chunk or 0
