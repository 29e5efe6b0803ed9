"""The KV cache of an emulated model: one layer stands for each group, since only the number of blocks matters."""

from __future__ import annotations

from collections.abc import Sequence

from vllm.config import VllmConfig
from vllm.v1.kv_cache_interface import (
    ChunkedLocalAttentionSpec,
    FullAttentionSpec,
    KVCacheSpec,
    MambaSpec,
    SlidingWindowSpec,
)

from niyama.vllm.emulated.emulation import KVLayers


def full_attention(config: VllmConfig) -> FullAttentionSpec:
    """A layer of full attention."""
    model = config.model_config
    return FullAttentionSpec(
        block_size=config.cache_config.block_size,
        num_kv_heads=model.get_num_kv_heads(config.parallel_config),
        head_size=model.get_head_size(),
        dtype=model.dtype,
    )


def kv_specs(config: VllmConfig, kinds: Sequence[KVLayers]) -> dict[str, KVCacheSpec]:
    """Layers by name."""
    specs = [_spec(config, layers) for layers in kinds for _ in range(layers.groups)]
    return {f"emulated.attention.{i}": spec for i, spec in enumerate(specs)}


def _spec(config: VllmConfig, layers: KVLayers) -> KVCacheSpec:
    full = full_attention(config)
    shape = {
        "block_size": full.block_size,
        "num_kv_heads": full.num_kv_heads,
        "head_size": full.head_size,
        "dtype": full.dtype,
    }
    if layers.sliding_window is not None:
        return SlidingWindowSpec(**shape, sliding_window=layers.sliding_window)
    if layers.local_chunk is not None:
        return ChunkedLocalAttentionSpec(**shape, attention_chunk_size=layers.local_chunk)
    return _state(config, full.page_size_bytes) if layers.mamba else full


def _state(config: VllmConfig, block_bytes: int) -> MambaSpec:
    """One state takes a block, and states are kept as vLLM does by default for models that have them."""
    cache, dtype, drafts = config.cache_config, config.model_config.dtype, config.speculative_config
    cache.mamba_cache_mode = mode = "align" if cache.enable_prefix_caching else "none"
    return MambaSpec(
        cache.block_size if mode == "align" else config.model_config.max_model_len,
        ((block_bytes // dtype.itemsize,),),
        (dtype,),
        mamba_cache_mode=mode,
        num_speculative_blocks=drafts.num_speculative_tokens if drafts else 0,
    )
