"""A policy that plans nothing although requests wait: vLLM's own order takes over and serves them all."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.planner import STALLED_AFTER
from tests.helpers.stepped_engine import driven

pytestmark = pytest.mark.engine
NOTHING = """
from niyama import Policy
from niyama.rules import budget_rule


@budget_rule
def nothing(model, batch, limits, prefix, slack_s):
    return 0


mine = Policy("mine", prefill_budget=nothing)
"""


@pytest.mark.parametrize("scheduler", ["niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"])
def test_an_engine_whose_policy_plans_nothing_is_not_stuck(tmp_path: Path, scheduler: str) -> None:
    (tmp_path / "nothing.py").write_text(NOTHING)
    niyama = {"policy": f"{tmp_path / 'nothing.py'}:mine"}
    with driven(model_folder("llama3-8b", tmp_path), scheduler, max_model_len=2600, niyama=niyama) as engine:
        for number in range(6):
            engine.add(f"waits-{number}", 300, 3)
        engine.drain(STALLED_AFTER + 100)
        assert engine.scheduler.planner is None, "it did not switch itself off"
        engine.check_outputs()
