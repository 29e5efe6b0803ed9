"""What a figure is made of: no other figure, and exactly the modules that importing it loads."""

from __future__ import annotations

import importlib
import sys

import pytest

from artifact.report.figure_sources import FOLDER, figure_code
from figures import PAPER_FIGURES, SERVER_FIGURES

EVERY = (*PAPER_FIGURES, *SERVER_FIGURES)
REPORT_TEXT = ("headline", "differences", "gallery")  # sums up figures, so it imports some


@pytest.fixture
def fresh(monkeypatch):
    """No module of figures/ is loaded; those that were are back after the test."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "figures"]:
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in [name for name in sys.modules if name.partition(".")[0] == "figures"]:
        del sys.modules[name]


@pytest.mark.parametrize("name", [*EVERY, *REPORT_TEXT])
def test_the_files_are_those_of_the_modules_that_it_loads(name, fresh):
    importlib.import_module(f"figures.{name}")
    loaded = sorted(found for found in sys.modules if found.startswith("figures."))
    assert figure_code(name) == [f"figures/{found.removeprefix('figures.')}.py" for found in loaded]


@pytest.mark.parametrize("name", EVERY)
def test_a_figure_is_not_made_of_another(name):
    others = {f"figures/{other}.py" for other in EVERY if other != name}
    assert not others & set(figure_code(name))


def test_what_two_figures_share_is_code_of_both():
    for name in ("fig7", "fig7_models", "fig8"):
        assert {f"figures/{name}.py", "figures/capacity_bars.py", "figures/style.py"} <= set(figure_code(name))
    assert "figures/goodput.py" not in figure_code("fig8")
    assert set(figure_code("fig8", "fig12")) == set(figure_code("fig8")) | set(figure_code("fig12"))


def test_every_module_is_code_of_something():
    files = {f"figures/{path.name}" for path in FOLDER.glob("*.py")} - {"figures/__init__.py"}
    assert set(figure_code(*EVERY, *REPORT_TEXT)) == files


def test_a_module_that_is_not_there_is_an_error():
    with pytest.raises(FileNotFoundError, match=r"fig99\.py"):
        figure_code("fig99")
