"""What the sweep in virtual time does without an engine: pools joined, mistakes said in one line."""

import sys
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from artifact.__main__ import main
from artifact.engine.fidelity import SCHEDULERS
from artifact.engine.sweep import run_engines
from artifact.runs.run import arrivals_of
from artifact.runs.spec import PAPER_MIX, RunSpec
from artifact.servers.split_run import join_runs, part_of
from artifact.servers.systems import NIYAMA_SYSTEMS, NIYAMA_TOKENS, build_server_system
from niyama import BUILT_IN, PAPER_CLASSES, load_card
from niyama.sim import Pool, Requests, System, shared, simulate

CARD = load_card("a100-llama3-8b-linear")
CONFIG = """
trace: azure-code-2023-synth
latency: a100-llama3-8b-linear
systems: [niyama]
classes: [{name: Q1, share: 1.0, ttft_s: 2.0, tbt_s: 0.05}]
forms: {}
"""
VIRTUAL = "virtual_time: {loads_qps_per_gpu: [4], seconds: 1}\n"


def test_pools_by_themselves_join_to_the_run_of_the_system():
    """The simulator runs both ways: a silo at once, and each of its pools on its own classes' requests."""
    random, n = np.random.default_rng(3), 90
    arrival_s, prompts = np.cumsum(random.exponential(0.1, n)), random.integers(1, 3000, n)
    requests = Requests(
        PAPER_CLASSES, np.arange(n) % 3, arrival_s, prompts, random.integers(1, 30, n), np.ones(n, bool)
    )
    policy = BUILT_IN["sarathi-fcfs"]
    whole = simulate(System("silo", (Pool(policy, 1, ("Q1",)), Pool(policy, 1, ("Q2", "Q3")))), requests, CARD, CARD)
    parts = []
    for indices in ((0,), (1, 2)):
        rows = np.flatnonzero(np.isin(requests.class_index, indices))
        parts.append((rows, simulate(shared(policy), part_of(requests, rows), CARD, CARD)))
    joined = join_runs(requests, parts)
    for name in ("replica", "token_start", "token_s", "first_scheduled_s", "relegations", "preemptions"):
        np.testing.assert_array_equal(getattr(joined, name), getattr(whole, name), err_msg=name)
    assert joined.iterations == whole.iterations
    with pytest.raises(ValueError, match="each must be in one"):
        join_runs(requests, parts[:1])


def sweep(tmp_path, config: str) -> int:
    (tmp_path / "servers.yaml").write_text(config)
    main(["trace", "azure-code-2023-synth", "--out", str(tmp_path / "trace.json")])
    files = ["--config", str(tmp_path / "servers.yaml"), "--described", str(tmp_path / "trace.json")]
    return main(["engine-sweep", *files, "--system", "niyama", "--out", str(tmp_path / "out.parquet")])


@pytest.mark.parametrize("name", NIYAMA_SYSTEMS)
def test_an_engine_runs_the_policy_that_its_system_is_named_after(tmp_path, monkeypatch, name):
    virtual, asked = ModuleType("niyama.vllm.emulated.virtual"), []
    virtual.ASYNC_STOCK = "stock"
    virtual.EngineSettings = lambda folder, scheduler, niyama, **settings: (scheduler, niyama, settings)
    virtual.run_virtual = lambda traffic, card, engine, **noise: (
        asked.append(engine) or simulate(shared(BUILT_IN[name]), traffic.requests, card, card)
    )
    virtual.Traffic = lambda requests, priority: SimpleNamespace(requests=requests)
    monkeypatch.setitem(sys.modules, "niyama.vllm.emulated.virtual", virtual)
    spec = RunSpec(trace="azure-code-2023-synth", system=name, load_qps=1.0, requests=3, classes=PAPER_MIX)
    run_engines(spec, build_server_system(name, PAPER_MIX), arrivals_of(spec), tmp_path)
    ((scheduler, niyama, settings),) = asked
    assert scheduler == SCHEDULERS["async"] and niyama["policy"] == name
    assert settings["max_num_batched_tokens"] == NIYAMA_TOKENS


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (CONFIG, "virtual_time is missing; give it loads_qps_per_gpu, seconds and seeds"),
        (CONFIG + VIRTUAL, "engine-sweep needs vLLM"),
        (CONFIG + VIRTUAL.replace("seconds: 1", "seconds: -1"), "virtual_time.seconds is -1"),
        (CONFIG + VIRTUAL.replace("seconds: 1", "seconds: 1, max_lag_ms: 5"), "max_lag_ms is not a known field"),
    ],
)
def test_a_mistake_is_one_line_and_leaves_no_table(capsys, tmp_path, monkeypatch, config, words):
    monkeypatch.setitem(sys.modules, "niyama.vllm.emulated.virtual", None)
    assert sweep(tmp_path, config) == 2
    error = capsys.readouterr().err
    assert words in error and len(error.splitlines()) == 1 and not (tmp_path / "out.parquet").exists()
