"""Claims: every kind of measure and of expectation on made-up tables, and what makes no sense."""

from __future__ import annotations

import pandas as pd
import pytest

from artifact.claims.measure import NotMeasured, measure
from artifact.claims.model import Claim, load_claims
from artifact.claims.verify import bounds
from artifact.config import ConfigError
from artifact.results.tables import ResultError
from tests.helpers.claim_tables import AT4, EDF, NIYAMA, capacities, claim, rows, write_claims


def found(frame_rows: list[dict], one: Claim):
    return measure(pd.DataFrame(frame_rows), one)


@pytest.mark.parametrize(
    ("how", "unit", "expected"),
    [
        ({"where": AT4, "of": NIYAMA}, "times", 0.021),
        ({"where": AT4, "of": NIYAMA}, "%", 2.1),
        ({"where": AT4, "of": EDF, "against": NIYAMA, "combine": "difference"}, "points", 8.0),
        ({"where": AT4, "of": NIYAMA, "against": EDF, "combine": "ratio"}, "times", (0.2 + 21 / 101 + 22 / 102) / 3),
        ({"column": "gpus", "reduce": "same", "of": NIYAMA, "against": EDF, "combine": "fewer"}, "%", 100 * 3 / 13),
        ({"column": "gpus", "reduce": "same", "of": EDF, "against": NIYAMA, "combine": "more"}, "%", 30.0),
        ({"where": {"system": "niyama", "load_qps": 4.0}, "reduce": "max", "column": "load_qps"}, "times", 4.0),
        ({"where": {"system": "niyama"}, "reduce": "mean", "column": "load_qps"}, "times", 3.0),
        ({"where": {"system": "niyama"}, "reduce": "min", "column": "load_qps"}, "times", 2.0),
        ({"where": {"system": "niyama"}, "reduce": "mean", "column": "exact"}, "%", 100.0),
        (
            {"where": {"system": "niyama"}, "reduce": "holds_until", "along": "load_qps", "limit": 0.0105},
            "times",
            (3 + 2 + 2) / 3,  # at 3 QPS seed 0 has 1 %, the others more
        ),
        (
            {
                "where": {"system": "niyama", "load_qps": [3.0, 4.0]},
                "column": "gpus",
                "against": {},
                "against_column": "load_qps",
                "combine": "ratio",
                "reduce": "max",
            },
            "times",
            2.5,  # 10 GPUs at up to 4 QPS
        ),
    ],
)
def test_every_kind_of_measure(how, unit, expected):
    one = claim(measure=how, unit=unit, same_hardware_as="Llama3-8B")
    assert found(rows(), one).value == pytest.approx(expected)


def test_a_list_holds_a_value_per_seed_and_ratios_are_paired():
    how = {"where": {}, "column": "by_seed", "of": NIYAMA, "against": EDF, "combine": "ratio"}
    got = found(capacities(), claim(measure=how))
    assert got.value == pytest.approx((2.0 + 2.2 + 1.4) / 3) and got.seeds == 3 and got.requests == 1000
    assert got.low < got.value < got.high and got.value - got.low == pytest.approx(1.0342, abs=1e-3)  # t(2) * s / 3^.5


def test_one_value_for_all_seeds_has_no_interval():
    got = found(rows(), claim(measure={"column": "gpus", "where": {"system": "niyama"}, "reduce": "same"}))
    assert (got.value, got.low, got.high, got.seeds) == (10.0, None, None, 3)


def test_a_trace_is_met_by_its_synthetic_twin_and_says_so():
    one = claim(
        measure={"where": {**AT4, "system": "niyama", "trace": "azure-code-2024-week"}}, same_hardware_as="Qwen-7B"
    )
    assert found(rows(), one).traces == ("azure-code-2024-week-synth",)


@pytest.mark.parametrize(
    ("how", "error", "text"),
    [
        ({"where": {"system": "nobody"}}, NotMeasured, "no rows with system nobody"),
        ({"where": {"colour": "red"}}, ResultError, "no column 'colour'"),
        ({"column": "colour"}, ResultError, "no column 'colour'"),
        ({"where": {"system": "niyama"}}, ResultError, "6 rows for a seed where a claim needs one"),
        ({"column": "gpus", "where": {}, "reduce": "same"}, ResultError, "2 different values"),
        (
            {"where": {"system": "niyama"}, "reduce": "holds_until", "along": "load_qps", "limit": -1.0},
            NotMeasured,
            "no value at seed 0, 1, 2",
        ),
    ],
)
def test_what_is_missing_is_named(how, error, text):
    with pytest.raises(error, match=text):
        found(rows(), claim(measure=how))


