"""A tiny multimodal model with random weights on the real CPU engine: prompts with audio, outputs as of vLLM alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from tests.helpers.audio_model import audio_model_folder

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama/vllm")]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = audio_model_folder(tmp_path_factory.mktemp("models"))
    command = [sys.executable, "-m", "tests.helpers.cpu_audio_run", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_outputs_are_those_of_vllm_alone(runs: dict[str, Any]) -> None:
    assert runs["ours"]["planning"], "the plug-in switched itself off"
    assert runs["ours"]["tokens"] == runs["alone"]["tokens"]


def test_the_run_had_audio_and_said_more_than_one_thing(runs: dict[str, Any]) -> None:
    """Else the test above would show nothing."""
    assert len({tuple(tokens) for tokens in runs["alone"]["tokens"].values()}) > 5
    assert runs["ours"]["embeds"] >= runs["alone"]["embeds"] > 1000
    assert runs["ours"]["held_embeds"] == 0
