"""Every figure draws what the tables say, and says what is missing instead of drawing it."""

from __future__ import annotations

import importlib
import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from matplotlib.figure import Figure

from figures import (
    FIGURES,
    PAPER_FIGURES,
    capacity_dots,
    fig1_table4,
    fig2,
    fig5,
    fig7,
    fig7_ratios,
    fig10,
    fig11,
    fig14,
    fig_classes,
    fig_predictor,
    fig_run_length,
    fig_slo_set,
    fig_tbt,
    paper,
    predictor_accuracy,
    style,
    table5,
    table6,
    violation_lines,
)
from figures.frames import FigureError, Variant, estimate, estimate_of_log
from tests.helpers.figure_tables import (
    CODE,
    CODE_TWIN,
    LINEAR,
    SYSTEMS,
    capacity_row,
    capacity_rows,
    cluster_rows,
    summary_rows,
)

CRITERION = "violation_rate_without_tbt"
NO_RUNS = ("fig4",)  # drawn from a latency model alone


def bars(ax) -> dict[str, float]:
    """Colour and length of each horizontal bar of a panel."""
    return {to_hex(patch.get_facecolor()): patch.get_width() for patch in ax.patches}


def marked(ax, marker: str) -> list[tuple[float, float]]:
    """Points drawn with a marker and no line."""
    return [
        (float(line.get_xdata()[0]), float(line.get_ydata()[0]))
        for line in ax.lines
        if line.get_marker() == marker and line.get_linestyle() == "None"
    ]


def line_of(ax, system: str, thin: bool = False):
    """The line of a system in a panel over load."""
    colour = style.look(system).colour
    own = [line for line in ax.lines if line.get_color() == colour and (line.get_marker() in (None, "None")) == thin]
    return own[0]


def words(figure: Figure) -> str:
    """All text of a figure."""
    return "\n".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_the_default_figures_are_some_of_the_papers():
    assert set(FIGURES) <= set(PAPER_FIGURES)


RUN_FIGURES = [name for name in PAPER_FIGURES if name != "predictor_accuracy"]  # the others show no runs


@pytest.mark.parametrize("name", RUN_FIGURES)
def test_every_figure_draws_every_variant_with_its_provenance(name, frames):
    module = importlib.import_module(f"figures.{name}")
    variants = module.variants(frames)
    assert variants
    for variant in variants:
        figure = module.draw(frames, variant)
        assert isinstance(figure, Figure)
        footer = " ".join(figure.get_supxlabel().split())
        assert variant.latency in footer
        if name in NO_RUNS:
            assert "Backend: the latency model alone" in footer
        else:
            assert "Backend: simulation" in footer and "oracle" in footer and "N = " in footer
        assert variant.latency in module.caption(frames, variant)
        assert min(text.get_fontsize() for text in figure.findobj(lambda a: hasattr(a, "get_fontsize"))) >= 7


def test_fig7_bars_are_the_capacities_of_the_table(frames):
    figure = fig7.draw(frames, Variant(LINEAR))
    assert [ax.get_title().split("\n")[0] for ax in figure.axes] == ["Azure code 2023", "Azure code 2024 (synthetic)"]
    for ax, stars in zip(figure.axes, ([], [1.5, 2.6, 3.8, 3.8]), strict=True):  # the paper ran the 2024 week
        found = bars(ax)
        for system, base in SYSTEMS.items():
            assert found[style.look(system).colour.lower()] == pytest.approx(base + 0.01)
        hollow = sorted(x for x, _ in marked(ax, "D"))
        assert hollow == pytest.approx(sorted(base + 0.01 - 0.5 for base in SYSTEMS.values()))
        assert sorted(x for x, _ in marked(ax, "*")) == stars
        bound = [line for line in ax.lines if list(line.get_xdata()) == [4.5, 4.5]]
        assert len(bound) == 1
    assert "N = 9,000 (long: 40,000)" in words(figure)


