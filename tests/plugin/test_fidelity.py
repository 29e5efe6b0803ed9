"""It is one scheduler: the simulator and vLLM's engine on the emulated device give the same times to the digit."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.__main__ import main
from artifact.engine.fidelity import SCHEDULERS
from artifact.runs.run import run
from artifact.servers.model_files import model_folder
from niyama import QoSClass, load_card, load_policy
from niyama.decision_log import replay
from niyama.sim import Requests, shared, simulate
from niyama.vllm.config import load_config
from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, run_virtual
from niyama.vllm.qos import CLASS, IMPORTANCE, KEY, serve

pytestmark = pytest.mark.engine

LINEAR, ROOFLINE = "a100-llama3-8b-linear", "a100-llama3-8b-roofline"
CLASSES = (QoSClass("Q1", ttft_s=1.0, tbt_s=0.05), QoSClass("Q2", ttlt_s=6.0), QoSClass("Q3", ttlt_s=20.0))
POLICIES = Path(__file__).parents[2] / "policies"
KV_TOKENS = 8_000  # less than the requests below would hold at a time


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("models")


def crowd(n: int) -> Requests:
    """Requests that want more KV than there is and meet few of their deadlines; every other is not important."""
    random = np.random.default_rng(4)
    return Requests(
        CLASSES,
        random.integers(0, 3, n),
        np.cumsum(random.exponential(0.15, n)),
        random.integers(1, 1000, n),
        random.integers(1, 300, n),
        random.random(n) < 0.5,
    )


@pytest.mark.parametrize("latency", [LINEAR, ROOFLINE])
@pytest.mark.parametrize("overlapped", [False, True], ids=["sync", "async"])
def test_under_overload_both_sides_are_identical(models: Path, latency: str, overlapped: bool) -> None:
    """Every token's time, with requests that are late, relegated and lose their KV on the way."""
    requests, policy = crowd(70), replace(load_policy("niyama"), kv_reserve=0.0)
    card = replace(load_card(latency), kv_tokens=KV_TOKENS)
    options = {"overlapped": overlapped, "started_first": True}
    simulated = simulate(shared(policy), requests, card, card, **options)
    engine = EngineSettings(
        model_folder("llama3-8b", models),
        SCHEDULERS["async" if overlapped else "sync"],
        {"policy": {"name": "niyama", "kv_reserve": 0.0}, "latency": latency},
        max_num_batched_tokens=policy.max_chunk_tokens + policy.max_running,
    )
    served = run_virtual(Traffic(requests), card, engine)
    assert (simulated.relegations > 0).sum() >= 10 and simulated.preemptions.sum() >= 5
    np.testing.assert_allclose(simulated.token_s, served.token_s, rtol=0, atol=1e-9)
    np.testing.assert_allclose(simulated.first_scheduled_s, served.first_scheduled_s, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(simulated.relegations > 0, served.relegations > 0)
    np.testing.assert_array_equal(simulated.preemptions, served.preemptions)
    assert simulated.iterations == served.iterations


@pytest.mark.parametrize("overlapped", [False, True], ids=["sync", "async"])
def test_decodes_are_left_out_alike(models: Path, tmp_path: Path, overlapped: bool) -> None:
    """SLAI, whose batch decodes wait while prompts do: the same times on both sides, and vLLM's log replays."""
    requests, name = crowd(70), f"{POLICIES / 'slai.py'}:slai"
    policy, card, log = load_policy(name), replace(load_card(ROOFLINE), kv_tokens=KV_TOKENS), tmp_path / "log.jsonl"
    simulated = simulate(shared(policy), requests, card, card, overlapped=overlapped, started_first=True)
    engine = EngineSettings(
        model_folder("llama3-8b", models),
        SCHEDULERS["async" if overlapped else "sync"],
        {"policy": name, "latency": ROOFLINE, "decision_log": str(log)},
        max_num_batched_tokens=policy.max_chunk_tokens + policy.max_running,
    )
    served = run_virtual(Traffic(requests), card, engine)
    np.testing.assert_allclose(simulated.token_s, served.token_s, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(simulated.preemptions, served.preemptions)
    assert simulated.iterations == served.iterations
    assert log.read_text().count('"left_out":[') > 20
    found = replay(log, policy)
    assert (found.divergence, found.cut_short) == (None, None)


@pytest.mark.parametrize("overlapped", [False, True], ids=["sync", "async"])
def test_tenants_are_told_apart_alike(models: Path, overlapped: bool) -> None:
    """VTC: identities are the engine's tenants; the one that sends little waits less than first come, first served."""
    crowded, name = crowd(70), f"{POLICIES / 'vtc.py'}:vtc"
    keys, names = ("1" * 64, "2" * 64), [c.name for c in CLASSES]
    identities = [{"name": key[0], "key_sha256": key, "classes": names} for key in keys]
    config = {"policy": name, "latency": ROOFLINE, "identities": identities}
    known = load_config({"niyama": {"classes": [vars(c) for c in CLASSES], "identities": identities}}, {})
    tenants = [serve(known, {KEY: key}).tenant for key in keys]
    who = (np.arange(70) % 7 == 0).astype(int)
    requests = replace(crowded, tenant=np.array(tenants)[who])
    extra = [
        {CLASS: names[c], IMPORTANCE: "high" if i else "low", KEY: keys[k]}
        for c, i, k in zip(requests.class_index, requests.important, who, strict=True)
    ]
    policy, card = load_policy(name), replace(load_card(ROOFLINE), kv_tokens=KV_TOKENS)
    options = {"overlapped": overlapped, "started_first": True}
    simulated, untold = (simulate(shared(policy), r, card, card, **options) for r in (requests, crowded))
    engine = EngineSettings(
        model_folder("llama3-8b", models),
        SCHEDULERS["async" if overlapped else "sync"],
        config,
        max_num_batched_tokens=policy.max_chunk_tokens + policy.max_running,
    )
    served = run_virtual(Traffic(requests, extra), card, engine)
    np.testing.assert_allclose(simulated.token_s, served.token_s, rtol=0, atol=1e-9)
    few = [run.token_s[run.token_start[:-1]][who == 1].sum() for run in (simulated, untold)]
    assert few[0] < few[1]


def test_who_leaves_decodes_out_does_not_speculate(models: Path) -> None:
    speculation = {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}
    config = {"policy": f"{POLICIES / 'slai.py'}:slai", "latency": ROOFLINE}
    engine = EngineSettings(
        model_folder("llama3-8b", models), SCHEDULERS["async"], config, more={"speculative_config": speculation}
    )
    with pytest.raises(Exception, match=r"policy 'slai' leaves decodes out of steps .* without --speculative-config"):
        run_virtual(Traffic(crowd(2)), load_card(ROOFLINE), engine)


@pytest.mark.parametrize("overlapped", [False, True], ids=["sync", "async"])
def test_a_slot_is_taken_for_an_urgent_request_alike(models: Path, overlapped: bool) -> None:
    """Four slots are held by outputs of 20 s; two chats come, and each takes one in time. Stock vLLM lets them wait."""
    classes = (QoSClass("chat", ttft_s=6.0, tbt_s=0.05), QoSClass("batch", ttlt_s=36_000.0))
    arrival_s, outputs = np.array([0.0] * 4 + [2.0, 9.0]), np.array([1500] * 4 + [20] * 2)
    which, prompts = np.array([1] * 4 + [0] * 2), np.full(6, 500)
    requests = Requests(classes, which, arrival_s, prompts, outputs, np.ones(6, bool))
    policy, card = replace(load_policy("niyama-steady"), max_running=4), load_card(ROOFLINE)
    simulated = simulate(shared(policy), requests, card, card, overlapped=overlapped, started_first=True)
    settings = {"max_num_batched_tokens": policy.max_chunk_tokens + 256, "max_num_seqs": 4}
    scheduler, config = SCHEDULERS["async" if overlapped else "sync"], {"policy": "niyama-steady", "latency": ROOFLINE}
    folder = model_folder("llama3-8b", models)
    served = run_virtual(Traffic(requests), card, EngineSettings(folder, scheduler, config, **settings))
    stock = run_virtual(Traffic(requests), card, EngineSettings(folder, ASYNC_STOCK, {}, **settings))
    np.testing.assert_allclose(simulated.token_s, served.token_s, rtol=0, atol=1e-9)
    np.testing.assert_array_equal(simulated.preemptions, served.preemptions)
    assert served.preemptions.sum() == 2 and served.preemptions[4:].sum() == 0
    ttft_s = [run.token_s[run.token_start[4:6]] - arrival_s[4:] for run in (served, stock)]
    assert ttft_s[0].max() < 6.0 < ttft_s[1].min()


def test_the_command_compares_a_trace_and_fails_out_of_tolerance(models: Path, capsys, monkeypatch) -> None:
    arguments = ["fidelity", "--trace", "azure-code-2023-synth", "--latency", ROOFLINE, "--slos", "tight", "--json"]
    arguments += ["--capacity", "5", "--loads", "1.3", "--requests", "150"]
    assert main([*arguments, "--scheduler", "both"]) == 0
    sync, ahead = json.loads(capsys.readouterr().out)
    assert sync["identical"] and ahead["identical"]
    assert (sync["scheduler"], ahead["scheduler"]) == ("sync", "async")
    assert ahead["relegated_sim"] == ahead["relegated_vllm"] > 0
    monkeypatch.setattr(
        "artifact.engine.fidelity.run", lambda spec, **_: run(spec.model_copy(update={"overlapped": False}))
    )
    assert main([*arguments, "--scheduler", "async"]) == 1  # the simulator that does not plan ahead is another one
    (row,) = json.loads(capsys.readouterr().out)
    assert not row["passes"] and row["ttft_difference"] > 0.05


def test_a_log_that_vllm_wrote_replays(models: Path, tmp_path: Path) -> None:
    requests, path = crowd(40), tmp_path / "decisions.jsonl"
    card = replace(load_card(ROOFLINE), kv_tokens=KV_TOKENS)
    engine = EngineSettings(
        model_folder("llama3-8b", models),
        SCHEDULERS["async"],
        {"policy": "niyama", "latency": ROOFLINE, "decision_log": str(path)},
        max_num_batched_tokens=2756,
    )
    run_virtual(Traffic(requests), card, engine)
    found = replay(path)
    assert (found.divergence, found.cut_short) == (None, None)
    assert found.chunks >= 40
    text = path.read_text().replace('"preemptions":0', '"preemptions":7')
    path.write_text(text)
    assert "preemptions is 7 in the log, 0 replayed" in replay(path).divergence
