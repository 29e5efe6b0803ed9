"""What runs every night only runs all the same when what it depends on has changed, and when somebody asks for it."""

from __future__ import annotations

import re
import subprocess
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.helpers import nightly
from tests.helpers.nightly import ROOT, changed_files, draw_examples, waits

TEST = ROOT / "tests" / "test_x.py"


def item(*paths):
    mark = pytest.mark.nightly(*paths).mark
    return SimpleNamespace(path=TEST, iter_markers=lambda name: [mark])


def git(folder, *arguments):
    own = ["git", "-c", "user.name=a", "-c", "user.email=a@example.org", *arguments]
    subprocess.run(own, cwd=folder, check=True, capture_output=True)


def test_changes_are_those_since_main_and_those_not_committed_yet(tmp_path, monkeypatch):
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    for name in ("committed", "edited", "same"):
        (tmp_path / name).write_text("1")
    git(tmp_path, "init", "--initial-branch", "main")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    assert changed_files.__wrapped__() == set()
    git(tmp_path, "checkout", "-b", "mine")
    (tmp_path / "committed").write_text("2")
    git(tmp_path, "commit", "-a", "-m", "b")
    (tmp_path / "edited").write_text("2")
    (tmp_path / "neu ä").write_text("1")
    assert changed_files.__wrapped__() == {"committed", "edited", "neu ä"}
    git(tmp_path, "mv", "same", "moved")
    assert changed_files.__wrapped__() == {"committed", "edited", "neu ä", "same", "moved"}


def test_where_there_is_no_main_what_is_not_committed_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    (tmp_path / "edited").write_text("1")
    git(tmp_path, "init", "--initial-branch", "mine")
    git(tmp_path, "add", ".")
    git(tmp_path, "commit", "-m", "a")
    (tmp_path / "edited").write_text("2")
    assert changed_files.__wrapped__() == {"edited"}


def test_outside_of_git_nothing_has_changed(tmp_path, monkeypatch):
    monkeypatch.setattr(nightly, "ROOT", tmp_path)
    assert changed_files.__wrapped__() == set()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert changed_files.__wrapped__() == set()


@pytest.mark.parametrize(
    ("changed", "waiting"),
    [("README.md", True), ("workflows/rules/a.smk", False), ("workflows2", True), ("tests/test_x.py", False)],
)
def test_a_change_of_what_it_depends_on_calls_it(changed, waiting, monkeypatch):
    monkeypatch.setattr(nightly, "changed_files", lambda: frozenset([changed]))
    assert waits(item("Snakefile", "workflows"), frozenset()) is waiting
    assert not waits(item("Snakefile", "workflows"), frozenset([TEST])), "it was named"


def test_what_a_test_depends_on_is_there():
    """Else a moved folder would leave its tests to the night."""
    texts = [path.read_text() for path in (ROOT / "tests").glob("**/*.py")]
    calls = [call for text in texts for call in re.findall(r"mark\.nightly\(([^)]*)\)", text)]
    paths = {path for call in calls for path in re.findall(r'"([^"]+)"', call)}
    assert len(paths) >= 4 and not [path for path in paths if not (ROOT / path).exists()]


def test_more_examples_are_drawn_of_every_property_and_at_random():
    @settings(max_examples=3)
    @given(st.integers())
    def law(number):
        seen.append(number)

    seen = []
    law()
    assert len(seen) == 3
    draw_examples([SimpleNamespace(function=law)] * 2, 20)
    found = []
    for _ in range(2):
        seen.clear()
        law()
        assert len(seen) == 60
        found.append(sorted(seen))
    assert found[0] != found[1]


def test_a_quick_run_draws_a_part_of_the_examples_and_the_same_ones_every_time():
    seen, found = [], []

    @settings(max_examples=12)
    @given(st.integers())
    def law(number):
        seen.append(number)

    draw_examples([SimpleNamespace(function=law)], 0.25)
    for _ in range(2):
        seen.clear()
        law()
        found.append(list(seen))
    assert found[0] == found[1] and len(found[0]) == 3
