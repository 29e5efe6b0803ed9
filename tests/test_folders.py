"""Folders of tests are called like the packages they test, and never stand in for them."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
FOLDERS = sorted({path.parent.name for path in TESTS.glob("*/**/*.py")})


def test_no_folder_of_tests_is_on_the_path():
    """Else `import vllm` would find tests/vllm where no vLLM is installed, and tests that need one would not skip."""
    found = {Path(entry).resolve() for entry in sys.path}
    assert not [entry for entry in found if entry.is_relative_to(TESTS)]


@pytest.mark.parametrize("name", FOLDERS)
def test_no_folder_of_tests_can_be_imported_under_its_own_name(name):
    spec = importlib.util.find_spec(name)
    places = [] if spec is None else [*(spec.submodule_search_locations or ()), *filter(None, [spec.origin])]
    assert not [place for place in places if Path(place).is_relative_to(TESTS)]


def test_helpers_are_taken_from_here_whatever_is_installed():
    """A namespace package would lose to any installed package `tests`."""
    assert Path(sys.modules["tests"].__file__).parent == TESTS


def test_what_is_no_test_lies_in_helpers():
    """A module among the tests would be importable from its own folder only."""
    for path in TESTS.glob("**/*.py"):
        is_test = path.name.startswith("test_") or path.name in ("conftest.py", "__init__.py")
        assert is_test != (path.parent.name == "helpers") or path.name == "__init__.py", path