def test_fig7_draws_no_bar_without_a_crossing(frames):
    rows = capacity_rows(traces=(CODE,), latencies=(LINEAR,), systems={"sarathi-fcfs": 1.5})
    rows.append(capacity_row(CODE, "niyama", LINEAR, "paper", CRITERION, [None, None]))
    rows.append(capacity_row(CODE, "sarathi-edf", LINEAR, "paper", CRITERION, [2.0, None]))
    tables = {"capacity": pd.DataFrame(rows)}
    figure = fig7.draw(tables, Variant(LINEAR))
    assert len(figure.axes[0].patches) == 1
    assert "> 8" in words(figure) and "none in 1/2 seeds" in words(figure)
    remarks = fig7.table(tables).set_index("system")["remark"]
    assert remarks["niyama"] == "no crossing up to 8"
    assert remarks["sarathi-edf"] == "no crossing in 1 of 2 seeds"
    assert remarks["sarathi-fcfs"] == ""


def test_fig7_with_one_seed_one_trace_and_an_unknown_system():
    systems = {"sarathi-fcfs": 1.5, "my_policy.py:POLICY": 2.0}
    rows = capacity_rows(traces=("azure-conv-2024-week-synth",), latencies=(LINEAR,), seeds=1, systems=systems)
    figure = fig7.draw({"capacity": pd.DataFrame(rows)}, Variant(LINEAR))
    assert figure.get_figwidth() == style.SINGLE_IN
    assert "my_policy.py:POLICY" in words(figure) and "Azure conv 2024 (synthetic)" in words(figure)
    assert "a single seed has no interval" in " ".join(figure.get_supxlabel().split())
    assert [x for x, _ in marked(figure.axes[0], "*")] == [2.8]


def test_only_long_runs_are_drawn_as_bars():
    frame = pd.DataFrame(capacity_rows(traces=(CODE,), latencies=(LINEAR,)))
    table = fig7.table({"capacity": frame[frame["run_length"] == "long"]}).set_index("system")
    assert table.loc["niyama", "capacity_qps"] == pytest.approx(4.0 - 0.2 + 0.01)


def test_ratios_pair_the_seeds(frames):
    rows = fig7_ratios.table(frames)
    keys = {"latency": LINEAR, "run_length": "paper", "trace": CODE_TWIN, "numerator": "niyama", "criterion": CRITERION}
    own = rows[(rows[list(keys)] == pd.Series(keys)).all(axis=1)].set_index("baseline")
    per_seed = np.array([4.0, 4.01, 4.02]) / np.array([1.5, 1.51, 1.52])
    wanted = estimate(per_seed)
    assert own.loc["FCFS", ["ratio", "interval_low", "interval_high"]].tolist() == pytest.approx(
        [wanted.mean, wanted.low, wanted.high]
    )
    assert own.loc["FCFS", "paper_ratio"] == pytest.approx(3.8 / 1.5)
    assert own.loc["EDF", "paper_ratio"] == pytest.approx(3.8 / 2.6)
    figure = fig7_ratios.draw(frames, Variant(LINEAR))
    assert len(figure.axes) == 4
    drawn = [float(line.get_xdata()[0]) for line in figure.axes[0].lines if line.get_marker() == "o"]
    assert wanted.mean == pytest.approx(drawn[0])


def test_ratio_without_a_crossing_is_said_and_not_drawn():
    rows = [
        capacity_row(CODE, "niyama", LINEAR, "paper", CRITERION, [None, 4.0]),
        capacity_row(CODE, "sarathi-edf", LINEAR, "paper", CRITERION, [2.0, 2.0]),
    ]
    tables = {"capacity": pd.DataFrame(rows)}
    assert math.isnan(fig7_ratios.table(tables)["ratio"].iloc[0])
    assert fig7_ratios.text_table(tables)["Niyama"].tolist() == ["no crossing"]
    assert "no crossing" in words(fig7_ratios.draw(tables, Variant(LINEAR)))


def test_ratios_need_a_numerator_and_a_baseline():
    tables = {"capacity": pd.DataFrame(capacity_rows(systems={"niyama": 4.0}))}
    assert fig7_ratios.variants(tables) == []
    assert fig7_ratios.text_table(tables).empty


