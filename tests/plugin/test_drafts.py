"""Speculative decoding on the emulated device: drafts are verified as by vLLM alone, and what is accepted counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.config import SpeculativeConfig, VllmConfig
from vllm.v1.core.sched.scheduler import Scheduler

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.step import DRAFTED, LOST, PACED
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK
from niyama.vllm.qos import CLASS
from tests.helpers.stepped_engine import DRAFTS, DROPS_TOO_MUCH, Driven, driven

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
STOCK = {ASYNC: ASYNC_STOCK, SYNC: SYNC_STOCK}
BOTH = pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
K = DRAFTS["speculative_config"]["num_speculative_tokens"]
ROOFLINE = "a100-llama3-8b-roofline"


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def watched(engine: Driven) -> list[tuple[dict[str, int], dict[str, int]]]:
    """Tokens and drafted tokens by request, of each step to come."""
    seen, schedule = [], engine.scheduler.schedule

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        if output.num_scheduled_tokens:
            drafts = {name: len(tokens) for name, tokens in output.scheduled_spec_decode_tokens.items()}
            seen.append((dict(output.num_scheduled_tokens), drafts))
        return output

    engine.scheduler.schedule = scheduled
    return seen


def end_well(engine: Driven) -> None:
    engine.drain()
    engine.check_outputs()
    engine.check_idle()
    assert getattr(engine.scheduler, "planner", True) is not None, "the plug-in switched itself off"


@BOTH
def test_all_drafts_are_verified_in_as_many_steps_as_by_vllm_alone(model_dir: Path, scheduler: str) -> None:
    found = {}
    runs = ("ours", scheduler, DRAFTS), ("alone", STOCK[scheduler], DRAFTS), ("none", scheduler, {})
    for name, served_by, more in runs:
        settings = {"max_num_batched_tokens": 1024, "max_num_seqs": 16, "more": more}
        with driven(model_dir, served_by, **settings) as engine:
            seen = watched(engine)
            for row in range(12):
                engine.add(f"r{row}", 200 + row, 60)
            end_well(engine)
        found[name] = len(seen), sum(sum(drafts.values()) for _, drafts in seen)
    assert found["ours"][1] == found["alone"][1] > 12 * K
    assert found["ours"][0] <= found["alone"][0] + 1 < found["none"][0]


@BOTH
def test_where_drafts_lack_the_room_every_decode_has_its_next_token(model_dir: Path, scheduler: str) -> None:
    with driven(model_dir, scheduler, max_num_batched_tokens=16, max_num_seqs=8, more=DRAFTS) as engine:
        seen = watched(engine)
        for row in range(8):
            engine.add(f"r{row}", 4, 40)
        end_well(engine)
    decoding = [(tokens, drafts) for tokens, drafts in seen if len(tokens) == 8 and set(tokens.values()) <= {1, 1 + K}]
    assert len(decoding) > 5
    for tokens, drafts in decoding:
        assert set(drafts.values()) == {K} and sum(tokens.values()) == 8 + K * len(drafts) <= 16
    assert len(decoding[-1][1]) == 2


@BOTH
def test_the_last_token_of_a_known_prompt_is_padded_as_by_vllm_alone(model_dir: Path, scheduler: str) -> None:
    """Its blocks are in the prefix cache, but for one token: vLLM makes it as long as a decode with its drafts."""
    settings = {"enable_prefix_caching": True, "max_num_seqs": 8, "more": DRAFTS}
    with driven(model_dir, scheduler, **settings) as engine:
        prompt = list(range(65))
        engine.add("first", prompt, 60)
        for _ in range(6):
            engine.step()
        seen = watched(engine)
        engine.add("again", prompt, 30)
        end_well(engine)
    tokens, drafts = next((tokens, drafts) for tokens, drafts in seen if "again" in tokens)
    assert tokens["again"] == 1 + K and drafts["again"] == K


@pytest.mark.skipif(not hasattr(Scheduler, "_reserve_prefill_lookahead"), reason="this vLLM shortens no chunk")
def test_a_chunk_does_not_end_where_vllm_would_shorten_it(model_dir: Path) -> None:
    """With several MTP modules: not within so many tokens of the prompt's end."""
    policy = {"policy": {"name": "niyama", "max_chunk_tokens": 200}}
    with driven(model_dir, SYNC, niyama=policy, max_num_seqs=8, more=DRAFTS) as engine:
        engine.scheduler.num_prefill_lookahead = engine.scheduler.planner.mirror.drafts._lookahead = K
        seen = watched(engine)
        for tokens in (202, 203):
            engine.add(f"p{tokens}", tokens, 5)
            engine.step()
        end_well(engine)
    assert (seen[0][0]["p202"], seen[1][0]["p203"], seen[2][0]["p203"]) == (202, 200, 3)


