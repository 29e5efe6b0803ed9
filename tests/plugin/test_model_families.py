"""The real engine on the CPU with a tiny model of every family that it can serve: the same tokens as by vLLM alone."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm", reason="vLLM is not installed")

from tests.helpers.tiny_models import FAMILIES

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama/vllm")]
ROOT = Path(__file__).parents[2]
SEVERAL_GROUPS = ("llama4", "gpt-oss", "gemma3")  # local chunks, windows of half the layers, windows of most; experts
SHARES = 4  # so that a family that crashes vLLM takes few others with it


def served(folder: Path, families: tuple[str, ...]) -> dict[str, Any]:
    command = [sys.executable, "-m", "tests.helpers.cpu_families_run", str(folder), *families]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert [found["family"] for found in lines] == list(families), done.stderr[-3000:]
    return {found.pop("family"): found for found in lines}


def check(family: str, alone: dict[str, Any], ours: dict[str, Any]) -> None:
    assert ours["planning"], f"{family}: the plug-in switched itself off"
    assert ours["tokens"] == alone["tokens"], family
    assert len({tuple(tokens) for tokens in alone["tokens"].values()}) > 1, f"{family}: outputs ignore their prompts"
    assert ours["passed_over"] > 0, f"{family}: nobody was passed over"
    assert alone["leaked_blocks"] == ours["leaked_blocks"] == 0, family


def test_families_with_several_kv_groups(tmp_path: Path) -> None:
    for family, found in served(tmp_path, SEVERAL_GROUPS).items():
        check(family, **found)
        assert len(found["ours"]["kv_groups"]) > 1


@pytest.mark.parametrize("share", range(SHARES))
def test_every_other_family(tmp_path: Path, share: int) -> None:
    families = tuple(name for name in FAMILIES if name not in SEVERAL_GROUPS)[share::SHARES]
    for family, found in served(tmp_path, families).items():
        check(family, **found)
