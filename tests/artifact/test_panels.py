"""Panels: their rows are what the latency model, the kernel and the runs say."""

import numpy as np
import pytest

from artifact.config import ConfigError
from artifact.experiments.alone import class_rates
from artifact.experiments.chunk_curve import chunk_curve
from artifact.experiments.chunk_windows import chunk_throughput, chunk_windows
from artifact.experiments.five_requests import REQUESTS, Stage, five_requests
from artifact.experiments.panel_config import Curve, Fleets, Panels, Throughput, Window
from artifact.experiments.planner import Planner
from artifact.experiments.polyserve import polyserve_fleets
from artifact.runs.run import run
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.runs.systems import build_system
from niyama import BUILT_IN, load_card
from niyama.sim import LOG_COLUMNS, PACKED, shared, simulate

LINEAR, ROOFLINE = "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
TRACE = "azure-conv-2023-synth"
Q1 = (ClassSpec(name="Q1", share=1.0, ttft_s=6.0, tbt_s=0.05),)
PAIR = (
    ClassSpec(name="50 ms", share=0.5, ttft_s=6.0, tbt_s=0.05),
    ClassSpec(name="100 ms", share=0.5, ttft_s=6.0, tbt_s=0.1),
)


def test_chunk_curve_by_hand():
    """The authors' coefficients: 256 and 513 tokens alone; 100 beside 30 decodes of 2,000 tokens each."""
    rows = chunk_curve(Curve(most_chunk_tokens=513, decodes=(0, 30), context_tokens=2000), LINEAR)
    by = {(row["decodes"], row["chunk_tokens"]): row for row in rows}
    assert len(rows) == 2 * 513
    assert by[0, 256]["duration_s"] == pytest.approx(0.014936 + 256 * (5.882475e-5 + 2.247956e-5))
    assert by[0, 513]["duration_s"] == pytest.approx(0.005004 + 513 * (2.719050e-5 + 6.863043e-5))
    beside = by[30, 100]
    seconds = 0.014936 + 130 * 5.882475e-5 + 100 * 2.247956e-5 + 30 * 3.634519e-5 + 60_000 * 1.111258e-7
    assert beside["duration_s"] == pytest.approx(seconds)
    assert beside["tokens_per_s"] == pytest.approx(130 / seconds)
    assert beside["prefill_tokens_per_s"] == pytest.approx(100 / seconds)


@pytest.mark.parametrize("latency", [LINEAR, ROOFLINE])
@pytest.mark.parametrize("name", ["sarathi-fcfs", "sarathi-edf", "niyama"])
def test_the_stage_is_the_simulator(name, latency):
    """Every token at the same time, the same requests relegated, and every prompt token in some chunk."""
    card = load_card(latency)
    stage, done = Stage(BUILT_IN[name], card), simulate(shared(BUILT_IN[name]), REQUESTS, card, card)
    assert np.concatenate(stage.token_s).tolist() == done.token_s.tolist()
    rows = stage.rows()
    relegated = {row["request"] for row in rows if row["kind"] == "relegated"}
    assert relegated == {c.name for c, n in zip(REQUESTS.classes, done.relegations, strict=True) if n}
    if not done.preemptions.any():
        for qos, prompt in zip(REQUESTS.classes, REQUESTS.prompt_tokens, strict=True):
            chunks = [r["tokens"] for r in rows if r["kind"] == "prefill" and r["request"] == qos.name]
            assert sum(chunks) == prompt


def test_the_story_of_the_five_requests():
    """By the roofline model: first come, first served loses three, Niyama only the one of low importance."""
    rows = five_requests(("sarathi-fcfs", "niyama"), ROOFLINE)
    lost = {
        system: "".join(r["request"] for r in rows if r["system"] == system and r["met"] is False)
        for system in ("sarathi-fcfs", "niyama")
    }
    assert lost == {"sarathi-fcfs": "BCD", "niyama": "D"}
    facts = [row for row in rows if row["kind"] == "request"]
    assert all(row["met"] == (row["counted_s"] <= row["end_s"]) for row in facts)
    assert [row["important"] for row in facts[:5]] == [True, True, True, False, True]


