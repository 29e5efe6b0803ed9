"""`artifact score`: the suite, what a policy is scored by, who is better, and what is kept when it stops."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import yaml

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.results import metrics
from artifact.runs.run import arrivals_of, run
from artifact.runs.spec import RunSpec
from artifact.score import made_traces, papers, scorecard, scoring
from artifact.score.axes import ABOVE, AXES, BELOW, fair_shares, fairness, jain, values_of_run
from artifact.score.compare import LOSES, TIES, WINS, duel, duels, places, standings
from artifact.score.leaderboard import leaderboard
from artifact.score.page import score_page
from artifact.score.scorecard import Scorecard
from artifact.score.suite import SUITE, load_suite
from artifact.score.text import best_in, score_text
from figures.estimates import estimate

POLICY = """
from niyama import Policy
from niyama.rules import rank_rule


@rank_rule
def mine_first(job, alpha):
    return {rank}


mine = Policy("mine", rank=mine_first)
"""
CELL = {"about": "small", "short": True, "load_qps": 2.0, "run": {"trace": "azure-code-2023-synth"}}
COUNTS = {"requests": 60, "long_requests": 80, "load_requests": 50, "seeds": 2, "times": [0.75, 1.0, 1.25, 1.5]}
SMALL = {**COUNTS, "cells": {"small": CELL}}


@pytest.fixture
def suite(tmp_path):
    path = tmp_path / "suite.yaml"
    path.write_text(yaml.safe_dump(SMALL))
    return path


def said(capsys, *arguments, status=0):
    """What the command prints to stdout, or on failure to stderr."""
    assert main(["score", *map(str, arguments)]) == status
    found = capsys.readouterr()
    return found.err if status else found.out


# The suite that ships


def test_every_cell_of_the_suite_runs_and_differs_from_the_others():
    cells = load_suite(long=True)
    assert len({cell.spec.model_dump_json() for cell in cells}) == len(cells)
    for cell in cells:
        few = cell.at("niyama", cell.load_qps).model_copy(update={"requests": 8})
        assert len(arrivals_of(few)) == 8


def test_the_suite_covers_what_users_have():
    cells = [cell.spec for cell in load_suite(long=True)]
    short = [cell.spec for cell in load_suite()]
    assert {"azure-code-2023", "azure-conv-2023", "sharegpt-8k", "mooncake-conv"} <= {spec.trace for spec in short}
    kinds = {spec.arrivals if isinstance(spec.arrivals, str) else spec.arrivals["kind"] for spec in cells}
    assert {"poisson", "gamma", "trace", "square", "hour-of-week"} <= kinds
    assert any(spec.noise for spec in short) and any(spec.correct for spec in short)
    assert len({spec.latency for spec in short}) >= 2 and any(spec.low_importance_share for spec in short)
    assert {len(spec.classes) for spec in short} >= {2, 3, 5}
    assert any(arrivals_of(spec.model_copy(update={"requests": 9})).tenants for spec in short)


@pytest.mark.parametrize("name", ["reasoning", "agents"])
def test_a_made_up_trace_is_what_its_program_makes(name):
    assert (made_traces.FOLDER / f"{name}.csv").read_text() == getattr(made_traces, name)()


def test_waves_keep_their_shape_at_every_load():
    (cell,) = load_suite(names=("waves",))
    spec = cell.at("niyama", 2 * cell.load_qps)
    low, high = (spec.arrivals[name] / cell.spec.arrivals[name] for name in ("low_qps", "high_qps"))
    assert low == high == 2.0
    assert len(arrivals_of(spec.model_copy(update={"requests": 5}))) == 5


@pytest.mark.parametrize(
    "change, words",
    [
        ({"seeds": 1}, "seeds is 1"),
        ({"times": [1.0]}, "times"),
        ({"cells": {"a": {**CELL, "run": {"trace": "azure-code-2023-synth", "seed": 3}}}}, "cell a: run has seed"),
        ({"cells": {"a": {**CELL, "run": {"trace": "no-such-trace"}}}}, "no-such-trace"),
        ({"cells": {"a": {**CELL, "run": {"trace": "azure-code-2023-synth", "noise": -1.0}}}}, "noise is -1.0"),
        ({"cells": {"a": {**CELL, "short": False}}}, "no cell has `short: true`"),
        ({"cells": {}}, "cells"),
        ({"cell": {}}, "cell is not a known field"),
    ],
)
def test_a_suite_that_makes_no_sense_is_one_line(suite, capsys, change, words):
    suite.write_text(yaml.safe_dump({**SMALL, **change}))
    text = said(capsys, "niyama", "--suite", suite, status=2)
    assert words in text and text.strip().count("\n") == 0


# What a policy is scored by


def test_jain_is_one_for_equals_and_one_nth_for_one_who_has_all():
    assert jain(np.array([0.3, 0.3, 0.3])) == pytest.approx(1.0)
    assert jain(np.array([1.0, 0.0, 0.0, 0.0])) == pytest.approx(0.25)
    assert jain(np.array([1.0, 2.0])) == pytest.approx(9 / 10)


@pytest.mark.parametrize(
    "asked, total, expected",
    [
        ([10, 10], 20, [10, 10]),
        ([1, 9], 6, [1, 5]),
        ([8, 1, 3], 9, [5, 1, 3]),
        ([8, 6, 1], 9, [4, 4, 1]),
        ([4, 4], 0, [0, 0]),
    ],
)
def test_fair_shares_give_the_modest_all_they_ask_for(asked, total, expected):
    assert fair_shares(np.array(asked), total) == pytest.approx(expected)


def test_a_tenant_that_takes_from_others_lowers_the_index():
    tenant, tokens = np.array([0, 0, 0, 1]), np.array([30, 30, 30, 10])
    served = np.array([False, False, False, False])
    assert fairness(tenant, tokens, served) == pytest.approx(1.0)
    greedy = np.array([False, False, False, True])  # the large tenant has all, the small one nothing
    assert fairness(tenant, tokens, greedy) < 0.6
    fair = np.array([True, True, True, False])  # 10 tokens in all: half would be fair, and the small one has all
    assert fairness(tenant, tokens, fair) == pytest.approx(0.5)
    assert fairness(tenant, tokens, np.ones(4, bool)) == 1.0


def test_the_axes_of_a_run_are_those_of_its_metrics():
    spec = RunSpec(trace="azure-code-2023-synth", system="sarathi-edf", load_qps=8.0, requests=3000)
    spec = spec.model_copy(update={"low_importance_share": 0.3})
    done = run(spec)
    columns = metrics.request_columns(done.requests, done.run)
    above, below = (values_of_run(done.requests, done.run, at) for at in (ABOVE, BELOW))
    violated, important = columns["violated"], done.requests.important
    assert above["violated_above"] == violated.mean() > 0
    assert above["important"] == violated[important].mean()
    assert above["worst_class"] == max(violated[done.requests.class_index == i].mean() for i in range(3))
    tokens = done.requests.prompt_tokens + done.requests.output_tokens
    assert above["wasted_work"] == pytest.approx(tokens[violated].sum() / tokens.sum())
    assert "fairness" not in above and "violated_at" not in above
    interactive = done.requests.class_index == 0
    assert below["ttft_p99_s"] == pytest.approx(np.quantile(columns["ttft_s"][interactive], 0.99))
    assert below["ttlt_p99_s"] == pytest.approx(np.quantile(columns["ttlt_s"][~interactive], 0.99))
    gaps = [
        np.diff(done.run.token_s[a:b]) for a, b in zip(done.run.token_start, done.run.token_start[1:], strict=False)
    ]
    own = np.concatenate([g for g, mine in zip(gaps, interactive, strict=True) if mine])
    assert below["gaps_over_tbt"] == pytest.approx((own > 0.05 + 1e-9).mean())


# Who is better


def card(label, **axes):
    """A scorecard of one cell."""
    cell = {
        "about": "a", "trace": "t", "latency": "l", "predictor": "p", "classes": [], "load_qps": 1.0, "requests": 9,
        "load_requests": 9,
        "bound_qps": 4.0, "code": "c", "key": "k", "axes": axes,
    }  # fmt: skip
    return Scorecard(label, None, {"cell": cell})


def test_a_duel_is_won_where_the_interval_of_the_paired_difference_is_on_one_side():
    noisy = [0.10, 0.30, 0.20, 0.40, 0.25]
    better = card("a", violated_at=[x - 0.01 for x in noisy])  # always by as much: sure, however noisy the runs
    found = duel(better, card("b", violated_at=noisy), "cell", "violated_at")
    assert found.result == WINS and found.difference.mean == pytest.approx(-0.01)
    assert duel(card("b", violated_at=noisy), better, "cell", "violated_at").result == LOSES
    mixed = card("c", violated_at=[x + d for x, d in zip(noisy, (0.1, -0.2, 0.1, -0.1, 0.05), strict=True)])
    tie = duel(mixed, card("b", violated_at=noisy), "cell", "violated_at")
    assert tie.result == TIES
    expected = estimate([0.1, -0.2, 0.1, -0.1, 0.05])
    assert (tie.difference.low, tie.difference.high) == pytest.approx((expected.low, expected.high))


def test_more_is_better_where_an_axis_says_so():
    high, low = card("a", capacity_qps=[3.0, 3.1]), card("b", capacity_qps=[2.0, 2.1])
    assert duel(high, low, "cell", "capacity_qps").result == WINS
    assert duel(low, high, "cell", "capacity_qps").result == LOSES


def test_ranks_name_ties():
    cards = [
        card("best", violated_at=[0.10, 0.11, 0.10]),
        card("tied", violated_at=[0.20, 0.22, 0.21]),
        card("also", violated_at=[0.21, 0.21, 0.20]),
        card("last", violated_at=[0.90, 0.88, 0.90]),
    ]
    found = {label: (place.best, place.worst) for label, place in places(cards, "cell", "violated_at").items()}
    assert found == {"best": (1, 1), "tied": (2, 3), "also": (2, 3), "last": (4, 4)}


def test_cells_that_are_not_the_same_are_not_compared():
    mine, other = card("a", violated_at=[0.1, 0.2]), card("b", violated_at=[0.1, 0.2])
    changed = replace(other, cells={"cell": {**other.cells["cell"], "load_qps": 2.0}})
    assert duel(mine, changed, "cell", "violated_at") is None and duels(mine, [changed]) == []


def test_a_claim_is_compared_by_ratios_over_the_cells_that_both_have():
    cards = {
        "fair_batching": card("fair_batching", capacity_qps=[3.0, 3.0], violated_above=[0.2, 0.2]),
        "sarathi-fcfs": card("sarathi-fcfs", capacity_qps=[2.0, 2.0], violated_above=[0.6, 0.6]),
    }
    claim = next(found for found in papers.claims() if found.policy == "fair_batching")
    assert papers.ratios(claim, cards) == [1.5]
    assert papers.ratios(claim.model_copy(update={"measure": "attained"}), cards) == [pytest.approx(2.0)]
    assert papers.ratios(claim.model_copy(update={"baseline": "niyama"}), cards) == []


def test_every_claim_is_of_a_policy_that_ships():
    labels = {own.label for own in scorecard.reference()}
    for claim in papers.claims():
        assert {claim.policy, claim.baseline} <= labels


# From end to end


def test_a_policy_is_scored_kept_and_compared(suite, tmp_path, capsys, monkeypatch):
    (tmp_path / "mine.py").write_text(POLICY.format(rank="job.arrival_s"))
    mine, out = f"{tmp_path / 'mine.py'}:mine", tmp_path / "out"
    options = ("--suite", suite, "--out", out, "--jobs", 1)
    text = said(capsys, mine, "niyama", *options)
    assert "mine: 1 cells" in text and "against" in text and "niyama" in text
    found = scorecard.read(out / "mine.json")
    assert set(found.cells["small"]["axes"]) == set(AXES) - {"important", "fairness"}
    assert all(len(values) == 2 for values in found.cells["small"]["axes"].values())
    page = (out / "mine.html").read_text()
    assert "Scorecard of mine" in page and "capacity by token deadlines" in page and "http" not in page

    again = []
    monkeypatch.setattr(scoring, "measure", lambda cell, system: again.append(system) or {"error": "measured again"})
    said(capsys, mine, "niyama", *options)
    assert again == []  # everything is kept
    (tmp_path / "mine.py").write_text(POLICY.format(rank="job.deadline_s"))
    said(capsys, mine, "niyama", *options)
    assert again == [mine]  # another policy under the same name
    assert scorecard.read(out / "mine.json").failed == {"small": "measured again"}

    text = said(capsys, "--compare", out / "niyama.json", out / "niyama.json")
    assert "0" in text.split("niyama")[-1]


def test_a_policy_that_fails_says_why_and_costs_only_its_own_cells(suite, tmp_path, capsys):
    (tmp_path / "mine.py").write_text(POLICY.format(rank="1.0 / (job.prompt_tokens - job.prompt_tokens)"))
    text = said(capsys, f"{tmp_path / 'mine.py'}:mine", "niyama", "--suite", suite, "--out", tmp_path, "--jobs", 1)
    assert "mine: no cell has numbers" in text and "small: no numbers:" in text and "division" in text.lower()
    assert scorecard.read(tmp_path / "niyama.json").cells


@pytest.mark.parametrize(
    "arguments, words",
    [
        ((), "give one"),
        (("niyama", "--leaderboard", "x.md"), "give one"),
        (("niyam",), "niyama"),
        (("niyama", "--cells", "cod"), "'cod'"),
        (("niyama", "niyama"), "rename one"),
        (("--compare", "none.json"), "none.json"),
        (("niyama", "--suite", "none.yaml"), "none.yaml"),
        (("niyama", "--jobs", "0"), "--jobs is 0"),
    ],
)
def test_a_wrong_command_is_one_line(capsys, arguments, words):
    text = said(capsys, *arguments, status=2)
    assert words in text and text.strip().count("\n") == 0


@pytest.mark.parametrize(
    "content, words",
    [
        ("", "is not JSON"),
        ("[]", "is no scorecard"),
        ('{"format": "other"}', "is no scorecard"),
        ('{"format": "niyama-scorecard-1", "system": "a", "policy_sha256": null, "failed": {}}', "damaged"),
    ],
)
def test_a_file_that_is_no_scorecard_is_refused(tmp_path, content, words):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(ConfigError, match=words):
        scorecard.read(tmp_path / "a.json")


@pytest.mark.parametrize(
    "axes", [{"violated_at": [0.1, None]}, {"violated_at": [0.1], "worst_class": [0.1, 0.2]}, {"speed": [1.0, 2.0]}]
)
def test_a_scorecard_with_wrong_numbers_is_refused(tmp_path, axes):
    scorecard.write(tmp_path / "a.json", card("a", **axes))
    with pytest.raises(ConfigError, match="damaged scorecard"):
        scorecard.read(tmp_path / "a.json")


# What ships


def test_the_scorecards_that_ship_are_of_the_suite_that_ships():
    cells = {cell.name: cell for cell in load_suite()}
    cards = scorecard.reference()
    assert {"niyama", "niyama-steady", "sarathi-edf", "slai", "two_step"} <= {own.label for own in cards}
    for own in cards:
        assert set(own.cells) | set(own.failed) == set(cells), own.label
        for name, found in own.cells.items():
            assert (found["load_qps"], found["requests"]) == (cells[name].load_qps, cells[name].spec.requests)
            assert all(len(values) == cells[name].seeds for values in found["axes"].values())


def test_a_cell_measured_today_has_the_numbers_that_ship():
    from artifact.score.measure import measure

    (cell,) = load_suite(names=("agents",))
    own = next(card for card in scorecard.reference() if card.label == "niyama")
    assert measure(cell, "niyama")["axes"] == own.cells["agents"]["axes"]


def test_the_leaderboard_is_what_the_command_writes_today():
    page = SUITE.parents[2] / "docs" / "LEADERBOARD.md"
    assert page.read_text() == leaderboard(scorecard.reference())


def test_the_texts_of_the_scorecards_that_ship_can_be_read():
    first, *others = scorecard.reference()
    text, page = score_text(first, others), score_page(first, others)
    assert first.label in text and all(other.label in page for other in others)
    assert standings([first, *others])[0].mean_rank >= 1.0
    kept = best_in(duels(first, others))
    assert len({(d.cell, d.axis) for d in kept}) == len(kept)
    assert json.loads(json.dumps(dict(first.failed))) == dict(first.failed)
