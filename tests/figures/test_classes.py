"""Classes and SLO lines in a figure are those of the run, whatever the classes are called."""

from __future__ import annotations

import pandas as pd
import pytest

from artifact.report.notebook import REFERENCE
from artifact.results.frames import load_table
from figures import fig10, fig11, fig12, fig13, fig_tbt, style
from figures.classes import Class, classes, names
from figures.frames import Variant
from tests.figures.test_drawings import words
from tests.helpers.figure_tables import CLASSES, CODE, LINEAR, summary_rows
from tests.helpers.scenario_tables import overload_rows, overload_window_rows

NAMES = {"Q1": "chat", "Q2": "code", "Q3": "nightly"}
SLOS = ({"ttft_s": 2.0, "tbt_s": 0.1}, {"ttlt_s": 45.0}, {"ttlt_s": 3600.0})
VARIANT = Variant(LINEAR, CODE)


def renamed(rows: list[dict]) -> pd.DataFrame:
    """The rows with other names of the classes, and metadata with other SLOs."""
    frame = pd.DataFrame(rows).replace(
        {"group": {**NAMES, **{f"relegated {a}": f"relegated {b}" for a, b in NAMES.items()}}}
    )
    none = dict.fromkeys(("ttft_s", "tbt_s", "ttlt_s"))
    frame.attrs["classes"] = [{"name": name, **none, **slo} for name, slo in zip(NAMES.values(), SLOS, strict=True)]
    return frame


def dashed(figure) -> list[float]:
    """Heights of the SLO lines."""
    return [float(line.get_ydata()[0]) for ax in figure.axes for line in ax.lines if line.get_color() == style.INK]


def test_renamed_classes_are_drawn_with_the_slos_of_the_run():
    tables = {
        "summary": renamed(summary_rows()),
        "overload": renamed(overload_rows()),
        "overload_windows": renamed(overload_window_rows()),
    }
    ten = fig10.draw(tables, VARIANT)
    assert [ax.get_title() for ax in ten.axes[:3]] == ["chat TTFT, p50", "code TTLT, p50", "nightly TTLT, p50"]
    assert all(len(ax.lines) == 5 for ax in ten.axes), "four systems and the SLO"
    assert dashed(ten) == [2.0, 45.0, 3600.0] * 2
    eleven = fig11.draw(tables, VARIANT)
    assert [ax.get_title() for ax in eleven.axes[3:]] == list(NAMES.values())
    assert all(len(ax.lines) == 6 for ax in eleven.axes)
    assert dashed(fig13.draw(tables, VARIANT)) == [2.0, 45.0, 3600.0]
    assert "TBT 100 ms" in words(fig_tbt.draw(tables, VARIANT)) and "tokens of chat on" in fig_tbt.caption(
        tables, VARIANT
    )
    left, right = fig12.draw(tables, VARIANT).axes
    assert [text.get_text() for text in left.get_xticklabels()] == ["overall", "important", *NAMES.values()]
    assert [text.get_text() for text in right.get_xticklabels()] == ["chat TTFT", "code TTLT", "nightly TTLT"]
    assert "relegated nightly: p50, p99, longest (s)" in fig12.text_table(tables)
    for figure in (ten, eleven):
        assert not any(name in words(figure) for name in ("Q1", "Q2", "Q3", " 600 s"))


@pytest.mark.parametrize("count", [1, 2, 4])
def test_there_may_be_more_or_fewer_classes(count):
    rows = summary_rows(groups=("all", "short", "long", *(f"class {k}" for k in range(count))))
    tables = {"summary": pd.DataFrame(rows)}
    assert len(fig11.draw(tables, VARIANT).axes) == 3 + count and len(fig10.draw(tables, VARIANT).axes) == 2 * count
    assert not dashed(fig10.draw(tables, VARIANT)), "no SLO is known"


def test_table_3_is_believed_only_where_no_row_speaks_against_it():
    frame = load_table(REFERENCE / "tables" / "summary.parquet")
    assert "classes" not in frame.attrs
    assert classes(frame) == [Class("Q1", "ttft", 6.0, 0.05), Class("Q2", "ttlt", 600.0), Class("Q3", "ttlt", 1800.0)]
    shorter = frame.assign(ttft_p50_s=frame["ttft_p50_s"] * 3, ttft_p95_s=frame["ttft_p95_s"] * 3)
    assert [one.slo_s for one in classes(shorter)] == [None, 600.0, 1800.0], "a Q1 of 2 s is not drawn with 6 s"


def test_groups_that_are_no_classes():
    assert names(pd.DataFrame(overload_rows())) == [about["name"] for about in CLASSES]
