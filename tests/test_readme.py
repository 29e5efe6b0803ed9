"""What README, CONTRIBUTING and docs/ tell people to type works as written, and they say what code and results say."""

import json
import os
import re
import shlex
from pathlib import Path

import pytest

from artifact.__main__ import main
from artifact.claims.results_page import SECTIONS, section_of
from artifact.commands.table import modules_of, parser
from artifact.runs.systems import SYSTEMS

ROOT = Path(__file__).parents[1]
REFERENCE = ROOT / "artifact" / "reference"
README = (ROOT / "README.md").read_text()
MOST_LINES = 110
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXT = "\n".join(path.read_text() for path in PAGES)
COMMANDS = sorted({line.split("  #")[0].strip() for line in re.findall(r"python -m artifact (\w[^`\n]*)", TEXT)})
PATHS = sorted(set(re.findall(r"`((?:\w[\w.-]*/)+[\w.-]*\w/?)`", TEXT)))


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_one_the_harness_knows(line):
    words = shlex.split(line)
    if len(words) == 1:  # a command by its name alone
        assert modules_of(words[0])
    else:
        assert callable(parser().parse_args(words).run)


@pytest.mark.parametrize("path", [path for path in PATHS if not path.startswith("results/")])
def test_every_path_exists(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_link_leads_somewhere(page):
    for path in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
        assert (page.parent / path).exists(), path


def test_every_make_target_exists():
    makefile = (ROOT / "Makefile").read_text()
    for target in re.findall(r"`make ([a-z-]+)", TEXT):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_the_readme_is_short():
    assert len(README.splitlines()) <= MOST_LINES


def test_the_policy_example_runs_and_is_about_ten_lines(tmp_path, capsys):
    (block,) = re.findall(r"```python\n(.+?)```", README, re.DOTALL)
    assert len(block.strip().splitlines()) <= 12
    (tmp_path / "mine.py").write_text(block)
    point = ["--trace", "azure-conv-2023-synth", "--load", "4", "--requests", "300"]
    assert main(["simulate", "--system", f"{tmp_path / 'mine.py'}:mine", *point]) == 0
    assert "300 requests" in capsys.readouterr().out


@pytest.mark.skipif("NIYAMA_TRACES" not in os.environ, reason="needs the real trace, without a download")
def test_simulate_prints_what_the_readme_shows(capsys):
    example = r"^python -m artifact (simulate [^\n]+)\n\n(.+?)\.\.\.\n```"
    ((line, shown),) = re.findall(example, README, re.MULTILINE | re.DOTALL)
    assert main(shlex.split(line)) == 0
    printed = capsys.readouterr().out
    if "-synth" in printed:
        pytest.skip("only the synthetic twin is here")
    assert printed.startswith(shown)


@pytest.fixture(scope="module")
def verified(tmp_path_factory) -> Path:
    """A folder with what `verify` writes of the committed results."""
    folder = tmp_path_factory.mktemp("verified")
    files = ["--json", str(folder / "claims.json"), "--results-page", str(folder / "RESULTS.md")]
    assert main(["verify", "--results", str(REFERENCE), *files]) == 0
    return folder


def test_it_counts_the_claims_as_verify_does(verified):
    (counts,) = re.findall(r"of (\d+) claims (\d+) pass, (\d+) fail,", README)
    statuses = [row["status"] for row in json.loads((verified / "claims.json").read_text())["claims"]]
    passed, skipped = statuses.count("PASS"), statuses.count("SKIPPED")
    assert [int(count) for count in counts] == [len(statuses), passed, len(statuses) - passed - skipped]


def test_the_results_page_is_what_the_command_writes_today(verified):
    assert (verified / "RESULTS.md").read_text() == (ROOT / "docs" / "RESULTS.md").read_text()


def test_a_claim_of_no_section_is_an_error_and_the_longest_beginning_counts():
    assert section_of("fig7-qwen-code-niyama").title.startswith("Qwen-7B")
    assert section_of("fig7-code-niyama") == SECTIONS[0]
    with pytest.raises(ValueError, match="claim 'new' belongs to no section"):
        section_of("new")


def test_every_system_is_described():
    missing = [system for system in SYSTEMS if f"`{system}`" not in (ROOT / "docs" / "ARCHITECTURE.md").read_text()]
    assert not missing


def test_every_law_is_listed():
    listed = re.findall(r"\| `(\w+\.py)` \|", (ROOT / "docs" / "ARCHITECTURE.md").read_text())
    assert {f"test_law_{name}" for name in listed} == {
        path.name for path in (ROOT / "tests" / "laws").glob("test_law_*.py")
    }


def test_the_page_of_tables_is_what_the_command_writes_today(tmp_path):
    assert main(["tables", "--page", str(tmp_path / "TABLES.md")]) == 0
    assert (tmp_path / "TABLES.md").read_text() == (ROOT / "docs" / "TABLES.md").read_text()
