"""Fig 8, 12 and 13 draw what their tables say."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex

from figures import capacity_bars, fig8, fig12, fig13, paper, style
from figures.frames import Variant
from tests.figures.test_drawings import bars, marked, words
from tests.helpers.figure_tables import CODE, CODE_TWIN, LINEAR
from tests.helpers.scenario_tables import disaggregated_rows, overload_rows

CONV = "azure-conv-2024-week"


def test_fig8_draws_each_criterion_and_the_papers_numbers(frames):
    frames["disaggregated"] = frames["disaggregated"].assign(trace=CONV)
    (ax,) = fig8.draw(frames, Variant(LINEAR)).axes
    assert bars(ax) == {style.look(s).colour.lower(): v for s, v in
                        (("disagg-fcfs", 6.0), ("disagg-edf", 7.0), ("disagg-niyama", 8.0))}  # fmt: skip
    assert sorted(x for x, _ in marked(ax, "D")) == [5.5, 6.5, 7.5]
    assert sorted(x for x, _ in marked(ax, "*")) == [6.0, 6.6, 7.3]
    ticks = [line.get_xdata()[0] for line in ax.lines if line.get_linewidth() == capacity_bars.TICK["lw"]]
    assert sorted(ticks) == pytest.approx([6.2, 7.2, 8.2])
    assert [t.get_text() for t in ax.get_yticklabels()] == ["Disagg-FCFS", "Disagg-EDF", "Disagg-Niyama"]
    row = fig8.text_table(frames).iloc[2]
    assert (row["prefill only"], row["paper"], row["decode nodes"]) == ("8.20", "7.30", "2")
    assert row["decodes per node, mean (peak)"] == "50 (90)" and row["KV transfer, p99 (ms)"] == "20"


def test_fig8_says_where_nothing_crossed_and_has_no_star_for_another_trace():
    rows = disaggregated_rows(traces=("azure-code-2023", CONV), values={"disagg-fcfs": 6.0})
    for row in rows:
        if row["trace"] == CONV:
            row |= {"capacity_qps": None, "capacity_qps_per_replica": None, "interval_low_qps": None}
            row |= {"interval_high_qps": None, "seed_capacity_qps": [None] * 3, "passes_qps": 9.0}
    figure = fig8.draw({"disaggregated": pd.DataFrame(rows)}, Variant(LINEAR))
    code, conv = figure.axes
    assert not marked(code, "*") and len(code.patches) == 1
    assert marked(conv, "*") and not conv.patches and "no crossing up to 9" in words(figure)


def test_fig12_bars_stars_and_the_relegated(frames):
    frames["overload"] = frames["overload"].assign(trace=CODE_TWIN)
    left, right = fig12.draw(frames, Variant(LINEAR, CODE_TWIN)).axes
    numbers = {text.get_text() for text in left.texts if text.get_color() == style.look("niyama").colour}
    assert numbers == {"20.0"} and all(text.xyann[1] < 0 for text in left.texts), "ours, below the axis"
    assert "FCFS, EDF relegate none" in right.get_title()
    heights = {}
    for patch in left.patches:
        heights.setdefault(to_hex(patch.get_facecolor()), []).append(patch.get_height())
    assert heights == {style.look(s).colour.lower(): pytest.approx([80.0 / 2**i] * 5)
                       for i, s in enumerate(("sarathi-fcfs", "sarathi-edf", "niyama"))}  # fmt: skip
    stars = sorted(y for _, y in marked(left, "*"))
    assert len(stars) == 15 and stars[-1] == pytest.approx(97.13) and stars[:2] == [0.0, 0.0]
    niyama = style.look("niyama").colour
    longest = [line.get_ydata()[0] for line in right.lines if line.get_marker() == "x" and line.get_color() == niyama]
    assert longest == [1500.0, 1000.0, 1000.0]
    row = fig12.text_table(frames).set_index("system").loc["Niyama"]
    assert (row["overall (%)"], row["paper overall"], row["paper important"]) == ("20.0 [20.0, 20.0]", "8.6", "0.0")
    assert row["relegated of low, important (%)"] == "10.0, 10.0"
    assert row["relegated Q1: p50, p99, longest (s)"] == "3, 9, 1,500"
    assert math.isnan(fig12.table(frames).set_index("system").loc["sarathi-edf", "relegated_Q1_max_s"])  # nobody was
    assert "20 % of the requests of low importance" in fig12.caption(frames, Variant(LINEAR, CODE_TWIN))


def test_fig12_has_no_star_for_another_wave():
    other = {"overload": pd.DataFrame(overload_rows(high_qps=6.0, trace=CODE_TWIN))}
    assert fig12.table(other)["paper_all"].isna().all()
    assert not marked(fig12.draw(other, Variant(LINEAR, CODE_TWIN)).axes[0], "*")
    assert paper.overload_violations(CODE_TWIN, "qoserve-artifact", LINEAR, 2.0, 5.0) == {}
    assert paper.overload_violations("sharegpt-8k", "niyama", LINEAR, 2.0, 5.0) == {}


def test_fig13_lines_are_medians_and_high_load_is_shaded(frames):
    panels = fig13.draw(frames, Variant(LINEAR, CODE)).axes
    for ax in panels:
        shaded = [(p.get_x(), p.get_x() + p.get_width()) for p in ax.patches]
        end_h = (119 * 120 + 60) / 3600
        assert shaded == [pytest.approx((h, min(h + 0.25, end_h))) for h in np.arange(0.25, end_h, 0.5)]
        for i, system in enumerate(("sarathi-fcfs", "sarathi-edf", "niyama")):
            (line,) = [line for line in ax.lines if line.get_color() == style.look(system).colour]
            np.testing.assert_allclose(line.get_xdata()[:2], np.array([30.0, 150.0]) / 3600)
            np.testing.assert_allclose(line.get_ydata(), 2 * (1 + i) * np.arange(1, 120))  # the middle seed
    dashed = [line.get_ydata()[0] for ax in panels for line in ax.lines if line.get_linestyle() == "--"]
    assert dashed == [6.0, 600.0, 1800.0]


def test_fig8_values_by_our_names():
    printed = [paper.prefill_goodput(CONV, s, "h100-llama3-70b-x").value for s in ("disagg-fcfs", "disagg-niyama")]
    assert printed == [10.6, 13.0]
    assert all(paper.prefill_goodput(trace, "disagg-edf", LINEAR) is None for trace in (CODE, "azure-conv-2023"))
    assert math.isclose(paper.prefill_goodput("azure-conv-2024-week-synth", "disagg-edf", LINEAR).value, 6.6)
