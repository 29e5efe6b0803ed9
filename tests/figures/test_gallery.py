"""Every figure has one place, and notebooks show it from there."""

from __future__ import annotations

from pathlib import Path

import pytest

from artifact.report import notebook as shown
from artifact.report.draw import figure_module
from figures import PAPER_FIGURES, SERVER_FIGURES, style
from figures.gallery import ELSEWHERE, GROUPS, PARTS, PLACES, Place, by_part, group_figures, place

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def test_places_are_parts_and_groups_that_exist():
    assert {p.part for p in PLACES.values()} <= set(PARTS)
    assert {p.group for p in PLACES.values()} <= set(GROUPS)
    assert list(PARTS.values()) == sorted(PARTS.values())  # as Snakemake's report orders them


def test_every_figure_is_in_one_group_and_one_part():
    everything = [*PAPER_FIGURES, *SERVER_FIGURES]
    assert sorted(name for group in GROUPS for name in group_figures(group)) == sorted(everything)
    assert sorted(name for _, names in by_part(everything) for name in names) == sorted(everything)


@pytest.mark.parametrize(
    ("name", "key"), [("fig7_ratios", "fig7"), ("fig12_13", "fig12"), ("fig15b", "fig15b"), ("fig_servers", None)]
)
def test_the_first_word_of_a_name_says_where(name, key):
    assert place(name) == PLACES[key or name]


def test_a_figure_nobody_placed_is_not_in_the_paper():
    assert place("fig_run_length") == place("odd") == ELSEWHERE == Place("beyond", "beyond")


def test_every_group_has_its_notebook_which_shows_it():
    for group in GROUPS:
        assert f'show(\\"{group}\\"' in (NOTEBOOKS / f"{group}.ipynb").read_text(), group


def test_an_unknown_group_names_the_known_ones():
    with pytest.raises(ValueError, match="group 'capasity' is unknown; use one of capacity, load_sweeps"):
        group_figures("capasity")


def test_show_draws_what_is_there_and_says_what_is_not(results, monkeypatch, capsys):
    drawn = []
    monkeypatch.setattr(style, "DPI", 60)
    monkeypatch.setattr(shown, "display", lambda *things: drawn.extend(things))
    shown.show("load_sweeps", results)
    pictures = [thing for thing in drawn if isinstance(thing, shown.Image)]
    there = {path.stem for path in (results / "tables").iterdir()}
    drawable = [name for name in group_figures("load_sweeps") if there.issuperset(figure_module(name).INPUTS)]
    assert len(pictures) == len(drawable) >= 2
    for name in {table for figure in group_figures("capacity") for table in figure_module(figure).INPUTS}:
        (results / "tables" / f"{name}.parquet").unlink(missing_ok=True)
    drawn.clear()
    shown.show("capacity", results)
    said = capsys.readouterr().out
    assert "fig7: " in said and "has no table capacity; `snakemake --cores all results/tables/capacity.parquet`" in said
    assert not [thing for thing in drawn if isinstance(thing, shown.Image)]
