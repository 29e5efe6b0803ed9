"""The emulated GPU under other versions of vLLM: the same tests, run there, see `helpers/vllm_versions.py`."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

pytest.importorskip("vllm.version", reason="vLLM is not installed")

from vllm.version import __version__

from tests.helpers.vllm_versions import EXPECTED, Unavailable, run_tests_under, wanted

pytestmark = pytest.mark.engine

TESTS = (
    "tests/plugin/test_versions.py",
    "tests/plugin/test_scheduler.py",
    "tests/plugin/test_drafts.py",
    "tests/plugin/test_resets.py",
    "tests/plugin/test_not_admitted.py",
    "tests/plugin/test_no_room.py",
    "tests/plugin/test_random_actions.py",
    "tests/plugin/test_encoder_inputs.py",
    "tests/plugin/test_random_images.py",
    "tests/plugin/test_connectors.py",
    "tests/plugin/test_random_connectors.py",
    "tests/plugin/test_emulated_executor.py",
    "tests/plugin/test_virtual_clock.py",
)


def test_this_is_the_version_that_was_asked_for() -> None:
    version = __version__.partition("+")[0]
    assert version == os.environ.get(EXPECTED, version)


@pytest.mark.slow
@pytest.mark.nightly("scheduler/niyama", "tests/helpers/vllm_versions.py")
@pytest.mark.skipif(EXPECTED in os.environ, reason="this is the other version")
@pytest.mark.parametrize("spec", wanted())
def test_it_works_alike_under(spec: str, tmp_path: Path) -> None:
    try:
        done = run_tests_under(spec, tmp_path, "-m", "not slow", *TESTS)
    except Unavailable as reason:
        pytest.skip(str(reason))
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "passed" in done.stdout
