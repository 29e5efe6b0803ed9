"""The evaluation guide types commands that exist and names files that exist."""

import re
import shlex
from pathlib import Path

import pytest

from artifact.commands.table import parser

ROOT = Path(__file__).parents[1]
GUIDE = (ROOT / "artifact" / "EVALUATION.md").read_text()
COMMANDS = sorted(set(re.findall(r"python -m artifact ([^`\n|]+)", GUIDE)))
PATHS = sorted(set(re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*\w/?|\w+\.(?:md|cff|lock))`", GUIDE)))
WRITTEN = ("results/", ".venv")


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_the_harness_knows(line):
    assert callable(parser().parse_args(shlex.split(line)).run)


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith(WRITTEN) and "NAME" not in path])
def test_every_path_exists(path):
    assert (ROOT / path).exists()


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z]+)", GUIDE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target
