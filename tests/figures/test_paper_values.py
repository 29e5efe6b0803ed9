"""The paper's numbers are found under our names, and nowhere else."""

from __future__ import annotations

import pytest

from figures import paper

LLAMA, QWEN = "a100-llama3-8b-roofline", "a100-qwen-7b-linear"


@pytest.mark.parametrize(
    ("trace", "printed"),
    [
        ("azure-code-2024-week-synth", (1.5, 2.6, 3.8)),
        ("azure-conv-2024-week", (2.8, 3.5, 4.3)),
        ("sharegpt-8k-synth", (1.4, 1.8, 2.1)),
    ],
)
def test_fig7_values_by_our_names(trace, printed):
    systems = ("sarathi-fcfs", "sarathi-edf", "niyama")
    assert tuple(paper.goodput(trace, system, LLAMA).value for system in systems) == printed
    assert paper.goodput(trace, "qoserve-artifact", LLAMA).value == printed[2]


def test_ambiguous_labels_are_marked():
    assert not paper.goodput("azure-code-2024-week", "niyama", QWEN).certain
    assert paper.goodput("azure-code-2024-week", "sarathi-edf", QWEN).certain
    assert all("note" in row for row in paper.values()["fig7"] if "uncertain" in row)


def test_what_the_paper_does_not_print_is_none():
    assert paper.goodput("mooncake-conv", "niyama", LLAMA) is None
    assert paper.goodput("azure-code-2024-week", "sarathi-sjf", LLAMA) is None
    assert paper.goodput("azure-code-2024-week", "niyama", "h200-mixtral-linear") is None
    assert paper.goodput("azure-code-2024-week", "niyama-dc", LLAMA).where == "Table 5"
    assert paper.goodput("sharegpt-8k", "niyama-dc", LLAMA) is None
    assert paper.fleet("azure-conv-2024-week", "niyama", LLAMA, "10", 35.0) is None


def test_no_number_of_the_papers_2024_weeks_is_of_the_2023_hours():
    for trace in ("azure-code-2023", "azure-conv-2023", "azure-code-2023-synth"):
        for system in ("sarathi-fcfs", "niyama", "niyama-dc", "disagg-niyama"):
            assert paper.goodput(trace, system, LLAMA) is None and paper.prefill_goodput(trace, system, LLAMA) is None
            assert paper.ablation(trace, system, LLAMA) is None and paper.other_slos(trace, system, LLAMA) is None
            assert paper.planned_gpus(trace, system, LLAMA, 35.0) is None
            assert not paper.overload_violations(trace, system, LLAMA, 2.0, 5.0)


def test_table4_and_slos():
    assert paper.fleet("azure-code-2024-week", "sarathi-silo", LLAMA, "6-2-2", 35.0)["violation_rate"] == 0.604
    assert paper.planned_gpus("azure-code-2024-week", "sarathi-silo", LLAMA, 35.0).value == 13
    assert paper.planned_gpus("azure-code-2024-week", "niyama", LLAMA, 20.0) is None
    assert [paper.deadline_s(group) for group in ("Q1", "Q2", "Q3")] == [6.0, 600.0, 1800.0]


def test_every_number_says_where_it_is_printed():
    tables = (paper.values()["fig7"], paper.values()["table4"]["rows"], paper.values()["table5"]["rows"])
    assert all(row["where"] for rows in tables for row in rows)
