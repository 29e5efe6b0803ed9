"""Niyama inside vLLM: a scheduler class, an emulated GPU, QoS from an OpenAI client. Nothing else imports vllm.

    vllm serve MODEL --scheduler-cls niyama.vllm.NiyamaAsyncScheduler --middleware niyama.vllm.QoSMiddleware

`scheduler` composes a step: `mirror` holds the kernel's view of the requests, `engine` everything that touches vLLM's
internals, `entry` and `connectors` say who may be planned, `config` and `qos` what is promised to whom. Beside it three
rooms that it does not know: `serving` is the HTTP door, `emulated` a GPU's timing without a GPU, `profiling` what
measures an engine.
"""

from importlib import import_module
from typing import Any

# Imported when first asked for: the API server needs the middleware and no scheduler, the engine core the reverse.
_HOMES = {
    "EmulatedExecutor": "emulated.executor",
    "NiyamaAsyncScheduler": "scheduler",
    "NiyamaScheduler": "scheduler",
    "QoSMiddleware": "serving.middleware",
    "load_config": "config",
}
__all__ = ["EmulatedExecutor", "NiyamaAsyncScheduler", "NiyamaScheduler", "QoSMiddleware", "load_config"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
