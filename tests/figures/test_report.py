"""Files of figures and the report: complete, self-contained, and the same bytes every time."""

from __future__ import annotations

import base64
import re
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

from artifact.report.draw import figure_module, render
from artifact.report.page import write_figure_page
from artifact.report.report import write_report
from artifact.results.failures import AGAIN, Failure, Incomplete
from artifact.results.frames import load_tables, markdown
from artifact.results.manifest import write_manifest
from artifact.results.tables import ResultError, read_table, write_table
from figures import FIGURES, differences, style
from figures.frames import Variant
from figures.gallery import PARTS
from tests.helpers.figure_tables import LINEAR

REPOSITORY = Path(__file__).resolve().parents[2]


def without_images(html: str) -> str:
    return re.sub(r"base64,[^\"]*", "", html)


def test_render_writes_pictures_and_tables(results):
    paths = render("fig1_table4", results)
    names = [path.name for path in paths]
    stem = "fig1_table4-azure-code-2024-week-synth-a100-llama3-8b-linear"
    assert names == [f"{stem}.png", f"{stem}.pdf", "fig1_table4.csv", "fig1_table4.md"]
    assert sorted(path.name for path in (results / "figures").iterdir()) == sorted(names)
    numbers = pd.read_csv(paths[2], dtype={"fleet": str})
    assert numbers.set_index("fleet").loc["7-3-3", "paper_Q3_p99_s"] == 171.11
    assert paths[3].read_text().splitlines()[1].startswith("| --- |")


def test_pictures_are_the_same_bytes_in_another_process(results):
    before = {path.name: path.read_bytes() for path in render("fig7", results)}
    code = f"import sys; sys.path.insert(0, '.'); from pathlib import Path; from artifact.report.draw import render; \
render('fig7', Path({str(results)!r}))"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=REPOSITORY, env={"SOURCE_DATE_EPOCH": "1"})
    after = {path.name: path.read_bytes() for path in (results / "figures").iterdir()}
    assert after == before


def test_saving_twice_gives_the_same_bytes(results):
    module = figure_module("fig11")
    tables = load_tables(module.INPUTS, results / "tables")
    figure = module.draw(tables, module.variants(tables)[0])
    for kind in ("png", "pdf"):
        first, second = (style.image_bytes(figure, kind) for _ in range(2))
        assert first == second and b"CreationDate" not in first


def test_an_unknown_figure_names_the_known_ones(results):
    with pytest.raises(ValueError, match=r"figure 'fig1l' is unknown \(did you mean 'fig1"):
        render("fig1l", results)


def test_a_missing_table_is_one_clear_error(tmp_path):
    with pytest.raises(ResultError, match=r"capacity\.parquet: is missing"):
        render("fig7", tmp_path)


def test_a_column_that_is_gone_is_one_clear_error(results, monkeypatch):
    path = results / "tables" / "capacity.parquet"
    monkeypatch.setattr("artifact.results.tables.check_table", lambda path, table: None)  # by an older version
    write_table(path, read_table(path).drop_columns(["fluid_bound_qps"]))
    with pytest.raises(ValueError, match="table 'capacity' has no column 'fluid_bound_qps'"):
        write_report(results)


def test_the_report_holds_every_figure_and_nothing_from_elsewhere(results, draw):
    pictures = [path for path in draw(*FIGURES) if path.suffix == ".png"]
    html = write_report(results).read_text()
    for picture in pictures:
        image = base64.b64encode(picture.read_bytes()).decode()
        assert re.search(rf'<figure id="{re.escape(picture.stem)}"[^>]*><img [^>]*base64,{re.escape(image)}"', html)
    for name in FIGURES:
        module = figure_module(name)
        for variant in module.variants(load_tables(module.INPUTS, results / "tables")):
            assert f'<figure id="{name}-{variant.slug}"' in html
    page = without_images(html)
    assert "http://" not in page and "https://" not in page and "<script" not in page
    assert all(source.startswith("data:image/png;base64,") for source in re.findall(r'src="([^"]*)"', html))
    for needed in ("oracle", "example.org/trace", "synthetic", "numba", "mean abs 5.2 %", "N = 9,000 to N = 40,000"):
        assert needed in page
    assert "1.51 / 1.31 / 1.50" in page and "Timings" not in page
    assert not list(results.glob("**/.*.part"))


def test_the_report_is_grouped_by_part_of_the_paper(results, draw):
    figures = ("fig_tbt", "fig7", "fig1_table4", "fig10")
    draw(*figures)
    html = write_report(results, figures).read_text()
    headings = re.findall(r"<h[23] id=[^>]*>([^<]*)<", html)
    parts = [heading for heading in headings if heading in PARTS.values()]
    assert parts == [PARTS["capacity"], PARTS["load"], PARTS["beyond"]]
    own = headings[headings.index(PARTS["capacity"]) + 1 : headings.index(PARTS["load"])]
    assert own == [figure_module(name).TITLE for name in ("fig7", "fig1_table4")]
    assert set(re.findall(r'href="#([^"]*)"', html)) <= set(re.findall(r' id="([^"]*)"', html))


def test_a_picture_that_was_not_drawn_is_one_clear_error(results, draw):
    picture = next(path for path in draw("fig_tbt") if path.suffix == ".png")
    picture.unlink()
    said = f"{picture.name}: is missing; run `python -m artifact figure fig_tbt --results {results}` to draw it"
    with pytest.raises(ResultError, match=re.escape(said)):
        write_report(results, ("fig_tbt",))
    assert not (results / "report.html").exists()


