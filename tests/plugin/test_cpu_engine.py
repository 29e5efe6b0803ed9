"""The real engine on the CPU, a tiny model with random weights: Niyama changes when tokens come, never which."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder

pytestmark = pytest.mark.engine
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    model_dir = model_folder("tiny", tmp_path_factory.mktemp("models"))
    return printed("cpu_engine_run", str(model_dir))


def printed(helper: str, *arguments: str) -> dict[str, Any]:
    """What a helper's own process prints."""
    command = [sys.executable, "-m", f"tests.helpers.{helper}", *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_the_run_had_pauses_relegation_and_kv_pressure(runs: dict[str, Any]) -> None:
    """Else the test below would show nothing."""
    ours = runs["ours"]
    assert ours["planning"], "the plug-in switched itself off"
    assert ours["passed_over"] > 0 and ours["preemptions"] > 0
    assert any(told["niyama"]["relegated"] for told in ours["told"].values())
    assert runs["alone"]["preemptions"] == 0


def test_greedy_outputs_equal_those_of_vllm_alone(runs: dict[str, Any]) -> None:
    alone, ours = runs["alone"]["tokens"], runs["ours"]["tokens"]
    for row in map(str, range(runs["prompts"])):
        if int(row) in runs["aborted"]:
            assert ours.get(row, []) == alone[row][: len(ours.get(row, []))]
        else:
            assert ours[row] == alone[row] and len(ours[row]) == runs["outputs"]


def test_all_that_were_not_aborted_finish_and_no_block_leaks(runs: dict[str, Any]) -> None:
    finished = {int(row) for row in runs["ours"]["told"]}
    assert finished >= set(range(runs["prompts"])) - set(runs["aborted"])
    assert runs["alone"]["leaked_blocks"] == runs["ours"]["leaked_blocks"] == 0


@pytest.mark.nightly("scheduler/niyama/vllm")
def test_with_speculation_outputs_are_the_same_in_as_few_steps(tmp_path: Path) -> None:
    """Real drafts from n-grams, many of which are right."""
    model_dir = str(model_folder("tiny", tmp_path))
    made = printed("cpu_drafts_run", model_dir, "plain", "stock") | printed("cpu_drafts_run", model_dir, "ours")
    plain, stock, ours = made["plain"], made["stock"], made["ours"]
    assert plain["tokens"] == stock["tokens"] == ours["tokens"]
    assert ours["planning"] and not ours["leaked"]
    assert ours["drafts"] > 50 and ours["steps"] <= stock["steps"] + 2 < plain["steps"]
