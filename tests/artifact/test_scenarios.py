"""Disaggregated pools and load in waves: sizes and rows against numbers found by hand."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.config import ConfigError
from artifact.experiments import disaggregated, overload
from artifact.experiments.config import load_experiments
from artifact.experiments.disaggregated import DECODE_SIDE, PREFILL_ONLY, capacities, decode_nodes, decode_side, measure
from artifact.experiments.scenario_config import DisaggregatedExperiment, OverloadExperiment
from artifact.results.tables import read_table
from artifact.runs.run import run
from artifact.runs.spec import PAPER_MIX, RunSpec
from niyama import BUILT_IN, load_card
from niyama.latency import empty_batch, seconds
from niyama.sim import Disaggregated, KVLink, Requests, shared, simulate_disaggregated

SMOKE = Path(__file__).parents[2] / "workflows" / "config" / "smoke.yaml"
LINEAR = "a100-llama3-8b-linear"
TRACE = "azure-conv-2023-synth"
POOLS = DisaggregatedExperiment(
    traces=(TRACE,),
    systems={"disagg-fcfs": 1500, "disagg-niyama": 1500},
    kv_bytes_per_token={LINEAR: 131072.0},
    chunk_tokens=8192,
    link_bytes_per_s=25e9,
    link_delay_s=0.001,
    batch_allowance_s=0.0,
    decode_share=0.7,
    seeds=2,
    step_qps=0.5,
)
WAVE = OverloadExperiment(
    traces=(TRACE,),
    systems=("sarathi-fcfs", "niyama"),
    low_qps=2.0,
    high_qps=14.0,
    dwell_s=60.0,
    duration_s=240.0,
    low_importance_share=0.2,
    window_s=60.0,
    stride_s=30.0,
    seeds=1,
)


def spec(**values):
    return RunSpec(**{"trace": TRACE, "system": "disagg-fcfs", "load_qps": 5.0, "requests": 800, **values})


def test_decode_nodes_stay_within_their_share_of_the_strictest_limit():
    """By hand: outputs of 101 tokens behind 1,000, so 1,050.5 of context; the TBT decides, then KV, then requests."""
    prompts, outputs, card = np.full(9, 1000), np.full(9, 101), load_card(LINEAR)
    most, model = 1, card.build()
    while seconds(model, empty_batch(most + 1, int((most + 1) * 1050.5))) <= 0.7 * 0.05:
        most += 1
    node_qps = most / seconds(model, empty_batch(most, int(most * 1050.5))) / 100
    for nodes in (1, 2, 3):
        assert decode_nodes(0.999 * nodes * node_qps, prompts, outputs, card, PAPER_MIX, 0.7) == nodes
        assert decode_nodes(1.001 * nodes * node_qps, prompts, outputs, card, PAPER_MIX, 0.7) == nodes + 1
    tight = replace(card, kv_tokens=15_008)  # 0.7 of it holds 10 requests
    node_qps = 10 / seconds(model, empty_batch(10, 10_505)) / 100
    assert decode_nodes(2.99 * node_qps, prompts, outputs, tight, PAPER_MIX, 0.7) == 3
    batch_only = PAPER_MIX[1:]  # no TBT: 0.7 of 256 requests
    node_qps = 179 / seconds(model, empty_batch(179, int(179 * 1050.5))) / 100
    assert decode_nodes(1.01 * node_qps, prompts, outputs, card, batch_only, 0.7) == 2
    with pytest.raises(ConfigError, match=r"decode_share is 0.2: no decode node .* raise it"):
        decode_nodes(1.0, prompts, outputs, card, PAPER_MIX, 0.2)


def test_prefill_policies_keep_order_and_relegation_and_lose_the_dynamic_chunk():
    for name, origin in (("disagg-fcfs", "sarathi-fcfs"), ("disagg-edf", "sarathi-edf"), ("disagg-niyama", "niyama")):
        policy = disaggregated.prefill_policy(name, 8192)
        assert (policy.rank, policy.doomed) == (BUILT_IN[origin].rank, BUILT_IN[origin].doomed)
        assert policy.prefill_budget is BUILT_IN["sarathi-fcfs"].prefill_budget and policy.max_chunk_tokens == 8192


def test_the_decode_side_only_adds_violations_and_is_far_from_its_limits():
    for system in POOLS.systems:
        point = measure(POOLS, spec(system=system, load_qps=9.0))
        assert point[PREFILL_ONLY] <= point["violation_rate_without_tbt"] <= point["violation_rate"]
        assert point["decode_preemptions"] == 0 and 0 < point["decodes_mean"] < point["decodes_peak"] < 256
        assert point["decode_wait_p99_s"] < 0.05
    assert set(DECODE_SIDE) < set(point)


def test_decode_side_by_hand():
    """Two requests on one node, one after the other, and one whose first token is its last."""
    classes = tuple(c.qos() for c in PAPER_MIX)
    requests = Requests(classes, np.zeros(3, int), np.array([0.0, 0.0, 50.0]), np.array([100, 200, 300]),
                        np.array([3, 1, 2]), np.ones(3, bool))  # fmt: skip
    fcfs, card = shared(BUILT_IN["sarathi-fcfs"]), load_card(LINEAR)
    done = simulate_disaggregated(Disaggregated("d", fcfs, fcfs, KVLink(1e6, 1e9, 0.5)), requests, card, card)
    side = decode_side(requests, done)
    assert (side["decodes_peak"], side["decode_kv_peak_tokens"], side["decode_preemptions"]) == (1, 302, 0)
    assert side["decode_wait_p99_s"] == 0.0
    assert side["kv_transfer_p99_s"] == pytest.approx(0.5 + np.quantile([0.1, 0.3], 0.99))
    busy_s = [done.run.token_s[2] - done.kv_arrived_s[0], done.run.token_s[5] - done.kv_arrived_s[1]]
    assert side["decodes_mean"] == pytest.approx(sum(busy_s) / (done.run.token_s[5] - done.kv_arrived_s[0]))


def test_goodput_rows_have_a_row_per_system_and_criterion():
    rows = capacities(POOLS, TRACE, LINEAR)
    assert [(r["system"], r["criterion"]) for r in rows] == [
        (system, criterion)
        for system in POOLS.systems
        for criterion in (PREFILL_ONLY, "violation_rate_without_tbt", "violation_rate")
    ]
    for row in rows:
        if row["system"] == "disagg-fcfs":
            assert row["passes_qps"] <= row["capacity_qps"] <= row["fails_qps"]
        assert row["replicas"] == 1 and row["decode_nodes"] >= 1 and row["run_length"] == "paper"
    with pytest.raises(ConfigError, match="kv_bytes_per_token has no entry for latency model 'other'"):
        capacities(POOLS, TRACE, "other")


def test_runs_of_a_faster_node_are_longer():
    longer = POOLS.model_copy(update={"systems": {"disagg-fcfs": 400}, "longer_runs": {LINEAR: 1.5}, "seeds": 1})
    assert {row["requests"] for row in capacities(longer, TRACE, LINEAR)} == {600}
    with pytest.raises(ConfigError, match="longer_runs has 'other', which kv_bytes_per_token has not"):
        POOLS.model_copy(update={"longer_runs": {"other": 2.0}}).check()


def test_a_wave_is_one_run_per_system_and_seed():
    runs = overload.specs(WAVE, TRACE, LINEAR)
    assert [(s.system, s.seed, s.requests, s.load_qps) for s in runs] == [
        ("sarathi-fcfs", 0, 1920, 8.0),
        ("niyama", 0, 1920, 8.0),
    ]
    assert runs[0].arrivals == {"kind": "square", "low_qps": 2.0, "high_qps": 14.0, "dwell_s": 60.0}


def test_the_relegated_are_a_group_of_their_own_and_are_served():
    summary, _ = overload.overload(WAVE, TRACE, LINEAR)
    done = run(overload.specs(WAVE, TRACE, LINEAR)[1])
    relegated = done.run.relegations > 0
    rows = {(r["system"], r["group"]): r for r in summary}
    assert not any(group.startswith("relegated") for system, group in rows if system == "sarathi-fcfs")
    assert rows["niyama", "relegated"]["group_requests"] == relegated.sum() > 0
    low = rows["niyama", "relegated low"]["group_requests"] + rows["niyama", "relegated important"]["group_requests"]
    assert low == relegated.sum()
    ttlt_s = done.run.token_s[done.run.token_start[1:] - 1] - done.requests.arrival_s
    assert rows["niyama", "relegated"]["ttlt_max_s"] == ttlt_s[relegated].max()
    assert rows["niyama", "relegated"]["ttlt_p50_s"] == pytest.approx(np.median(ttlt_s[relegated]))


def test_windows_hold_the_requests_that_arrive_in_them():
    _, rows = overload.overload(WAVE, TRACE, LINEAR)
    done = run(overload.specs(WAVE, TRACE, LINEAR)[0])
    requests, own = done.requests, [r for r in rows if r["system"] == "sarathi-fcfs"]
    assert {r["start_s"] for r in own} == set(np.arange(0.0, requests.arrival_s[-1] - 60.0, 30.0))
    first_s, last_s = done.run.token_s[done.run.token_start[:-1]], done.run.token_s[done.run.token_start[1:] - 1]
    for row in own:
        index = ["Q1", "Q2", "Q3"].index(row["group"])
        here = (requests.class_index == index) & (requests.arrival_s >= row["start_s"])
        here &= requests.arrival_s < row["start_s"] + 60.0
        latency_s = ((first_s if index == 0 else last_s) - requests.arrival_s)[here]
        assert row["group_requests"] == here.sum()
        if here.any():
            assert row["latency_p99_s"] == pytest.approx(np.quantile(latency_s, 0.99))
            assert row["violation_rate_without_tbt"] == pytest.approx((latency_s > [6, 600, 1800][index]).mean())
        else:
            assert row["latency_p99_s"] is None


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("disagg-niyama: 1500", "niyama: 1500", r"disaggregated: systems has 'niyama'; use disagg-fcfs"),
        ("a100-llama3-8b-linear: 131072", "a100-linear: 131072", "disaggregated: latency model 'a100-linear' is unk"),
        ("decode_share: 0.7", "decode_share: 1.7", "disaggregated.decode_share is 1.7"),
        ("  high_qps: 8.0", "  high_qps: 0.0", "overload.high_qps is 0.0"),
        ("  high_qps: 8.0", "  high_qps: 1.0e-9", "overload.high_qps is 1e-09"),
        ("systems: [sarathi-fcfs, niyama]\n  low", "systems: [niyama, niyama]\n  low", "'niyama' is there 2 times"),
        ("systems: [sarathi-fcfs, niyama]\n  low", "systems: [fcfs]\n  low", "overload: system 'fcfs' is unknown"),
    ],
)
def test_a_senseless_section_is_one_clear_error(tmp_path, old, new, words):
    path = tmp_path / "c.yaml"
    assert old in SMOKE.read_text()
    path.write_text(SMOKE.read_text().replace(old, new))
    with pytest.raises(ConfigError, match=words):
        load_experiments(path)


def test_commands_write_the_tables_and_say_when_a_section_is_missing(tmp_path, capsys):
    options = ["--config", str(SMOKE), "--trace", "azure-code-2023-synth", "--latency", LINEAR]
    out, windows = tmp_path / "overload.parquet", tmp_path / "overload_windows.parquet"
    assert main(["overload", *options, "--out", str(out), "--windows", str(windows)]) == 0
    assert {"low_qps", "group", "ttlt_max_s"} <= set(read_table(out).column_names)
    assert {"low_qps", "start_s", "latency_p99_s"} <= set(read_table(windows).column_names)
    bare = tmp_path / "bare.yaml"
    text = SMOKE.read_text()
    bare.write_text(text[: text.index("disaggregated:")] + text[text.index("overload:") :])
    assert main(["disaggregated", *options[2:], "--config", str(bare), "--out", str(out)]) == 2
    assert "has no section disaggregated; add one" in capsys.readouterr().err
