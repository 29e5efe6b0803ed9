"""vLLM's own scheduler tests, with our classes in the place of vLLM's: each passes or is listed with its reason."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("vllm.version", reason="vLLM is not installed")

from artifact.vllm_suite import expected
from artifact.vllm_suite.cli import CACHE, outcomes
from artifact.vllm_suite.source import Unavailable, installed_version, unpacked

pytestmark = [pytest.mark.engine, pytest.mark.slow, pytest.mark.nightly("scheduler/niyama")]
REPOSITORY = Path(__file__).resolve().parents[2]


def test_each_of_vllms_own_tests_comes_out_as_listed() -> None:
    try:
        release = installed_version()
        folder = unpacked(release, REPOSITORY / CACHE)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert expected.problems(expected.load(release), "niyama", outcomes(folder, "niyama")) == []
