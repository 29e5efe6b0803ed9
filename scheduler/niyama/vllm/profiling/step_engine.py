"""The engine whose steps `step_times` measures: vLLM's own core, in this process, one whole step at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
import vllm
from llvmlite.binding.ffi import lib
from vllm.engine.arg_utils import EngineArgs
from vllm.platforms import current_platform
from vllm.v1.engine.core import EngineCore
from vllm.v1.executor.abstract import Executor

from niyama.vllm.emulated.virtual import SYNC_STOCK


@contextmanager
def open_core(arguments: Mapping[str, Any]) -> Iterator[EngineCore]:
    """vLLM's engine core with these arguments (those of its EngineArgs), synchronous and without prefix caching."""
    fixed = {
        "scheduler_cls": SYNC_STOCK,
        "async_scheduling": False,
        "enable_prefix_caching": False,
        "skip_tokenizer_init": True,
    }
    config = EngineArgs(**arguments, **fixed).create_engine_config()
    if current_platform.is_cpu():
        _let_vllm_look_into_llvmlite()
    core = EngineCore(config, Executor.get_class(config), log_stats=False)
    try:
        yield core
    finally:
        core.shutdown()


def _let_vllm_look_into_llvmlite() -> None:
    """Keep vLLM's CPU worker (0.32, 0.33) from dying where numba was imported before it, as in this process.

    Its search for Triton kernels reads `vars` of every module's attributes, and llvmlite's library object answers any
    name, `__dict__` too, with a C function.
    """
    lib._fntab.setdefault("__dict__", {})


def describe(core: EngineCore) -> dict[str, Any]:
    """What the times depend on: hardware, versions, numbers of the engine. JSON values.

    device: the GPU's name, None without one. cuda_graph_tokens: the largest step that replays a graph.
    """
    config = core.vllm_config
    return {
        "device": current_platform.get_device_name() if current_platform.is_cuda_alike() else None,
        "vllm": vllm.__version__,
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "dtype": str(config.model_config.dtype).removeprefix("torch."),
        "cuda_graphs": config.compilation_config.cudagraph_mode.name,
        "cuda_graph_tokens": config.compilation_config.max_cudagraph_capture_size,
        "kv_tokens": free_blocks(core) * config.cache_config.block_size,
        "block_tokens": config.cache_config.block_size,
    }


def free_blocks(core: EngineCore) -> int:
    """KV blocks that no request holds."""
    return core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
