"""One lock serves pip and conda: it covers what pyproject.toml names, and nothing that it must not."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS = PROJECT["optional-dependencies"]


def canonical(requirement):
    """The normalised distribution name that a requirement starts with."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


LOCKED = {canonical(line): line for line in LOCK.splitlines() if re.match(r"\w", line)}


def test_conda_environment_installs_the_lock():
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    packages = environment["dependencies"]
    pip_lines = next(entry["pip"] for entry in packages if isinstance(entry, dict))
    assert pip_lines == ["-r requirements.lock"]
    assert any(entry == "pip" for entry in packages)
    assert "python=3.12" in packages


@pytest.mark.parametrize("requirement", PROJECT["dependencies"] + EXTRAS["harness"] + EXTRAS["test"])
def test_every_named_dependency_is_locked(requirement):
    assert canonical(requirement) in LOCKED


def test_the_core_needs_numpy_and_numba_only():
    assert {canonical(requirement) for requirement in PROJECT["dependencies"]} == {"numba", "numpy"}


def test_numba_is_the_version_that_vllm_pins():
    assert LOCKED["numba"].startswith("numba==0.65.0 ")


def test_the_lock_names_no_address_and_no_engine():
    assert "://" not in LOCK
    assert not {"torch", "vllm"} & LOCKED.keys()


def test_every_locked_package_is_pinned_with_a_hash():
    pins = re.split(r"\n(?=\w)", LOCK)[1:]
    assert len(pins) >= len(LOCKED)
    for pin in pins:
        assert "==" in pin.splitlines()[0] and "--hash=sha256:" in pin, pin.splitlines()[0]
