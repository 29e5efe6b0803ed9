"""Ray Serve LLM's vLLM engine, which tells the router how it is; on an emulated GPU where one is asked for."""

from __future__ import annotations

import os
import time
from typing import Any

from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

STATISTICS = "niyama"  # key of what routing_stats tells
EMULATED = "NIYAMA_RAY_EMULATED"  # environment: 1 for the emulated executor


class NiyamaEngine(VLLMEngine):  # type: ignore[misc]  # Ray has no types
    """Named to Ray by RAYLLM_VLLM_ENGINE_CLS."""

    def _prepare_engine_config(self, callback_ctx: Any) -> Any:
        """Ray overwrites the executor's backend; the emulated one is put back."""
        arguments, front, config = super()._prepare_engine_config(callback_ctx)
        if os.environ.get(EMULATED) == "1":
            config.parallel_config.distributed_executor_backend = "niyama.vllm.EmulatedExecutor"
        return arguments, front, config

    def routing_stats(self) -> dict[str, Any]:
        """What Ray passes on to the router: requests and tokens here, and when that was."""
        return {**super().routing_stats(), STATISTICS: statistics(self._engine_client)}


def statistics(client: Any) -> dict[str, float]:
    """Of vLLM's front: requests that wait for their first token and those that decode, with their tokens.

    The front lives on for half a minute when its engine has died, and answers every request with 500.
    """
    if client.errored:
        return {"t": time.time(), "down": 1.0}
    states = list(client.output_processor.request_states.values())
    waiting = [state.prompt_len for state in states if state.is_prefilling]
    decoding = [state for state in states if not state.is_prefilling]
    made = sum(state.detokenizer.num_output_tokens() for state in decoding if state.detokenizer is not None)
    return {
        "t": time.time(),
        "waiting": len(waiting),
        "waiting_tokens": sum(waiting),
        "running": len(decoding),
        "context_tokens": sum(state.prompt_len for state in decoding) + made,
    }