def test_fig10_lines_are_geometric_means(frames):
    figure = fig10.draw(frames, Variant(LINEAR, CODE))
    assert [ax.get_title() for ax in figure.axes] == [
        f"{group}, {q}" for q in ("p50", "p95") for group in ("Q1 TTFT", "Q2 TTLT", "Q3 TTLT")
    ]
    frame = frames["summary"]
    own = frame[(frame["group"] == "Q2") & (frame["system"] == "niyama")]
    line = line_of(figure.axes[4], "niyama")
    assert list(line.get_xdata()) == [2.0, 4.0, 6.0]
    for load, value in zip(line.get_xdata(), line.get_ydata(), strict=True):
        assert value == pytest.approx(estimate_of_log(own.loc[own["load_qps"] == load, "ttlt_p95_s"]).mean)
    assert all(len(ax.collections) == len(SYSTEMS) for ax in figure.axes)
    slos = [line.get_ydata()[0] for ax in figure.axes for line in ax.lines if line.get_color() == style.INK]
    assert slos == [6.0, 600.0, 1800.0] * 2
    assert all(ax.get_yscale() == "log" for ax in figure.axes)


def test_one_seed_has_no_band():
    tables = {"summary": pd.DataFrame(summary_rows(seeds=1))}
    for module in (fig10, fig11, fig_tbt):
        figure = module.draw(tables, Variant(LINEAR, CODE))
        assert all(not ax.collections for ax in figure.axes)
        assert "a single seed has no interval" in " ".join(figure.get_supxlabel().split())


def test_fig11_lines_are_percentages_with_and_without_token_deadlines(frames):
    figure = fig11.draw(frames, Variant(LINEAR, CODE))
    frame = frames["summary"]
    for ax, group in zip(figure.axes, (*violation_lines.GROUPS, "Q1", "Q2", "Q3"), strict=True):
        assert len(ax.lines) == len(SYSTEMS) + 2
        own = (
            frame[(frame["group"] == group) & (frame["system"] == "qoserve-artifact")]
            .groupby("load_qps")
            .mean(numeric_only=True)
        )
        solid, thin = line_of(ax, "qoserve-artifact"), line_of(ax, "qoserve-artifact", thin=True)
        assert list(solid.get_ydata()) == pytest.approx(list(own["violation_rate_without_tbt"] * 100))
        assert list(thin.get_ydata()) == pytest.approx(list(own["violation_rate"] * 100))


def test_fig_tbt_is_about_q1_in_percent_and_milliseconds(frames):
    figure = fig_tbt.draw(frames, Variant(LINEAR, CODE))
    frame = frames["summary"]
    own = frame[(frame["group"] == "Q1") & (frame["system"] == "niyama") & (frame["load_qps"] == 4.0)]
    late, over, gap = (line_of(ax, "niyama").get_ydata()[1] for ax in figure.axes)
    assert late == pytest.approx(100 * own["late_token_share"].mean())
    assert over == pytest.approx(100 * own["gap_over_tbt_share"].mean())
    assert gap == pytest.approx(1e3 * estimate_of_log(own["max_gap_p99_s"]).mean)
    assert "TBT 50 ms" in words(figure)


def test_fig1_stacks_the_silo_and_counts_gpus(frames):
    figure = fig1_table4.draw(frames, Variant(LINEAR, CODE_TWIN))
    heights = [patch.get_height() for patch in figure.axes[0].patches]
    assert heights == [6, 4, 2, 14, 9]
    text = words(figure)
    assert "−25 %" in text and "+17 %" in text
    assert [y for _, y in marked(figure.axes[0], "*")] == [13, 10]


def test_table4_holds_the_papers_rows_only_at_its_load(frames):
    table = fig1_table4.table(frames).set_index(["system", "fleet"])
    assert table.loc[("sarathi-silo", "7-3-3"), "paper_Q1_p99_s"] == 3.09
    assert table.loc[("niyama", "10"), "paper_violation_rate"] == 0.0
    assert math.isnan(table.loc[("niyama", "9"), "paper_Q1_p99_s"])
    assert table.loc[("niyama", "10"), "Q2_p99_s"] == pytest.approx((3 + 6) / 2)
    other = {"cluster": pd.DataFrame(cluster_rows(load_qps=8.0))}
    assert fig1_table4.table(other)["paper_Q1_p99_s"].isna().all()
    assert not marked(fig1_table4.draw(other, Variant(LINEAR, CODE_TWIN)).axes[0], "*")


