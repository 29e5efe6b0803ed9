"""Which tests wait for the night: those marked `nightly`, unless what they depend on has changed or they are named."""

from __future__ import annotations

import subprocess
from functools import cache
from pathlib import Path

import pytest
from hypothesis import is_hypothesis_test, settings

ROOT = Path(__file__).parents[2]
MAIN = ("origin/main", "main")


@cache
def changed_files() -> frozenset[str]:
    """Paths that differ from the merge base with main, uncommitted and new files included; none outside of git."""
    try:
        bases = (*(_git("merge-base", "HEAD", branch) for branch in MAIN), _git("rev-parse", "HEAD"))
        base = next(filter(None, bases), [""])[0]
        new = _git("ls-files", "-z", "--others", "--exclude-standard")
        return frozenset([*_git("diff", "-z", "--name-only", "--no-renames", base), *new] if base else ())
    except OSError:  # there is no git
        return frozenset()


def _git(*arguments: str) -> list[str]:
    done = subprocess.run(["git", *arguments], cwd=ROOT, capture_output=True, text=True)
    return [part for part in done.stdout.replace("\n", "\0").split("\0") if part] if done.returncode == 0 else []


def waits(item: pytest.Item, named: frozenset[Path]) -> bool:
    """Whether a test is left to the night. `nightly(*paths)` says which files and folders it depends on.

    named: files that were given on the command line; a test in one of those runs, as one does whose own file changed.
    """
    marks = list(item.iter_markers("nightly"))
    if not marks or item.path in named:
        return False
    paths = (str(item.path.relative_to(ROOT)), *(path for mark in marks for path in mark.args))
    return not any(file == path or file.startswith(f"{path}/") for file in changed_files() for path in paths)


def draw_examples(items: list[pytest.Item], times: float) -> None:
    """So many times the examples of every property, at least one; if that is more, other ones every time."""
    for test in {test for item in items if is_hypothesis_test(test := getattr(item, "function", None))}:
        own = test._hypothesis_internal_use_settings  # hypothesis has no way to change settings that a test states
        count, same = max(1, round(times * own.max_examples)), own.derandomize and times < 1
        more = settings(own, max_examples=count, derandomize=same, print_blob=True)
        test._hypothesis_internal_use_settings = more
