"""QoS in front of vLLM's OpenAI server: `vllm serve ... --middleware niyama.vllm.QoSMiddleware`.

Reads the file that NIYAMA_CONFIG names, and reads it again when it changes; `endpoints` does the work.
"""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path

from prometheus_client import Counter, Gauge

from niyama.vllm.config import EngineConfig, config_path, load_config
from niyama.vllm.metric_files import show_engine_metrics
from niyama.vllm.reloading import API_SERVER_LOOKS, RESULTS, LiveConfig
from niyama.vllm.serving.bodies import App, Receive, Scope, Send
from niyama.vllm.serving.endpoints import Endpoints

# Read on import, not when the application is made: uvicorn takes one that fails in its start-up for one without a
# start-up, and would serve 500s; vLLM imports the class it is told of, and stops with the ConfigError.
_CONFIGURED, _FILE = load_config(None, os.environ), config_path(None, os.environ)


class QoSMiddleware:
    """An ASGI application around vLLM's. config, file: NIYAMA_CONFIG's when this module was imported, unless given;
    a configuration without a file stays.
    """

    def __init__(self, app: App, config: EngineConfig | None = None, file: Path | None = None) -> None:
        config, file = (_CONFIGURED, _FILE) if config is None else (config, file)
        self.live = LiveConfig(config, file, _loaded, API_SERVER_LOOKS).watch()
        self._app, self._parser = app, ThreadPoolExecutor(1, "niyama-parser")
        self._endpoints = self._made(config)
        show_engine_metrics(os.environ)

    def _made(self, config: EngineConfig) -> Endpoints:
        return Endpoints(self._app, config, self.live.version_of(config), _faults(), self._parser)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        config = self.live.now
        if config is not self._endpoints.config:
            self._endpoints = self._made(config)
        await self._endpoints(scope, receive, send)


# One of each for each process, however many applications it makes.
@cache
def _faults() -> Counter:
    return Counter("niyama_http_qos_faults", "Requests whose QoS the middleware did not accept.", ("field", "action"))


@cache
def _reloads() -> Counter:
    return Counter(
        "niyama_http_config_reloads", "Changes of the configuration's file, by what came of them.", ("result",)
    )


@cache
def _hash() -> Gauge:
    text = "A number that stands for the configuration that the middleware serves by."
    return Gauge("niyama_http_config_hash", text, multiprocess_mode="livemax")


def _loaded(result: str | None, config: EngineConfig) -> None:
    by_result = {known: _reloads().labels(known) for known in RESULTS}  # shown at 0 from the start
    if result is not None:
        by_result[result].inc()
    _hash().set(config.number)
