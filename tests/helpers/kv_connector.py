"""A KV connector for the emulated device, where KV is only counted: hits, loads that take steps or fail, late frees."""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass
from typing import Any

from vllm.config import KVTransferConfig
from vllm.distributed.kv_transfer.kv_connector.v1.base import (
    KVConnectorBase_V1,
    KVConnectorMetadata,
    KVConnectorRole,
    SupportsHMA,
)
from vllm.v1.outputs import KVConnectorOutput

#: Of the requests: the share with KV elsewhere, of those the shares that load beforehand and whose prompt is there in
#: full; the shares of answers "ask later", of loads that fail, and of ends whose KV is still to be sent.
MIXED = {"hits": 0.6, "beforehand": 0.5, "whole": 0.3, "later": 0.3, "fails": 0.2, "sends": 0.4, "most_steps": 12}


@dataclass
class Load:
    """A load under way."""

    steps: int
    block_ids: list[int]
    first_missing: int | None  # of these blocks, None when all come
    nothing: bool = False


class CountedConnector(KVConnectorBase_V1, SupportsHMA):
    """What it has of a request follows from the request's id alone."""

    def __init__(self, vllm_config: Any, role: KVConnectorRole, kv_cache_config: Any) -> None:
        super().__init__(vllm_config=vllm_config, role=role, kv_cache_config=kv_cache_config)
        self.shares = {**dict.fromkeys(MIXED, 0.0), **self._kv_transfer_config.kv_connector_extra_config}
        self._block = vllm_config.cache_config.block_size
        self._random = random.Random(7)
        self.loading: dict[str, Load] = {}
        self.sending: dict[str, int] = {}
        self._said: set[str] = set()  # loads whose end vLLM has not taken in yet
        self._invalid: set[int] = set()
        self._asked: dict[str, int] = {}
        self._here: dict[str, int] = {}  # tokens that the engine has itself, by request
        self._fetched: set[str] = set()  # whole prompts, which the other instance keeps no longer
        self.counts = dict.fromkeys(("hits", "loads", "failed", "sent", "later"), 0)

    def _about(self, request: Any) -> random.Random:
        return random.Random(request.request_id)

    def _draws(self, share: str) -> bool:
        return self._random.random() < self.shares[share]

    def get_num_new_matched_tokens(self, request: Any, num_computed_tokens: int) -> tuple[int | None, bool]:
        about = self._about(request)
        self._here[request.request_id] = num_computed_tokens
        if about.random() >= self.shares["hits"] or request.request_id in self._fetched:
            return 0, False
        beforehand, whole = about.random() < self.shares["beforehand"], about.random() < self.shares["whole"]
        if about.random() < self.shares["later"]:
            self._asked[request.request_id] = self._asked.get(request.request_id, 0) + 1
            if self._asked[request.request_id] < 4:
                self.counts["later"] += 1
                return None, False
        tokens = request.num_prompt_tokens - (0 if whole and beforehand else 1)
        share = 1.0 if whole else about.random()
        end = tokens if whole and beforehand else int(tokens * share) // self._block * self._block
        hit = max(0, end - num_computed_tokens)
        return hit, beforehand and hit > 0

    def update_state_after_alloc(self, request: Any, blocks: Any, num_external_tokens: int) -> None:
        if num_external_tokens <= 0:
            return
        beforehand = self._about(request)
        beforehand.random()
        first, count = self._here[request.request_id] // self._block, -(-num_external_tokens // self._block)
        ids = list(blocks.get_block_ids()[0])[first : first + count]
        fails = self._draws("fails")
        self.counts["failed"] += fails
        if beforehand.random() < self.shares["beforehand"]:
            self.counts["loads"] += 1
            if beforehand.random() < self.shares["whole"]:
                self._fetched.add(request.request_id)
            missing = self._random.randrange(len(ids)) if fails else None
            steps = self._random.randint(1, int(self.shares["most_steps"]) or 1)
            self.loading[request.request_id] = Load(steps, ids, missing, fails and self._random.random() < 0.3)
            return
        self.counts["hits"] += 1
        if fails and self.shares.get("sync_fails"):
            self._invalid.add(self._random.choice(ids))

    def build_connector_meta(self, scheduler_output: Any) -> KVConnectorMetadata:
        return KVConnectorMetadata()

    def request_finished(self, request: Any, block_ids: list[int]) -> tuple[bool, dict[str, Any] | None]:
        under_way = request.request_id in self.loading or request.request_id in self._said
        if under_way or not block_ids or not self._draws("sends"):
            return False, None
        self.counts["sent"] += 1
        self.sending[request.request_id] = self._random.randint(1, int(self.shares["most_steps"]) or 1)
        return True, {"remote_request_id": request.request_id}

    def request_finished_all_groups(self, request: Any, block_ids: Any) -> tuple[bool, dict[str, Any] | None]:
        return self.request_finished(request, block_ids[0])

    def update_connector_output(self, connector_output: KVConnectorOutput) -> None:
        self._said -= connector_output.finished_recving

    def of_step(self) -> KVConnectorOutput:
        """What the workers would say at the end of a step that is sent off now."""
        out = KVConnectorOutput(finished_sending=set(), finished_recving=set(), invalid_block_ids=self._invalid)
        self._invalid = set()
        for request_id in [*self.sending]:
            self.sending[request_id] -= 1
            if self.sending[request_id] <= 0:
                del self.sending[request_id]
                out.finished_sending.add(request_id)
        for request_id in [*self.loading]:
            load = self.loading[request_id]
            load.steps -= 1
            if load.steps <= 0:
                del self.loading[request_id]
                self._said.add(request_id)
                out.finished_recving.add(request_id)
                if load.first_missing is not None:
                    out.invalid_block_ids |= set(load.block_ids[0 if load.nothing else load.first_missing :])
        return out

    # What a worker does has no effect on an emulated device.
    def start_load_kv(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_layer_load(self, *args: Any) -> None: ...

    def save_kv_layer(self, *args: Any, **kwargs: Any) -> None: ...

    def wait_for_save(self) -> None: ...


def config(role: str = "kv_both", policy: str = "recompute", **shares: float) -> dict[str, Any]:
    """vLLM's argument for such a connector."""
    transfer = KVTransferConfig(
        kv_connector="CountedConnector",
        kv_connector_module_path=__name__,
        kv_role=role,
        kv_load_failure_policy=policy,
        kv_connector_extra_config=shares,
    )
    return {"kv_transfer_config": transfer}


def connect(core: Any) -> CountedConnector:
    """Have the emulated device tell what the connector's workers would tell. Returns the scheduler's connector."""
    executor, connector = core.model_executor, core.scheduler.connector
    execute, sample, said = executor.execute_model, executor.sample_tokens, []

    def executed(step: Any, *args: Any, **kwargs: Any) -> Any:
        result, out = execute(step, *args, **kwargs), connector.of_step()
        if step.total_num_scheduled_tokens:
            said.append(out)
            return result
        return _with(result, out)

    executor.execute_model = executed
    executor.sample_tokens = lambda *args, **kwargs: _with(sample(*args, **kwargs), said.pop())
    return connector


def _with(result: Any, out: KVConnectorOutput) -> Any:
    made = result._output if hasattr(result, "_output") else result
    made = copy.copy(made)
    made.kv_connector_output = out
    if not hasattr(result, "_output"):
        return made
    result._output = made
    return result
