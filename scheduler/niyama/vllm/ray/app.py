"""Start vLLM servers with Niyama's scheduler on Ray Serve: `python -m niyama.vllm.ray.app --model FOLDER ...`.

Clients find the OpenAI API on port 8000. The environment variables that Ray reads are set before it is imported, which
is why this module imports it late.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from niyama.vllm.config import EngineConfig, load_config

PORT = 8000  # HAProxy's, which must be free
STARTS_S = 120.0  # most that the first answer takes, once Ray calls the replicas ready
PERIOD_S = 0.5  # between a replica's statistics
LONGEST_BODY = 1 << 20  # bytes of a request that the router is shown
RAYS_OWN = "ray"  # in place of a router's name: power of two choices by queue lengths
ROUTER = "niyama.vllm.ray.router.NiyamaRouter"


def environment(emulated: bool) -> dict[str, str]:
    """What Ray and the replicas read from the environment: tokens are streamed as they come, the router sees bodies."""
    return {
        "RAYLLM_VLLM_ENGINE_CLS": "niyama.vllm.ray.engine.NiyamaEngine",
        "RAY_SERVE_LLM_ENABLE_DIRECT_STREAMING": "1",
        "RAY_SERVE_ENABLE_HA_PROXY": "1",
        "RAY_SERVE_INGRESS_REQUEST_ROUTER_FORWARD_BODY": "1",
        "RAY_SERVE_HAPROXY_TUNE_BUFSIZE": str(LONGEST_BODY),
        "RAY_USAGE_STATS_ENABLED": "0",
        "NIYAMA_RAY_EMULATED": "1" if emulated else "0",
        **{name: os.environ[name] for name in ("PYTHONPATH",) if name in os.environ},
    }


def llm_settings(options: argparse.Namespace, config: EngineConfig, path: Path) -> dict[str, Any]:
    """The fields of Ray's LLMConfig."""
    classes = [{k: getattr(c, k) for k in ("name", "ttft_s", "tbt_s", "ttlt_s")} for c in config.classes]
    routing: Mapping[str, Any] = {
        "routing": options.routing,
        "latency": config.latency,
        "classes": classes,
        "default_class": config.default_class,
        "period_s": PERIOD_S,
    }
    router = {
        "request_router_class": ROUTER,
        "request_router_kwargs": dict(routing),
        "request_routing_stats_period_s": PERIOD_S,
    }
    more: dict[str, Any] = {"niyama": str(path.resolve())}
    if options.emulated:
        more["emulated"] = {"latency": config.latency}
    engine = {
        "scheduler_cls": "niyama.vllm.NiyamaAsyncScheduler",
        "middleware": ["niyama.vllm.QoSMiddleware"],
        "additional_config": more,
        "max_num_batched_tokens": options.max_num_batched_tokens,
    }
    if options.emulated:
        engine["load_format"] = "dummy"
    return {
        "model_loading_config": {"model_id": options.name, "model_source": str(options.model)},
        "accelerator_config": {"kind": "cpu"} if options.emulated else {"kind": "gpu"},
        "deployment_config": {
            "num_replicas": options.replicas,
            "max_ongoing_requests": 1000,
            **({} if options.routing == RAYS_OWN else {"request_router_config": router}),
        },
        "engine_kwargs": engine,
        "runtime_env": {"env_vars": {**environment(options.emulated), "NIYAMA_CONFIG": str(path.resolve())}},
    }


def answer_once(name: str) -> None:
    """Have one request answered: Ray starts the router with the first, which its proxy would refuse meanwhile.

    RuntimeError when that takes longer than STARTS_S.
    """
    body = json.dumps({"model": name, "prompt": "a", "max_tokens": 1}).encode()
    asked = urllib.request.Request(
        f"http://localhost:{PORT}/v1/completions", body, {"Content-Type": "application/json"}
    )
    until_s, said = time.monotonic() + STARTS_S, "nothing"
    while time.monotonic() < until_s:
        try:
            with urllib.request.urlopen(asked, timeout=STARTS_S) as answer:
                answer.read()
            return
        except OSError as error:  # URLError is one
            said = str(error)
            time.sleep(1.0)
    raise RuntimeError(f"the servers did not answer within {STARTS_S:g} s, the last time: {said}; see Ray's logs")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    found = argparse.ArgumentParser(prog="python -m niyama.vllm.ray.app", description="vLLM with Niyama on Ray Serve.")
    found.add_argument("--model", type=Path, required=True, help="folder of the model, or its name on the hub")
    found.add_argument("--name", default="model", help="what clients call it (default: model)")
    found.add_argument("--config", type=Path, required=True, help="Niyama's configuration (docs/OPERATING.md)")
    found.add_argument("--replicas", type=int, default=1)
    found.add_argument(
        "--routing", default="slack", help="a router's name (docs/FLEETS.md), FILE.py:NAME, or `ray`: its own"
    )
    found.add_argument("--max-num-batched-tokens", type=int, default=2816)
    found.add_argument("--emulated", action="store_true", help="an emulated GPU with the configuration's latency model")
    found.add_argument("--num-cpus", type=int, help="of the Ray cluster that is started (default: three a replica)")
    return found


def main(arguments: list[str] | None = None) -> None:
    """Start, say so, and serve until a signal comes."""
    options = parser().parse_args(arguments)
    config = load_config({"niyama": str(options.config)}, os.environ)
    os.environ.update(environment(options.emulated))
    import ray
    from ray import serve
    from ray.serve.llm import LLMConfig, build_openai_app

    ray.init(num_cpus=options.num_cpus or 3 * options.replicas, include_dashboard=False)
    settings = LLMConfig(**llm_settings(options, config, options.config))
    serve.run(build_openai_app({"llm_configs": [settings]}), blocking=False)
    answer_once(options.name)
    print(f"ready: http://localhost:{PORT}/v1", flush=True)
    signal.sigwait({signal.SIGTERM, signal.SIGINT})
    serve.shutdown()
    ray.shutdown()


if __name__ == "__main__":
    main()
