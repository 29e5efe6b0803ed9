"""Fig 4, 6, 9, 15a and 15b draw what their tables say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from figures import fig4, fig6, fig9, fig15a, fig15b, fig_operators, style
from figures.frames import Variant
from tests.figures.test_drawings import marked, words
from tests.helpers.figure_tables import LINEAR
from tests.helpers.panel_tables import CONV_TWIN, FIXED


def test_fig4_finds_the_chunk_of_50_ms(frames):
    """400 tokens in 50 ms are 8,000 tokens/s; 2,000 in 210 ms the most. The star is the paper's 330 and 6,800."""
    rows = fig4.table(frames).set_index("decodes")
    assert rows["chunk_tokens"].to_dict() == {0: 400, 10: 390}
    assert rows.loc[0, "tokens_per_s"] == pytest.approx(8000)
    assert rows.loc[0, "below_most"] == pytest.approx(1 - 8000 / (2000 / 0.21))
    rate, time = fig4.draw(frames, Variant(LINEAR)).axes
    assert marked(rate, "*") == [(330, 6800)] and marked(time, "*") == [(330, 50)]
    assert "400 tokens, 8,000/s" in words(rate.figure)
    assert "8,000 tokens/s" in fig4.caption(frames, Variant(LINEAR))


def test_fig4_takes_no_chunk_beyond_a_dip():
    """A chunk counts only if no smaller one is slower than the SLO."""
    slow = {100: 0.04, 200: 0.06, 300: 0.049}
    fixed = {"backend": "latency-model", "latency": "other-model", "decodes": 0, "decode_context_tokens": 0}
    table = [
        {**fixed, "chunk_tokens": c, "duration_s": s, "tokens_per_s": c / s, "prefill_tokens_per_s": c / s}
        for c, s in slow.items()
    ]
    row = fig4.table({"chunk_curve": pd.DataFrame(table)}).iloc[0]
    assert row["chunk_tokens"] == 100 and math.isnan(row["paper_chunk_tokens"])


def test_fig6_shows_who_was_late_by_how_much_and_when_relegated(frames):
    figure = fig6.draw(frames, Variant(LINEAR))
    assert [ax.get_title() for ax in figure.axes] == ["Sarathi-FCFS", "Niyama"]
    ax = figure.axes[1]
    widths = sorted(round(patch.get_width(), 6) for patch in ax.patches)
    assert widths == [0.1, 0.1, 0.3, 1.8]
    assert (0.4, 0.0) in [(float(line.get_xdata()[0]), float(line.get_ydata()[0])) for line in ax.lines
                          if line.get_marker() == "v"]  # fmt: skip
    assert "missed by 1,000 ms" in words(figure) and "Y (low)" in words(figure)
    assert "Niyama misses Y and relegates Y" in fig6.caption(frames, Variant(LINEAR))


def test_fig9_gains_pair_the_seeds(frames):
    """Rates differ by a factor of three over the seeds, gains do not."""
    rows = fig9.table(frames).set_index(["system", "measure"])
    same, far, goodput = fig9.MEASURES
    assert rows.loc[("niyama-dc", same), ["gain", "gain_low", "gain_high"]].tolist() == pytest.approx([0.1] * 3)
    assert rows.loc[("niyama", far), "gain"] == pytest.approx(1.0)
    assert math.isnan(rows.loc[("niyama", goodput), "gain"])  # the made-up capacities are of another trace
    assert rows.loc[("niyama-dc", same), "paper_gain"] == 0.2


def test_fig9_draws_no_slack_where_there_is_none(frames):
    figure = fig9.draw(frames, Variant(LINEAR, CONV_TWIN))
    chunk, slack, latency, _ = figure.axes
    colour = style.look("niyama").colour
    lines = [next(line for line in ax.lines if line.get_color() == colour) for ax in (chunk, slack, latency)]
    assert lines[0].get_ydata().tolist() == [200.0 + i for i in range(10)]
    assert np.isnan(lines[1].get_ydata()[0]) and lines[1].get_ydata()[1] == pytest.approx(500)
    assert lines[2].get_ydata()[3] == pytest.approx(23)


def test_fig9_with_goodput(frames):
    from tests.helpers.figure_tables import capacity_rows

    rows = capacity_rows(traces=(CONV_TWIN,), latencies=(LINEAR,), systems={"sarathi-edf": 2.0, "niyama-dc": 2.5})
    tables = {**frames, "capacity": pd.DataFrame(rows)}
    found = fig9.table(tables).set_index(["system", "measure"])
    wanted = np.mean([2.5 / 2.0, 2.51 / 2.01, 2.52 / 2.02]) - 1
    assert found.loc[("niyama-dc", "goodput"), "gain"] == pytest.approx(wanted)
    assert len(marked(fig9.draw(tables, Variant(LINEAR, CONV_TWIN)).axes[-1], "*")) == 1


