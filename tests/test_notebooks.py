"""Notebooks are short, hold no outputs and no functions: a change to one can be read. `pytest --nbmake` runs them."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_is_what_a_person_wrote(path):
    cells = json.loads(path.read_text())["cells"]
    ids = [cell["id"] for cell in cells]
    assert 3 <= len(cells) <= 7 and len(set(ids)) == len(ids)
    assert all(re.fullmatch(r"[a-z]+(-[a-z]+)*", name) for name in ids)  # given, not drawn at random
    for cell in cells:
        assert not re.search(r"^\s*(def|class) ", "".join(cell["source"]), re.MULTILINE)
        if cell["cell_type"] == "code":
            assert cell["outputs"] == [] and cell["execution_count"] is None


def test_all_of_them_run_where_nothing_else_does():
    """The options of `conftest.py` are those of the whole repository."""
    command = [sys.executable, "-m", "pytest", "notebooks", "--nightly", "--nbmake", "--collect-only", "-q"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert all(f"notebooks/{path.name}::" in done.stdout for path in NOTEBOOKS), done.stdout + done.stderr