def test_no_crossing_is_no_value():
    table = capacities()
    table[0]["by_seed"][1] = None
    how = {"where": {}, "column": "by_seed", "of": NIYAMA, "against": EDF, "combine": "ratio"}
    with pytest.raises(NotMeasured, match="no value at seed 1"):
        found(table, claim(measure=how))


PRINTED = {"in": "fig7", "row": {"model": "Llama3-8B", "trace": "azure-code"}}


@pytest.mark.parametrize(
    ("expected", "low", "high"),
    [
        ({"direction": "within", "percent": 10, "of": {**PRINTED, "number": "QoServe"}}, 3.42, 4.18),
        ({"direction": "at_least", "points": 0.5, "of": {**PRINTED, "number": "EDF"}}, 2.1, float("inf")),
        ({"direction": "at_most", "of": {**PRINTED, "number": "FCFS"}}, float("-inf"), 1.5),
        (
            {
                "direction": "between",
                "points": 0.05,
                "low": {"in": "claims", "row": "over_EDF", "number": "low"},
                "high": {"in": "claims", "row": "over_EDF", "number": "high"},
            },
            1.15,
            1.45,
        ),
    ],
)
def test_every_kind_of_expectation(expected, low, high):
    got = bounds(claim(expected=expected))
    assert (got.low, got.high) == (pytest.approx(low), pytest.approx(high))


def test_printed_numbers_are_combined_as_the_measured_ones():
    row = {"in": "table4", "number": "gpus"}
    expected = {
        "direction": "within",
        "points": 5,
        "of": {**row, "row": {"scheme": "QoServe"}},
        "against": {**row, "row": {"scheme": "Silo", "fleet": "7-3-3"}},
    }
    how = {"column": "gpus", "reduce": "same", "of": NIYAMA, "against": EDF, "combine": "fewer"}
    got = bounds(claim(measure=how, unit="%", expected=expected))
    assert got.value == pytest.approx(100 * 3 / 13) and got.printed == "Table 4"


@pytest.mark.parametrize("row", [{"model": "Llama3-8B"}, {"model": "GPT"}, "nothing"])
def test_a_printed_number_that_is_not_one_is_named(row):
    expected = {"direction": "at_most", "of": {"in": "fig7", "row": row, "number": "QoServe"}}
    with pytest.raises(ConfigError, match=r"names \d rows of paper_values.yaml, no number"):
        bounds(claim(expected=expected))


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"measure": {"against": EDF}}, "give `against` with the others"),
        ({"measure": {"against_column": "gpus"}}, "against_column is given without `against`"),
        ({"measure": {"reduce": "holds_until"}}, "give `along` and `limit`"),
        ({"measure": {"combine": "eval"}}, "combine"),
        ({"expected": {"direction": "within", "value": 1.0, "because": "x"}}, "needs a tolerance"),
        ({"expected": {"direction": "at_most", "value": 1.0}}, "needs `because`"),
        ({"expected": {"direction": "between", "value": 1.0, "because": "x"}}, "give low and high with between"),
        ({"unit": "QPS"}, "do not compare across hardware: give same_hardware_as"),
        ({"measure": {"where": {"load_qps": 6.0}}}, "do not compare across hardware: give same_hardware_as"),
        ({"unit": "s", "same_hardware_as": "TPU"}, "the paper's configurations are Llama3-8B"),
        ({"id": "Fig 7"}, "id"),
        ({"minutes": 3}, "minutes is not a known field"),
    ],
)
def test_a_claim_that_makes_no_sense_is_one_line(changes, text, tmp_path):
    base = claim().model_dump(exclude_none=True, by_alias=True)
    for key, value in changes.items():
        base[key] = {**base[key], **value} if key == "measure" else value
    path = write_claims(tmp_path / "claims.yaml", base)
    with pytest.raises(ConfigError, match=text) as error:
        load_claims(path)
    assert "\n" not in str(error.value) and "claims.yaml claim" in str(error.value)


def test_an_id_is_used_once(tmp_path):
    path = write_claims(tmp_path / "claims.yaml", claim(), claim())
    with pytest.raises(ConfigError, match="id 'one' is used twice"):
        load_claims(path)
