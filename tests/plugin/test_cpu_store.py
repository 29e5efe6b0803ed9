"""The real engine on the CPU with a store of KV on disk: what comes from it need not be computed, and is right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama/vllm")]
ROOT = Path(__file__).parents[2]


def test_a_second_round_takes_its_prompts_from_disk(tmp_path: Path) -> None:
    """Within a step and beforehand: the tokens of vLLM without a store, and as many hits as vLLM's own scheduler."""
    command = [sys.executable, "-m", "tests.helpers.cpu_store_run", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    came = json.loads(done.stdout.splitlines()[-1])
    right = came["alone"]["tokens"][0]
    assert len({tuple(tokens) for tokens in right.values()}) > 1, "outputs ignore their prompts"
    for kind in ("within", "beforehand"):
        stock, ours = came[f"stock-{kind}"], came[f"ours-{kind}"]
        assert ours["planning"], "the plug-in switched itself off"
        assert stock["tokens"] == ours["tokens"] == [right, right]
        assert ours["hits"] == stock["hits"] and ours["hits"][1] > 2000 > 200 > ours["computed"][1]
        assert stock["leaked_blocks"] == ours["leaked_blocks"] == 0