def test_a_figures_page_holds_its_pictures_captions_and_table(results, draw):
    paths = draw("fig7")
    html = write_figure_page("fig7", results).read_text()
    module = figure_module("fig7")
    tables = load_tables(module.INPUTS, results / "tables")
    for variant in module.variants(tables):
        assert f"<figcaption>{variant.latency}</figcaption>" in html
        picture = results / "figures" / f"fig7-{variant.slug}.png"
        assert picture in paths and base64.b64encode(picture.read_bytes()).decode() in html
        about = f'alt="{module.TITLE}. {variant.latency}. One panel per trace, one lane per system."'
        assert about in html
    assert html.count("which is what the authors") == 1, "the caption that both share"
    assert "<details open><summary>Table" in html and "<script" not in html


def test_the_report_is_the_same_bytes_every_time(results, draw, monkeypatch):
    figures = ("fig1_table4", "fig_tbt")
    monkeypatch.setattr("artifact.report.report.FIGURES", figures)
    draw(*figures)
    first = write_report(results).read_bytes()
    for name in figures:
        render(name, results)
    assert write_report(results).read_bytes() == first


def test_notes_take_their_numbers_from_the_tables(frames):
    notes = dict(differences.notes(frames))
    assert "9 instead of 12 (25 % fewer" in notes["GPUs"]
    assert "Niyama by −12 % and of QoServe artifact by −13 %" in notes["Token deadlines"]
    assert "azure-code-2024-week-synth" in notes["Traces"]
    only = {name: frame[frame["latency"] == LINEAR] for name, frame in frames.items() if "latency" in frame}
    assert "Latency model" not in dict(differences.notes(only))


def test_markdown_escapes_bars():
    assert markdown(pd.DataFrame({"a|b": ["x|y"]})) == "| a\\|b |\n| --- |\n| x\\|y |\n"


def test_variant_names_the_file():
    assert Variant("model", "trace").slug == "trace-model"
    assert Variant("model").slug == "model"


def test_after_a_failed_run_boxes_stand_in_the_place_of_what_is_missing(results, draw, monkeypatch):
    """Fig 11 failed by itself, table `cluster` was never made, Fig 10 was never drawn: all else is there."""
    monkeypatch.setenv(AGAIN, "make reproduce")
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig7", "fig10", "fig11", "fig1_table4"))
    draw("fig7", "fig1_table4")
    for path in (results / "tables").glob("manifest*.json"):
        path.unlink()
    (results / "tables" / "cluster.parquet").unlink()
    why = Failure("r/figures/fig11.txt", "KeyError: 'panel <3>'", "python -m artifact figure fig11")
    write_manifest(results, results / "tables" / "manifest-incomplete.json", [])
    missing = Incomplete((why,), {"figures/fig11.txt": (why,)})
    found = without_images(write_report(results, missing=missing).read_text())
    assert "This report is not complete" in found and "Not made: fig11" in found
    assert "panel &lt;3&gt;" in found and "By hand: <code>python -m artifact figure fig11</code>" in found
    assert found.count("To make it: <code>make reproduce</code>") == found.count('class="missing"')
    assert '<figure id="fig7-' in found and '<figure id="fig11-' not in found
    for title, reason in (("fig10", "fig10-"), ("fig1_table4", "cluster"), ("GPUs", "cluster")):
        assert re.search(rf"Not made: {title}</b></p>\n<p>[^<]*{reason}", found), title
    assert "Not made: Goodput" not in found, "it is of another table"
    assert "<h3>Traces</h3>" in found and "SKIPPED" in found, "provenance and claims are of what there is"
    with pytest.raises(ResultError):
        write_report(results)


def test_a_table_that_was_not_made_again_is_shown_nowhere(results, draw, monkeypatch):
    """The one of the run before is still there, and so is its picture."""
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig7", "fig11"))
    draw("fig7", "fig11")
    why = Failure("r/capacity/a.parquet", "out of memory", "python -m artifact search")
    outputs = {"tables/capacity.parquet": (why,), "figures/fig7.txt": (why,), "tables/manifest.json": (why,)}
    found = without_images(write_report(results, missing=Incomplete((why,), outputs)).read_text())
    for title in ("Goodput", "fig7", "What differs from the paper"):
        assert f"Not made: {title}</b></p>\n<p>r/capacity/a.parquet: out of memory</p>\n<p>By hand" in found, title
    assert '<figure id="fig7-' not in found and '<figure id="fig11-' in found
    assert ">capacity</td>" not in found.partition(">Code<")[2], "it is not in the list of what made the tables"


def test_a_damaged_table_costs_what_is_made_of_it(results, draw, monkeypatch):
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig7", "fig1_table4"))
    draw("fig7", "fig1_table4")
    damaged = results / "tables" / "cluster.parquet"
    damaged.write_bytes(damaged.read_bytes()[:100])
    found = without_images(write_report(results, missing=Incomplete((), {})).read_text())
    for title in ("GPUs", "fig1_table4"):
        assert re.search(rf"Not made: {title}</b></p>\n<p>[^<]*cluster\.parquet: cannot be read", found), title
    assert '<figure id="fig7-' in found and "Not made: Goodput" not in found
