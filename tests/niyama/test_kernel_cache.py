"""The kernel's cache on disk never runs other code than the sources', and never stops a run."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from numba import types
from numba.core.caching import FunctionCache

import niyama
from niyama.jit import cache as kernel_cache
from niyama.jit import compiled

PACKAGE = Path(niyama.__file__).parent
pytestmark = pytest.mark.skipif(os.environ.get("NUMBA_DISABLE_JIT") == "1", reason="nothing is compiled")


ALL = "import niyama; print(niyama.BUILT_IN['niyama'].rank.address, niyama.__file__)"


def imported(package: Path = PACKAGE, code: str = ALL, **environment: str | None) -> subprocess.CompletedProcess:
    """A fresh interpreter that imports the package and compiles one of its rules."""
    values = {**os.environ, "PYTHONPATH": str(package.parent), **environment}
    values = {name: value for name, value in values.items() if value is not None}
    return subprocess.run([sys.executable, "-c", code], env=values, capture_output=True, text=True)


@pytest.fixture
def cache(tmp_path, monkeypatch):
    """A cache of this test alone, in this process."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    for known in (kernel_cache.cache_folder, kernel_cache._note):
        known.cache_clear()
    yield tmp_path / "cache" / "niyama" / kernel_cache.sources_digest()
    for known in (kernel_cache.cache_folder, kernel_cache._note):
        known.cache_clear()


def twice(number):
    return 2 * number


def fresh() -> tuple[int, int]:
    """What a newly decorated `twice` answers, and how many of its compiled forms came from the cache."""
    function = compiled(twice)
    return function(21), sum(function.stats.cache_hits.values())


def test_compiled_code_is_found_again(cache, capsys):
    assert [fresh(), fresh()] == [(42, 0), (42, 1)]
    assert cache.stat().st_mode & 0o777 == 0o700
    assert capsys.readouterr().err == ""


def garbled(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes(255 - byte for byte in content[middle : middle + 8]) + content[middle + 8 :]


@pytest.mark.parametrize("damage", [lambda c: b"", lambda c: c[:20], lambda c: c[:-40], garbled, lambda c: c + b"x"])
@pytest.mark.parametrize("kind", ["nbi", "nbc"])
def test_a_damaged_file_is_compiled_anew_with_one_line(cache, capsys, kind, damage):
    fresh()
    (file,) = cache.rglob(f"*.{kind}")
    file.write_bytes(damage(file.read_bytes()))
    assert fresh() == (42, 0)
    said = capsys.readouterr().err
    assert said.startswith("niyama: compiled code in") and said.count("\n") == 1 and f".{kind} is damaged" in said
    assert fresh() == (42, 1)


def test_a_full_disk_costs_the_cache_alone(cache, capsys, monkeypatch):
    def full(self, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(kernel_cache._CheckedFile, "_save_data", full)
    assert [fresh(), fresh()] == [(42, 0), (42, 0)]
    assert capsys.readouterr().err.count("\n") == 1


def test_a_kill_between_index_and_data_never_leaves_older_code(cache, tmp_path, monkeypatch):
    """The index is written first: it then names a data file that an earlier state of the source may have left."""
    source = tmp_path / "mine.py"
    answers = []
    for number in (1, 2):
        source.write_text(f"def answer():\n    return {number}\n")
        space: dict = {}
        exec(compile(source.read_text(), str(source), "exec"), space)
        if number == 2:
            monkeypatch.setattr(kernel_cache._CheckedFile, "_save_data", lambda self, name, data: None)
            compiled(space["answer"])()
        answers.append(compiled(space["answer"])())
    assert answers == [1, 2]


def test_code_for_other_arguments_than_the_index_says_is_made_anew(cache, monkeypatch, capsys):
    """Two processes that write at the same moment may leave the index of one with the data of the other."""
    other = SimpleNamespace(signature=SimpleNamespace(args=(types.float64,)))
    monkeypatch.setattr(FunctionCache, "_load_overload", lambda *_: other)
    assert fresh() == (42, 0)
    assert "not of one piece" in capsys.readouterr().err


def test_a_folder_that_others_can_write_is_not_read(cache, capsys, tmp_path):
    cache.mkdir(parents=True)
    cache.chmod(0o777)
    assert [fresh(), fresh()] == [(42, 0), (42, 1)]
    assert not list(cache.rglob("*"))
    assert list(tmp_path.glob(f"niyama-{os.geteuid()}-*/*/*.nbc"))
    assert "other users can write it" in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_a_folder_of_another_user_is_not_read(cache, capsys, monkeypatch):
    fresh()
    kernel_cache.cache_folder.cache_clear()
    monkeypatch.setattr(os, "geteuid", lambda: 54321)
    assert fresh() == (42, 0)  # also the private one belongs to someone else: nothing is kept
    assert "it belongs to user" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["link", "file"])
def test_something_else_in_its_place_is_not_followed(cache, tmp_path, name):
    cache.parent.mkdir(parents=True)
    (tmp_path / "other").mkdir()
    if name == "link":
        cache.symlink_to(tmp_path / "other")
    else:
        cache.write_text("")
    assert [fresh(), fresh()] == [(42, 0), (42, 1)]
    assert not list((tmp_path / "other").iterdir())


def test_without_a_writable_home_the_sources_folder_stays_clean(tmp_path):
    """numba's own way out would be `__pycache__` beside the sources, which notices no change in a called function."""
    package = tmp_path / "code" / "niyama"
    shutil.copytree(PACKAGE, package, ignore=shutil.ignore_patterns("__pycache__"))
    places = {"HOME": "/proc", "XDG_CACHE_HOME": None, "NUMBA_CACHE_DIR": None, "TMPDIR": str(tmp_path)}
    done = imported(package, **places)
    assert done.returncode == 0 and str(package) in done.stdout
    assert "cannot keep compiled code in /proc/.cache/niyama" in done.stderr and done.stderr.count("\n") == 1
    assert not list(package.rglob("*.nb?"))
    (folder,) = tmp_path.glob("niyama-*")
    kept = {path.name for path in folder.rglob("*.nbc")}
    assert kept
    (package / "__init__.py").write_text("from niyama.jit.cache import cache_folder\n")  # compiles no rules
    for folders in (2, 3):  # other sources, another folder
        assert imported(package, "import niyama; niyama.cache_folder()", **places).returncode == 0
        assert len(list(tmp_path.glob("niyama-*"))) == folders
        with (package / "plan.py").open("a") as file:
            file.write("# edited\n")


def test_it_runs_where_nothing_at_all_can_be_written():
    done = imported(HOME="/proc", XDG_CACHE_HOME="/proc", NUMBA_CACHE_DIR="/proc", TMPDIR="/proc")
    assert done.returncode == 0 and done.stdout
    # Python itself still finds /tmp
    assert "cannot keep compiled code in /proc/niyama" in done.stderr and done.stderr.count("\n") == 1
