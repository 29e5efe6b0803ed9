"""The names of Ray that Niyama's parts on Ray Serve rest on, private ones too: what a new version has changed."""

from __future__ import annotations

import argparse
import inspect
import os
from pathlib import Path

import pytest

pytest.importorskip("ray.serve", reason="Ray is not installed (pip install '.[ray]')")

from niyama.vllm.config import load_config
from niyama.vllm.ray.app import ROUTER, llm_settings, parser

ROOT = Path(__file__).parents[2]


def options(*more: str) -> argparse.Namespace:
    return parser().parse_args(["--model", "m", "--config", str(ROOT / "workflows/config/engine.yaml"), *more])


def test_the_engine_has_what_is_overridden():
    from ray.llm._internal.serve.engines.vllm.vllm_engine import VLLMEngine

    assert list(inspect.signature(VLLMEngine._prepare_engine_config).parameters) == ["self", "callback_ctx"]
    assert list(inspect.signature(VLLMEngine.routing_stats).parameters) == ["self"]
    assert "_engine_client" in inspect.getsource(VLLMEngine.__init__)


def test_the_router_has_what_is_overridden():
    from ray.serve.request_router import PendingRequest, RequestRouter, RunningReplica

    names = list(inspect.signature(RequestRouter.choose_replicas).parameters)
    assert names == ["self", "candidate_replicas", "pending_request"]
    assert {"args", "metadata"} <= set(PendingRequest.__dataclass_fields__)
    assert hasattr(RunningReplica, "routing_stats") and hasattr(RunningReplica, "replica_id")


@pytest.mark.parametrize("more", [(), ("--emulated",), ("--routing", "ray")])
def test_the_settings_are_what_ray_takes(more):
    """The router's class is pickled on the way."""
    from ray.serve.llm import LLMConfig

    own = options(*more)
    settings = llm_settings(own, load_config({"niyama": str(own.config)}, os.environ), own.config)
    found = LLMConfig(**settings)
    router = found.deployment_config.get("request_router_config", {}).get("request_router_class")
    assert router == (None if "ray" in more else ROUTER)