def test_fig2_joins_the_sweep_with_the_queue_that_it_leaves_out(frames):
    figure = fig2.draw(frames, Variant(LINEAR, CODE))
    assert "Sarathi-SJF" in words(figure) and "Niyama" not in words(figure).replace("Niyama:", "")
    frame = frames["more_systems"]
    own = frame[(frame["system"] == "sarathi-sjf") & (frame["group"] == "long")].groupby("load_qps")
    line = line_of(figure.axes[4], "sarathi-sjf")
    assert list(line.get_ydata()) == pytest.approx(list(100 * own[CRITERION].mean()))


def test_fig5_shows_the_share_that_was_relegated(frames):
    figure = fig5.draw(frames, Variant(LINEAR, CODE))
    frame = frames["more_systems"]
    own = frame[(frame["system"] == "niyama-dc-er") & (frame["group"] == "all") & (frame["load_qps"] >= 3)]
    line = line_of(figure.axes[2], "niyama-dc-er")
    assert list(line.get_xdata()) == [4.0, 6.0]
    assert list(line.get_ydata()) == pytest.approx(list(100 * own.groupby("load_qps")["relegated_share"].mean()))
    assert "0, 0, 0, 2, 5 % relegated" in fig5.caption(frames, Variant(LINEAR, CODE))


def test_table5_puts_goodput_and_violations_beside_the_papers(frames):
    twins = {name: frames[name].assign(trace=CODE_TWIN) for name in table5.RUNS}
    frames |= {name: pd.concat([frames[name], twin]) for name, twin in twins.items()}
    rows = table5.table(frames)
    assert rows.loc[rows["trace"] == CODE, ["capacity_qps_paper", "violation_rate_paper"]].isna().all(axis=None)
    own = rows[(rows["latency"] == LINEAR) & (rows["trace"] == CODE_TWIN)].set_index("system")
    assert list(own.index) == ["sarathi-edf", "niyama-dc", "niyama-dc-er", "niyama"]
    assert own.loc["niyama", "capacity_qps"] == pytest.approx(4.01)
    assert math.isnan(own.loc["niyama-dc", "capacity_qps"])  # the made-up searches lack it
    assert list(own["violation_rate_paper"]) == [1.0, 0.74, 0.26, 0.16]
    frame = frames["summary"]
    mask = (frame["system"] == "niyama") & (frame["group"] == "all") & (frame["load_qps"] == 6)
    assert own.loc["niyama", "violation_rate"] == pytest.approx(frame.loc[mask, CRITERION].mean())
    assert not marked(table5.draw(frames, Variant(LINEAR, CODE)).axes[1], "*")
    assert "The paper prints no numbers" in table5.caption(frames, Variant(LINEAR, CODE))
    figure = table5.draw(frames, Variant(LINEAR, CODE_TWIN))
    assert sorted(x for x, _ in marked(figure.axes[1], "*")) == [16.0, 26.0, 74.0, 100.0]


def test_table6_has_the_papers_row_of_each_mix(frames):
    rows = table6.table(frames).set_index(["mix", "system"])
    assert rows.loc[("70-15-15", "niyama"), "violation_rate_paper"] == 0.05
    assert rows.loc[("15-15-70", "sarathi-edf"), "Q2_paper"] == 2621.5
    assert len(marked(table6.draw(frames, Variant(LINEAR, CODE)).axes[-1], "*")) == 2 * 4  # artifact and Niyama alike


def test_fig14_has_a_line_per_alpha(frames):
    figure = fig14.draw(frames, Variant(LINEAR, CODE))
    assert all(len(ax.lines) == 3 for ax in figure.axes)
    assert "8 ms/token" in words(figure) and "adaptive" in words(figure)


