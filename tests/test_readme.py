"""What the README tells people to type works as written."""

import re
import shlex
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.cli import parser

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
COMMANDS = re.findall(r"^python -m artifact (.+)$", README, re.MULTILINE)


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_the_harness_knows(line):
    assert callable(parser().parse_args(shlex.split(line)).run)


def test_the_policy_example_runs_and_is_about_ten_lines(tmp_path, capsys):
    (block,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 12
    (tmp_path / "mine.py").write_text(block)
    point = ["--trace", "azure-conv-2023-synth", "--load", "4", "--requests", "300"]
    assert main(["simulate", "--system", f"{tmp_path / 'mine.py'}:mine", *point]) == 0
    assert "300 requests" in capsys.readouterr().out


def test_it_counts_the_claims_as_verify_does(capsys):
    (counts,) = re.findall(r"Of (\d+) claims .+ (\d+) come out, (\d+) do not,", README)
    assert main(["verify", "--results", str(ROOT / "artifact" / "reference")]) == 0
    assert f"{counts[0]} claims: {counts[1]} PASS, 1 SKIPPED, {counts[2]} XFAIL" in capsys.readouterr().out


def test_every_path_it_names_exists():
    for path in re.findall(r"\]\(([^)#:]+)\)", README):
        assert (ROOT / path).exists(), path