@BOTH
def test_slots_that_vllm_keeps_for_the_drafter_are_no_lack_of_room(
    model_dir: Path, scheduler: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As with a draft model: two tokens of the step for every request in it."""
    monkeypatch.setattr(SpeculativeConfig, "max_num_new_slots_for_drafting", property(lambda config: 2))
    with driven(model_dir, scheduler, max_num_batched_tokens=64, max_num_seqs=10, more=DRAFTS) as engine:
        seen = watched(engine)
        for row in range(10):
            engine.add(f"r{row}", 30 + row, 30)
        end_well(engine)
    assert max(len(drafts) for _, drafts in seen) == 10
    assert all(sum(tokens.values()) + 2 * len(tokens) <= 64 for tokens, _ in seen if len(tokens) == 10)


@pytest.mark.skipif(not hasattr(VllmConfig, "num_lookahead_tokens"), reason="this vLLM has it elsewhere")
@pytest.mark.parametrize("lookahead", [0, K], ids=["ngram", "eagle"])
@BOTH
def test_kv_for_drafts_is_counted(
    model_dir: Path, scheduler: str, lookahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With too little KV the kernel gives some up, and vLLM never has to."""
    monkeypatch.setattr(VllmConfig, "num_lookahead_tokens", property(lambda config: lookahead))
    policy = {"policy": {"name": "niyama", "kv_reserve": 0.0}}
    settings = {"kv_blocks": 60, "max_num_seqs": 16, "niyama": policy, "more": DRAFTS}
    with driven(model_dir, scheduler, max_model_len=700, **settings) as engine:
        mirror, reported = engine.scheduler.planner.mirror, []
        report = mirror.scheduler.report
        mirror.scheduler.report = lambda kind, row, value=0: (reported.append(kind), report(kind, row, value))
        for row in range(16):
            engine.add(f"r{row}", 60 + row, 50)
        end_well(engine)
        assert mirror.scheduler.state.totals["preemptions"] > 0
    assert LOST not in reported and DRAFTED in reported and PACED in reported


@BOTH
def test_accepted_tokens_are_time_for_prompts(model_dir: Path, scheduler: str) -> None:
    """The deadlines of the decodes are kept as without speculation, and prompts beside them are done earlier."""
    classes = [
        {"name": "Q1", "ttft_s": 0.5, "tbt_s": 0.03},
        {"name": "Q2", "ttlt_s": 900.0},
        {"name": "Q3", "ttlt_s": 900.0},
    ]
    done_s = []
    for more in ({}, DRAFTS):
        config = {"classes": classes, "latency": ROOFLINE}
        with driven(model_dir, scheduler, niyama=config, max_num_batched_tokens=2756, more=more) as engine:
            for row in range(16):
                engine.add(f"chat{row}", 100, 400, extra_args={CLASS: "Q1"})
            engine.step()
            for row in range(6):
                engine.add(f"long{row}", 8000, 1, extra_args={CLASS: "Q3"})
            while not all(f"long{row}" in engine.finished for row in range(6)):
                engine.step()
            done_s.append(engine.clock.now_s)
            end_well(engine)
            late_s = engine.scheduler.planner._endings.times.worst_late_s
            assert max(late_s[:16]) <= 0.0
    assert done_s[1] < 0.9 * done_s[0], done_s


@BOTH
def test_a_log_with_drafts_replays(model_dir: Path, scheduler: str, tmp_path: Path) -> None:
    """Also where KV runs out, requests are aborted, and all KV is dropped."""
    config = {"decision_log": str(tmp_path / "log.jsonl"), "policy": {"name": "niyama", "kv_reserve": 0.0}}
    settings = {"kv_blocks": 70, "max_num_seqs": 16, "niyama": config, "more": DRAFTS}
    with driven(model_dir, scheduler, max_model_len=900, **settings) as engine:
        for row in range(20):
            engine.add(f"r{row}", 60 + row, 50)
        for number in range(30):
            engine.step()
            if number == 9 and (scheduler == SYNC or not DROPS_TOO_MUCH):
                engine.reset()
            if number == 20:
                engine.abort("r1", "r4", "r19")
        end_well(engine)
    found = replay(tmp_path / "log.jsonl")
    assert (found.divergence, found.cut_short) == (None, None)
    assert f'"ahead_tokens":{(2 if scheduler == ASYNC else 1) * K}' in (tmp_path / "log.jsonl").read_text()
