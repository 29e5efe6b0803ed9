"""vLLM's real engine core while its configuration changes: requests keep their promises, and nothing is lost."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.qos import CLASS, VERSION
from niyama.vllm.reloading import ENGINE_LOOKS, LiveConfig
from tests.helpers.stepped_engine import driven

pytestmark = pytest.mark.engine
ROUNDS, BROKEN = 9, "strict: ["


def test_slos_change_at_any_step_and_each_request_keeps_its_own(tmp_path: Path) -> None:
    with driven(model_folder("llama3-8b", tmp_path), "niyama.vllm.NiyamaAsyncScheduler") as engine:
        scheduler, planner, path = engine.scheduler, engine.scheduler.planner, tmp_path / "niyama.json"
        fields = json.loads(planner.config.model_dump_json(exclude_none=True))
        path.write_text(json.dumps(fields))
        scheduler.live = LiveConfig(planner.config, path, planner.metrics.configured, ENGINE_LOOKS)
        promised: dict[str, float] = {}

        def arrive(name: str, tokens: int, version: str, slo_s: float) -> None:
            engine.add(name, tokens, 3 + tokens % 7, extra_args={CLASS: "Q1", VERSION: version})
            promised[name] = slo_s
            kept = {key: live.served.deadline_slo_s for key, live in planner.mirror.lives.items()}
            assert kept == {key: promised[key] for key in kept} and name in kept

        before = scheduler.live.now
        for round_ in range(ROUNDS):
            now = scheduler.live.now
            for i in range(4):
                arrive(f"{round_}-{i}", 20 + 400 * i, now.version, now.classes[0].ttft_s)
            arrive(f"{round_}-late", 50, before.version, before.classes[0].ttft_s)  # promised before the last change
            for _ in range(round_):
                engine.step()
            before, fields["classes"][0]["ttft_s"] = now, 7.0 + round_
            path.write_text(BROKEN if round_ % 3 == 2 else json.dumps(fields))
            os.utime(path, ns=(round_, round_))
            for _ in range(1 + ENGINE_LOOKS):
                scheduler.live.look()
        engine.drain()
        engine.check_idle()
        engine.check_outputs()
        assert len(engine.finished) == len(promised) == 5 * ROUNDS and scheduler.planner is planner
        assert len(set(promised.values())) == 1 + ROUNDS * 2 // 3