def test_fig15a_bars_and_gain(frames):
    variant = Variant(LINEAR, FIXED)
    chunks, bars = fig15a.draw(frames, variant).axes
    heights = {patch.get_facecolor(): patch.get_height() for patch in bars.patches}
    assert sorted(heights.values()) == pytest.approx([0.25, 0.29, 0.38])
    assert sorted(y for _, y in marked(bars, "*")) == [0.26, 0.32]
    medha = next(line for line in chunks.lines if line.get_color() == style.look("medha").colour)
    assert medha.get_ydata().tolist() == [200 + i for i in range(10)]
    assert sorted(y for _, y in marked(bars, "D")) == pytest.approx([0.3, 0.4])  # the others predict nothing
    gains = fig15a.gains(frames, variant)
    assert gains["margin 1.2"].mean == pytest.approx(np.mean([0.37 / 0.24, 0.38 / 0.25, 0.39 / 0.26]) - 1)
    caption = fig15a.caption(frames, variant)
    assert "over Medha: +52 % [" in caption and "] with no margin; the paper +23 %" in caption


@pytest.mark.parametrize(
    ("share", "alone", "packed"),
    [
        (0.1, 2 + 12, 2 + 11),  # 5 of 8 in the tight pool: 3 of the 45 go there, 42 need 10.5
        (0.5, 7 + 7, 7 + 6),  # 25 of 28: 3 go there, 22 need 5.5
        (0.96, 12 + 1, 12),  # 48 of 48, and 2 left
    ],
)
def test_gpus_from_goodput_by_hand(share, alone, packed):
    """4 requests/s in either pool: what is left of the tighter one saves a GPU at times."""
    capacity = {"tight": 4.0, "loose": 4.0}
    assert fig15b.gpus(capacity, share, 50.0) == alone
    found = fig15b.packed_gpus(capacity, share, 50.0)
    assert found == (13 if share == 0.96 else packed)
    assert fig15b.gpus({"tight": math.nan, "loose": 4.0}, share, 50.0) is None


def test_fig15b_lines_and_planned_fleets(frames):
    """At 10 %: silo ceil(5/4) + ceil(45/5) = 11; PolyServe 1 + ceil(45/6.25) = 9; Niyama ceil(50/6.3) = 8."""
    rows = fig15b.table(frames).set_index(["share", "system"])
    assert rows.loc[0.1, "gpus"].to_dict() == {"sarathi-silo": 11, "polyserve": 9, "niyama": 8}
    assert rows.loc[(0.9, "polyserve"), "planned_fleet"] == "4-6"
    assert math.isnan(rows.loc[(0.1, "sarathi-silo"), "planned_gpus"])
    ax = fig15b.draw(frames, Variant(LINEAR, CONV_TWIN)).axes[0]
    hollow = [line.get_ydata() for line in ax.lines if line.get_markerfacecolor() == "white"]
    assert sorted(float(y.max()) for y in hollow if not np.isnan(y).all()) == [9, 10]


def test_fig_operators_shows_waits_and_jobs_of_both_sizes(frames):
    rows = fig_operators.table(frames).set_index(["system", "replicas"])
    assert rows.loc[("niyama", 1), "ttft_p95_s"] == pytest.approx(0.21)
    assert rows.loc[("niyama", 1), "ttft_p95_s_low"] < 0.21 < rows.loc[("niyama", 1), "ttft_p95_s_high"]
    assert rows.loc[("niyama", 2), "jobs_done_s"] == 180.0
    assert math.isnan(rows.loc[("interactive alone", 1), "jobs_done_s"])
    figure = fig_operators.draw(frames, Variant(LINEAR))
    waits, violated, jobs = figure.axes
    assert waits.get_xscale() == "log" and violated.get_xscale() == "linear"
    assert sorted(round(x) for x, _ in marked(jobs, style.look("niyama").marker)) == [180, 360]
    assert [tick.get_text() for tick in waits.get_yticklabels()][1] == "unprotected (vLLM, FCFS)"
    text = fig_operators.text_table(frames)
    assert text.loc[text["system"] == "interactive alone", "jobs done (s)"].tolist() == ["–", "–"]
