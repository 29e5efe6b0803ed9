"""The playground: numbers in, a figure's table out."""

import pytest

from artifact import playground

SLOS = {"Q1": {"ttft_s": 6.0, "tbt_s": 0.05}, "Q2": {"ttlt_s": 600.0}, "Q3": {"ttlt_s": 1800.0}}


def test_shares_are_in_any_unit():
    classes = playground.mixed({"Q1": 70, "Q2": 15, "Q3": 15}, SLOS)
    assert [c.share for c in classes] == pytest.approx([0.7, 0.15, 0.15])
    assert classes[0].tbt_s == 0.05 and classes[2].ttlt_s == 1800.0
    with pytest.raises(ValueError, match="give at least one class a share above 0"):
        playground.mixed({"Q1": 0, "Q2": 0, "Q3": 0}, SLOS)


def test_violations_move_with_load_and_slos():
    mix = {"Q1": 1, "Q2": 1, "Q3": 1}
    tables = playground.violations(playground.mixed(mix, SLOS), (2, 6), 400)
    table = playground.at_load(tables, 6)
    assert list(table.index) == list(playground.SYSTEMS) and {"all", "Q1", "Q2", "Q3"} <= set(table.columns)
    tight = {**SLOS, "Q2": {"ttlt_s": 1.0}}
    tighter = playground.at_load(playground.violations(playground.mixed(mix, tight), (2, 6), 400), 6)
    assert (tighter["Q2"] > table["Q2"]).all()


def test_a_number_that_makes_no_sense_is_refused():
    with pytest.raises(ValueError, match="ttft_s"):
        playground.mixed({"Q1": 1}, {"Q1": {"ttft_s": -1.0, "tbt_s": 0.05}})
