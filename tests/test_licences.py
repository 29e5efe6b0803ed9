"""Who may be cited, and under which licences what is here and what is fetched may be used."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from niyama import __version__
from traces import load_catalog

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CITATION = yaml.safe_load((ROOT / "CITATION.cff").read_text())
TRACES_README = (ROOT / "traces" / "README.md").read_text()
REFERENCE = ROOT / "artifact" / "reference"


def licence_name(text: str) -> str:
    """The SPDX name in a text."""
    return re.search(r"cc-by-4\.0|apache-2\.0", text.lower()).group()


def test_citation_package_and_licence_agree():
    assert CITATION["version"] == PROJECT["version"] == __version__
    assert CITATION["license"] == PROJECT["license"] == "Apache-2.0"
    assert "Apache License" in (ROOT / "LICENSE").read_text()
    assert {"arXiv:2503.22562"} == {i["value"] for i in CITATION["references"][0]["identifiers"]}
    assert CITATION["references"][1]["doi"] == "10.1145/3779212.3790206"


@pytest.mark.parametrize("entry", load_catalog().values(), ids=lambda entry: entry.name)
def test_every_trace_has_a_licence_and_a_citation_and_says_so_to_people(entry):
    row = next(line for line in TRACES_README.splitlines() if line.startswith(f"| `{entry.name}` |"))
    assert licence_name(entry.licence) == licence_name(row)
    assert entry.citation.split(",")[0] in row or "| the same;" in row


def test_everything_in_the_reference_folder_has_its_origin_and_licence_told():
    about = (REFERENCE / "README.md").read_text()
    for folder in REFERENCE.iterdir():
        if folder.is_dir():
            assert f"`{folder.name}/`" in about, folder.name