def test_a_window_is_the_middle_of_the_log():
    window = Window(trace=TRACE, systems=("niyama",), load_qps=4.0, requests=400, iterations=50)
    rows = chunk_windows({"fig9": window}, ROOFLINE)
    spec = RunSpec(trace=TRACE, system="niyama", load_qps=4.0, requests=400, latency=ROOFLINE)
    log = run(spec, log=True).run.log[:, 1:]
    assert [row["iteration"] for row in rows] == list(range(50))
    first = log[len(log) // 2]
    assert rows[0]["start_s"] == first[LOG_COLUMNS.index("start_s")]
    assert rows[0]["prefill_tokens"] == first[LOG_COLUMNS.index("prefill_tokens")]
    assert all(row["min_slack_s"] is None or np.isfinite(row["min_slack_s"]) for row in rows)
    only = chunk_windows({"x": window.model_copy(update={"prefill_only": True})}, ROOFLINE)
    assert min(row["prefill_tokens"] for row in only) > 0


def test_medhas_steps_keep_the_tbt_and_its_chunks_shrink():
    """Prompts of 10,000 tokens, one at a time: no step but the smallest beyond 50 ms, and every prompt ends smaller."""
    one = {"trace": "fixed-10000x500-synth", "load_qps": 0.2, "requests": 40, "iterations": 300, "classes": Q1}
    window = Window(systems=("medha", "sarathi-fcfs"), prefill_only=True, **one)
    rows = chunk_windows({"fig15a": window}, ROOFLINE)
    medha = [row for row in rows if row["system"] == "medha"]
    assert max(row["duration_s"] for row in medha) <= 0.05
    assert len({row["prefill_tokens"] for row in medha}) > 20
    fixed = {row["prefill_tokens"] + row["decodes"] for row in rows if row["system"] == "sarathi-fcfs"}
    assert max(fixed) == 256


def test_throughput_by_hand():
    panel = Throughput(trace=TRACE, systems=("sarathi-edf", "niyama-dc"), loads_qps=(4.0, 30.0), requests=400, seeds=2)
    rows = chunk_throughput(panel, LINEAR)
    assert len(rows) == 2 * 2 * 2
    done = run(RunSpec(trace=TRACE, system="niyama-dc", load_qps=30.0, requests=400, seed=1), log=True)
    row = next(r for r in rows if (r["system"], r["load_qps"], r["seed"]) == ("niyama-dc", 30.0, 1))
    tokens = done.requests.prompt_tokens.sum() + done.requests.output_tokens.sum()
    assert row["run_tokens_per_s"] == pytest.approx(tokens / done.run.token_s.max())
    log = dict(zip(LOG_COLUMNS, done.run.log[:, 1:].T, strict=True))
    work = [(p + d, s) for p, d, s in zip(log["prefill_tokens"], log["decodes"], log["duration_s"], strict=True) if p]
    assert row["busy_tokens_per_s"] == pytest.approx(sum(w[0] for w in work) / sum(w[1] for w in work))
    assert 0 < row["busy_share"] <= 1


def test_polyserve_has_a_pool_per_class_with_steps_of_its_tbt():
    system = build_system("polyserve", PAIR, (3, 2))
    assert system.routing == PACKED and system.replicas == 5
    assert [(p.classes, p.policy.step_s, p.replicas) for p in system.pools] == [
        (("50 ms",), 0.05, 3),
        (("100 ms",), 0.1, 2),
    ]
    with pytest.raises(ConfigError, match="class 'batch' has no tbt_s"):
        build_system("polyserve", (ClassSpec(name="batch", share=1.0, ttlt_s=600.0),))


def known_rates(sizes, seed):
    """Pools of one class each that hold from a given size on; the first may help out the second."""
    need = np.array([3, 4])
    spare = max(0, sizes[0] - need[0]) if len(sizes) > 1 else 0
    have = np.array([sizes[0], sizes[-1] + spare])
    return np.where(have < need, 0.02 * (need - have), 0.0)


@pytest.mark.parametrize("near_seed_0", [False, True])
@pytest.mark.parametrize("start", [(1, 1), (3, 3), (6, 1), (9, 9)])
def test_the_planner_ends_at_the_fewest_that_hold(start, near_seed_0):
    spec = RunSpec(trace=TRACE, system="polyserve", load_qps=1.0, requests=1, classes=PAIR)
    assert sum(Planner(spec, 2, known_rates, with_tbt=True, near_seed_0=near_seed_0).plan(start)) == 7


def test_planned_fleets_hold_and_one_replica_less_does_not():
    panel = Fleets(
        trace=TRACE, systems=("polyserve", "niyama"), load_qps=12.0, requests=1500, seeds=1, shares=(0.3,), classes=PAIR
    )
    rows = polyserve_fleets(panel, ROOFLINE)
    assert [row["system"] for row in rows] == ["polyserve", "niyama"]
    for row in rows:
        sizes = tuple(int(n) for n in row["fleet"].split("-"))
        assert row["gpus"] == sum(sizes)
        assert max(row["violation_rate_50 ms"], row["violation_rate_100 ms"]) <= 0.01
        spec = RunSpec(
            trace=TRACE, system=row["system"], load_qps=12.0, requests=1500, latency=ROOFLINE, classes=panel.mix(0.3)
        )
        for i in range(len(sizes)):
            less = tuple(n - (k == i) for k, n in enumerate(sizes))
            one = spec.model_copy(update={"replicas": less})
            assert min(less) < 1 or class_rates(run(one), with_tbt=True).max() > 0.01


def test_panels_name_their_tables_and_traces():
    window = Window(trace=TRACE, systems=("niyama",), load_qps=1.0, requests=1, iterations=1)
    panels = Panels(
        chunk_windows={"a": window, "b": window.model_copy(update={"trace": "x"})}, five_requests=("niyama",)
    )
    assert panels.tables == ("five_requests", "chunk_windows")
    assert panels.traces_of("chunk_windows") == (TRACE, "x") and panels.traces_of("five_requests") == ()


def test_a_new_rule_changes_no_decision_of_others():
    """`step_s` is looked at by `steady_chunk` alone."""
    one = RunSpec(trace=TRACE, system="niyama", load_qps=5.0, requests=300)
    other = one.model_copy(update={"policy": {"step_s": 3.0}})
    assert run(one).run.token_s.tolist() == run(other).run.token_s.tolist()
    medha, wider = (spec.model_copy(update={"system": "medha"}) for spec in (one, other))
    assert run(medha).run.token_s.tolist() != run(wider).run.token_s.tolist()
