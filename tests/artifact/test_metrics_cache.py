"""The metrics' compiled loop is kept where the kernel is, and can neither stop a command nor run damaged code."""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from artifact.results import metrics
from niyama.jit import cache as kernel_cache

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test alone, in this process."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    for known in (kernel_cache.cache_folder, kernel_cache._note):
        known.cache_clear()
    yield tmp_path
    for known in (kernel_cache.cache_folder, kernel_cache._note):
        known.cache_clear()


def hits(monkeypatch, example) -> int:
    """Compiled functions of a newly loaded `artifact.results.metrics` came from the cache, once it was used."""
    spec = importlib.util.spec_from_file_location("metrics_again", metrics.__file__)
    monkeypatch.setitem(sys.modules, spec.name, again := importlib.util.module_from_spec(spec))
    spec.loader.exec_module(again)
    assert again.request_columns(*example)["late_tokens"].tolist() == [0, 2, 1, 0]
    return sum(again._token_pass.stats.cache_hits.values())


@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_truncated_file_is_compiled_anew_with_one_line(cache, monkeypatch, capsys, kind):
    from tests.artifact.test_metrics import hand_made

    example = hand_made()
    assert [hits(monkeypatch, example), hits(monkeypatch, example)] == [0, 1]
    (file,) = cache.rglob(f"*_token_pass*.{kind}")
    file.write_bytes(file.read_bytes()[:20])
    assert hits(monkeypatch, example) == 0
    said = capsys.readouterr().err
    assert said.startswith("niyama: compiled code in") and said.count("\n") == 1
    assert hits(monkeypatch, example) == 1


def test_help_needs_no_folder_that_can_be_written(tmp_path):
    """numba's own cache finds no place here: no home, and a file where `__pycache__` would be."""
    shutil.copytree(ROOT / "artifact", tmp_path / "artifact", ignore=shutil.ignore_patterns("__pycache__", "reference"))
    (tmp_path / "artifact" / "__pycache__").touch()
    packages = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", str(ROOT))])
    environment = {**os.environ, "HOME": "/proc", "XDG_CACHE_HOME": "/proc", "PYTHONPATH": packages}
    environment.pop("NUMBA_CACHE_DIR", None)
    command = [sys.executable, "-m", "artifact", "--help"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == 0 and "usage: python -m artifact" in done.stdout, done.stderr


def test_numbas_own_cache_is_used_nowhere():
    sources = [path for name in ("artifact", "scheduler", "traces", "figures") for path in (ROOT / name).rglob("*.py")]
    assert [path for path in sources if re.search(r"^@.*cache=True", path.read_text(), re.MULTILINE)] == []
