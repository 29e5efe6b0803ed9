"""Metrics equal rows worked out by hand."""

import numpy as np
import pytest

from artifact.results import metrics
from niyama import QoSClass
from niyama.sim import Requests, Run

INTERACTIVE = QoSClass("chat", ttft_s=1.0, tbt_s=0.1)
BATCH = QoSClass("batch", ttlt_s=5.0)


def hand_made() -> tuple[Requests, Run]:
    """Four requests: in time; first token late; one token late by Eq 2; batch past its TTLT."""
    tokens = [
        [0.5, 0.6, 1.15],  # arrival 0: deadlines 1.0, 1.1, 1.2; a gap of 0.55 s, yet no deadline missed
        [2.5, 2.55],  # arrival 1: first deadline 2.0
        [3.0, 3.2],  # arrival 2: deadlines 3.0 (met exactly), 3.1
        [4.0, 8.5],  # arrival 3: TTLT deadline 8.0
    ]
    n = len(tokens)
    start = np.concatenate([[0], np.cumsum([len(t) for t in tokens])]).astype(np.int64)
    zeros = np.zeros(n, np.int32)
    requests = Requests(
        (INTERACTIVE, BATCH),
        np.array([0, 0, 0, 1]),
        np.array([0.0, 1.0, 2.0, 3.0]),
        np.array([10, 20, 30, 40]),
        np.array([len(t) for t in tokens]),
        np.array([True, True, False, True]),
    )
    run = Run(
        replica=zeros,
        first_scheduled_s=np.zeros(n),
        token_start=start,
        token_s=np.concatenate(tokens),
        relegations=np.array([0, 2, 0, 0], np.int32),
        still_relegated=np.zeros(n, bool),
        preemptions=np.array([0, 0, 0, 3], np.int32),
        iterations=9,
        un_relegations=0,
        log=np.zeros((0, 11)),
    )
    return requests, run


def test_request_columns_by_hand():
    requests, run = hand_made()
    columns = metrics.request_columns(requests, run)
    assert columns["ttft_s"] == pytest.approx([0.5, 1.5, 1.0, 1.0])
    assert columns["ttlt_s"] == pytest.approx([1.15, 1.55, 1.2, 5.5])
    assert columns["max_gap_s"] == pytest.approx([0.55, 0.05, 0.2, 4.5])
    assert columns["late_tokens"].tolist() == [0, 2, 1, 0]
    assert columns["gaps_over_tbt"].tolist() == [1, 0, 1, 0]
    assert columns["missed_first_or_last"].tolist() == [False, True, False, True]
    assert columns["violated"].tolist() == [False, True, True, True]


def test_violation_rates_per_class_with_and_without_token_deadlines():
    requests, run = hand_made()
    every, first_or_last = metrics.violation_rates(requests, metrics.request_columns(requests, run))
    assert every == pytest.approx([2 / 3, 1.0])
    assert first_or_last == pytest.approx([1 / 3, 1.0])


def test_summary_of_all_requests_by_hand():
    requests, run = hand_made()
    columns = metrics.request_columns(requests, run)
    row = metrics.summarise(requests, run, columns, np.ones(4, bool))
    assert row["violation_rate"] == 0.75
    assert row["violation_rate_without_tbt"] == 0.5
    assert row["late_token_share"] == pytest.approx(3 / 7)  # of the interactive tokens
    assert row["gap_over_tbt_share"] == pytest.approx(2 / 4)  # of the interactive gaps
    assert row["relegated_share"] == 0.25
    assert row["preemptions"] == 3
    assert row["ttft_p50_s"] == pytest.approx(1.0)


def test_groups_cover_classes_importance_and_length_and_leave_empty_ones_out():
    requests, _ = hand_made()
    masks = dict(metrics.groups(requests))
    assert list(masks) == ["all", "short", "long", "chat", "batch", "important", "low"]
    assert masks["long"].tolist() == [False, False, False, True]  # at or above the 90th percentile, 37
    assert (masks["short"] ^ masks["long"]).all()


def test_batch_group_has_no_token_shares():
    requests, run = hand_made()
    columns = metrics.request_columns(requests, run)
    row = metrics.summarise(requests, run, columns, requests.class_index == 1)
    assert row["late_token_share"] is None and row["gap_over_tbt_share"] is None


def test_backlog_slope_is_load_minus_throughput():
    arrival_s = np.arange(1000) / 4.0  # 4 a second come, 3 a second leave
    finished_s = np.arange(1, 1001) / 3.0
    assert metrics.backlog_slope_qps(arrival_s, finished_s) == pytest.approx(1.0, rel=0.02)
    assert metrics.backlog_slope_qps(arrival_s, arrival_s + 0.1) == pytest.approx(0.0, abs=1e-3)