def test_dots_are_the_capacities_of_the_table_and_of_the_plain_case(frames):
    rows = fig_slo_set.table(frames)
    own = rows[(rows["latency"] == LINEAR) & (rows["trace"] == CODE_TWIN) & (rows["system"] == "niyama")]
    assert list(own["variant"]) == [fig_slo_set.PLAIN, "3 s"]
    assert list(own["capacity_qps"]) == pytest.approx([4.01, 3.71])
    assert list(own["paper_qps"].fillna(0)) == [3.8, 0]  # the other SLOs: on conversation only
    ax = fig_slo_set.draw(frames, Variant(LINEAR)).axes[0]
    drawn = {round(x, 2) for x, _ in marked(ax, style.look("niyama").marker)}
    assert drawn == {4.01, 3.71}


def test_the_other_slos_numbers_are_for_conversation():
    printed = paper.other_slos("azure-conv-2024-week-synth", "niyama", LINEAR)
    assert printed.value == 5.0 and paper.other_slos(CODE_TWIN, "niyama", LINEAR) is None


def test_an_oracle_is_told_from_another_model(frames):
    rows = fig_predictor.table(frames)
    assert list(dict.fromkeys(rows["variant"])) == [
        "own model",
        "own model, noise 10 %",
        "other model, noise 10 %",
        "two A100s:\na100-tp2-qwen-7b-engine",
    ]
    text = fig_predictor.caption(frames, Variant(LINEAR))
    assert "other model: a100-llama3-8b-roofline; two A100s: a100-tp2-qwen-7b-engine;" in text


def test_run_lengths_are_in_order_with_the_searches_of_fig7(frames):
    rows = fig_run_length.table(frames)
    own = rows[(rows["latency"] == LINEAR) & (rows["trace"] == CODE) & (rows["system"] == "niyama")]
    assert list(own["requests"]) == [1000, 3000, 9000, 40000]
    assert list(own["capacity_qps"]) == pytest.approx([4.41, 4.21, 4.01, 3.81])
    line = line_of(fig_run_length.draw(frames, Variant(LINEAR)).axes[0], "niyama")
    assert list(line.get_ydata()) == pytest.approx([4.41, 4.21, 4.01, 3.81])


def test_a_search_without_a_crossing_is_said_and_not_drawn():
    rows = [
        {**capacity_row(CODE, "niyama", LINEAR, "paper", name, [None, None]), "variant": "hard"}
        for name in ("violation_rate_without_tbt", "violation_rate")
    ]
    frame = pd.DataFrame(rows).drop(columns="run_length")
    figure = capacity_dots.draw(frame, Variant(LINEAR))
    assert "Niyama: no crossing up to 8" in words(figure) and not marked(figure.axes[0], style.look("niyama").marker)
    assert capacity_dots.text_table(capacity_dots.table(frame))["goodput"].tolist() == ["no crossing up to 8"]


def test_every_set_of_classes_is_a_row_of_panels(frames):
    figure = fig_classes.draw(frames, Variant(LINEAR, CODE))
    assert [ax.get_title() for ax in figure.axes] == ["Q1", "Q2", "1 s", "3 s", "6 s", "600 s", "1,800 s"]


@pytest.mark.parametrize("name", PAPER_FIGURES)
def test_a_missing_table_or_column_is_one_clear_error(name, frames):
    module = importlib.import_module(f"figures.{name}")
    whole = {table: frames[table] for table in module.INPUTS}
    for table in module.INPUTS:
        rest = {other: frame for other, frame in whole.items() if other != table}
        with pytest.raises(FigureError, match=f"table '{table}' is missing"):
            module.variants(rest)
        column = "latency" if name in NO_RUNS else "predictor"
        with pytest.raises(FigureError, match=f"table '{table}' has no column '{column}'"):
            module.variants({**whole, table: frames[table].drop(columns=column)})
        with pytest.raises(FigureError, match=f"table '{table}' has no rows"):
            module.variants({**whole, table: frames[table].iloc[:0]})


def test_every_system_has_its_own_colour_and_marker():
    looks = list(style.SYSTEMS.values())
    others = {*style.ramp(3), *(colour for _, colour in predictor_accuracy.LOOKS.values())}
    assert not {look.colour.lower() for look in looks} & others, "a system's colour means that system only"
    assert len({look.colour for look in looks}) == len({look.marker for look in looks}) == len(looks)
    assert [look.label for look in looks if look.emphasised] == ["Niyama"]
