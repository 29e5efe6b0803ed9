"""The real engine on the CPU, a tiny Qwen3-Next with GDN layers: the same tokens, whatever is lost."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama/vllm")]
ROOT = Path(__file__).parents[2]
CACHING = pytest.mark.parametrize("caching", ["caching=False", "caching=True"])


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.helpers.cpu_hybrid_run", str(tmp_path_factory.mktemp("model"))]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@CACHING
def test_outputs_equal_those_of_vllm_alone(runs: dict[str, Any], caching: str) -> None:
    """Where vLLM alone makes the same ones however it cuts the prompt."""
    alone, calm, tight, sure = (runs[caching][name] for name in ("alone", "calm", "tight", "sure"))
    assert calm["planning"] and tight["planning"], "the plug-in switched itself off"
    assert calm["tokens"].keys() == tight["tokens"].keys() == alone["tokens"].keys()
    for name in sure:
        assert calm["tokens"][name] == tight["tokens"][name] == alone["tokens"][name], name
    assert len({tuple(alone["tokens"][name]) for name in sure}) > 8, "outputs that do not depend on the prompt"
    assert alone["leaked_blocks"] == calm["leaked_blocks"] == tight["leaked_blocks"] == 0


@CACHING
def test_as_many_steps_as_by_vllm_alone(runs: dict[str, Any], caching: str) -> None:
    alone, calm = runs[caching]["alone"], runs[caching]["calm"]
    assert calm["steps"] <= 1.1 * alone["steps"] + 2
    assert calm["preemptions"] == alone["preemptions"] == 0


@CACHING
def test_states_were_dropped_and_reused(runs: dict[str, Any], caching: str) -> None:
    """Else the first test would show little."""
    found = runs[caching]
    assert found["tight"]["preemptions"] > 0 and found["calm"]["passed_over"] > 0
    if caching == "caching=True":
        assert found["alone"]["block_tokens"] < 600 and found["alone"]["cached"] > 0
        assert found["calm"]["cached"] > 0.8 * found["alone"]["cached"]
