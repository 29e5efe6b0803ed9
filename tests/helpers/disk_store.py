"""A KV connector that keeps the KV of whole prompts on disk; loads come within a step or, "beforehand", between two."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)

LOAD_STEPS = 3  # that a load between steps takes


@dataclass
class Copies(KVConnectorMetadata):
    """By request: the file and the blocks."""

    loads: dict[str, tuple[str, list[int]]] = field(default_factory=dict)
    saves: dict[str, tuple[str, list[int]]] = field(default_factory=dict)


class DiskStore(KVConnectorBase_V1, SupportsHMA):
    """One of each role in an engine. hits: tokens that came from the disk."""

    hits = 0

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        extra = self._kv_transfer_config.kv_connector_extra_config
        self._folder, self._beforehand = Path(extra["folder"]), extra["beforehand"]
        self._block = vllm_config.cache_config.block_size
        self._prompts: dict[str, Any] = {}
        self._next, self._coming = Copies(), {}

    def _file(self, request: Any, tokens: int) -> Path:
        ids = ",".join(map(str, request.prompt_token_ids[:tokens]))
        return self._folder / f"{hashlib.sha256(ids.encode()).hexdigest()[:20]}.pt"

    def _whole_blocks(self, request: Any) -> int:
        return (request.num_prompt_tokens - 1) // self._block * self._block

    # The scheduler's side.
    def bind_kv_cache_manager(self, kv_cache_manager: Any) -> None:
        self._manager = kv_cache_manager

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        tokens = self._whole_blocks(request)
        if tokens <= num_computed_tokens or not self._file(request, tokens).is_file():
            return 0, False
        return tokens - num_computed_tokens, self._beforehand

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        self._prompts[request.request_id] = request
        if num_external_tokens > 0:
            type(self).hits += num_external_tokens
            file, count = self._file(request, self._whole_blocks(request)), self._whole_blocks(request) // self._block
            self._next.loads[request.request_id] = str(file), list(blocks.get_block_ids()[0])[:count]

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        for name, tokens in scheduler_output.num_scheduled_tokens.items():
            request = self._prompts.get(name)
            if request is None or request.num_computed_tokens + tokens < request.num_prompt_tokens:
                continue
            del self._prompts[name]
            whole = self._whole_blocks(request)
            if whole and not self._file(request, whole).is_file():
                blocks = list(self._manager.get_block_ids(name)[0])[: whole // self._block]
                self._next.saves[name] = str(self._file(request, whole)), blocks
        made, self._next = self._next, Copies()
        return made

    def request_finished(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        self._prompts.pop(request.request_id, None)
        return False, None

    request_finished_all_groups = request_finished

    # The worker's side.
    def register_kv_caches(self, kv_caches: dict[str, torch.Tensor]) -> None:
        self._caches = kv_caches

    def _blocks_of(self, cache: torch.Tensor, ids: list[int]) -> tuple[int, torch.Tensor]:
        blocks = self._kv_cache_config.num_blocks
        return next(i for i, size in enumerate(cache.shape) if size == blocks), torch.tensor(ids)

    def start_load_kv(self, forward_context: Any, **kwargs: Any) -> None:
        for name, (file, ids) in self._get_connector_metadata().loads.items():
            stored = torch.load(file)
            for layer, cache in self._caches.items():
                cache.index_copy_(*self._blocks_of(cache, ids), stored[layer])
            if self._beforehand:
                self._coming[name] = LOAD_STEPS

    def wait_for_layer_load(self, layer_name: str) -> None: ...

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None:
        for file, ids in self._get_connector_metadata().saves.values():
            layers = self._caches.items()
            torch.save({layer: cache.index_select(*self._blocks_of(cache, ids)) for layer, cache in layers}, file)

    def get_finished(self, finished_req_ids: set[str]) -> tuple[set[str] | None, set[str] | None]:
        self._coming = {name: left - 1 for name, left in self._coming.items()}
        come = {name for name, left in self._coming.items() if left <= 0}
        self._coming = {name: left for name, left in self._coming.items() if name not in come}
        return None, come or None


def config(folder: Path, *, beforehand: bool) -> KVTransferConfig:
    """vLLM's configuration of such a store."""
    folder.mkdir(parents=True, exist_ok=True)
    return KVTransferConfig(
        kv_connector="DiskStore",
        kv_connector_module_path=__name__,
        kv_role="kv_both",
        kv_connector_extra_config={"folder": str(folder), "beforehand": beforehand},
    )
