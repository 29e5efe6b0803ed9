"""The emulated GPU inside vLLM's real engine: how it is started, what it refuses, its KV, its tokens and real time."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm import LLM, SamplingParams, envs
from vllm.config import VllmConfig
from vllm.engine.arg_utils import EngineArgs
from vllm.sampling_params import StructuredOutputsParams
from vllm.v1.engine.core import EngineCore

from artifact.servers.model_files import model_folder
from niyama.latency import empty_batch, seconds
from niyama.vllm.emulated.executor import EmulatedExecutor
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK
from tests.helpers.emulated_runs import CARD, FAST, card_file

pytestmark = pytest.mark.engine

SETTINGS = {"latency": CARD.name}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


def engine_config(model_dir: Path, settings: dict | None = None, **arguments: object) -> VllmConfig:
    """vLLM's configuration of an emulated engine."""
    options = {"max_model_len": 2000, "load_format": "dummy", "distributed_executor_backend": EmulatedExecutor}
    additional = {"emulated": settings or SETTINGS}
    return EngineArgs(
        model=str(model_dir), additional_config=additional, **(options | arguments)
    ).create_engine_config()


@pytest.mark.parametrize(("scheduler", "ahead"), [(None, True), (ASYNC_STOCK, True), (SYNC_STOCK, False)])
def test_scheduling_is_asynchronous_when_the_scheduler_is(model_dir: Path, scheduler: str | None, ahead: bool) -> None:
    config = engine_config(model_dir, scheduler_cls=scheduler)
    EmulatedExecutor(config)
    assert config.scheduler_config.async_scheduling is ahead
    assert config.cache_config.block_size == 16


def test_what_is_not_emulated_is_refused(model_dir: Path) -> None:
    with pytest.raises(ValueError, match="emulated: LoRA is not emulated; leave --enable-lora out"):
        EmulatedExecutor(engine_config(model_dir, enable_lora=True))
    with pytest.raises(RuntimeError, match="time is 'virtual' and no virtual clock runs here"):
        EmulatedExecutor(engine_config(model_dir, {**SETTINGS, "time": "virtual"}))


@pytest.fixture(scope="module")
def llm(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LLM]:
    """vLLM's own offline front end on a fast emulated device, the engine in this process."""
    latency = card_file(FAST, tmp_path_factory.mktemp("cards"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
        envs.disable_envs_cache()  # an engine of another test has frozen what vLLM reads of the environment
        engine = LLM(
            str(model_dir),
            max_model_len=2000,
            max_num_batched_tokens=512,
            load_format="dummy",
            distributed_executor_backend=EmulatedExecutor,
            additional_config={"emulated": {"latency": latency}},
        )
        yield engine
        engine.llm_engine.engine_core.shutdown()


def test_kv_is_the_cards(llm: LLM, model_dir: Path) -> None:
    core = llm.llm_engine.engine_core.engine_core
    assert core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == FAST.kv_tokens // 16
    executor = EmulatedExecutor(engine_config(model_dir))
    (spec,) = executor.get_kv_cache_specs()[0].values()
    assert executor.determine_available_memory() == [(CARD.kv_tokens // 16 + 1) * spec.page_size_bytes]


def test_a_number_of_blocks_given_by_hand_wins(model_dir: Path) -> None:
    config = engine_config(model_dir, num_gpu_blocks_override=150)
    core = EngineCore(config, EmulatedExecutor, log_stats=False)
    try:
        assert core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == 149  # vLLM keeps one for itself
    finally:
        core.shutdown()


def test_real_time_passes_as_modelled(llm: LLM) -> None:
    params = SamplingParams(max_tokens=100, temperature=0.0)
    prompts = [{"prompt_token_ids": [k] * 20} for k in range(8)]
    began_s = time.monotonic()
    answers = llm.generate(prompts, params, use_tqdm=False)
    took_s = time.monotonic() - began_s
    contexts = [[20 + k] * 8 for k in range(99)]
    model = FAST.build()
    modelled_s = sum(seconds(model, empty_batch(8, sum(c))) for c in contexts) + 0.004
    assert took_s > modelled_s  # by how much is the machine's affair
    assert [len(a.outputs[0].token_ids) for a in answers] == [100] * 8  # without ignore_eos: it never ends by itself
    assert all(a.outputs[0].text.isalpha() and len(a.outputs[0].text) == 100 for a in answers)
    assert len({a.outputs[0].text for a in answers}) == 8


def test_structured_output_is_what_the_grammar_says(llm: LLM) -> None:
    schema = {
        "type": "object",
        "properties": {"count": {"type": "integer"}, "kind": {"enum": ["p", "q"]}},
        "required": ["count", "kind"],
        "additionalProperties": False,
    }
    choice = SamplingParams(max_tokens=20, structured_outputs=StructuredOutputsParams(choice=["yes", "no"]))
    shaped = SamplingParams(max_tokens=300, structured_outputs=StructuredOutputsParams(json=schema))
    answers = llm.generate(["Is it?", "Give one."], [choice, shaped], use_tqdm=False)
    assert answers[0].outputs[0].text in ("yes", "no")
    assert answers[0].outputs[0].finish_reason == "stop"
    if answers[1].outputs[0].finish_reason == "stop":
        assert set(json.loads(answers[1].outputs[0].text)) == {"count", "kind"}
    else:  # digits may go on for ever
        assert answers[1].outputs[0].text.lstrip().startswith("{")


def test_an_aborted_request_leaves_nothing_behind(llm: LLM) -> None:
    engine, params = llm.llm_engine, SamplingParams(max_tokens=50, ignore_eos=True)
    core = engine.engine_core.engine_core
    free = core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks()
    names = [engine.add_request(name, {"prompt_token_ids": [5] * 600}, params) for name in ("stays", "goes")]
    for _ in range(4):
        engine.step()
    engine.abort_request(["goes"])
    lengths = {}
    while engine.has_unfinished_requests():
        lengths |= {o.request_id: len(o.outputs[0].token_ids) for o in engine.step()}
    while core.scheduler.has_requests() or core.batch_queue:
        core.step_fn()
    assert (len(names), lengths) == (2, {"stays": 50})
    assert core.scheduler.kv_cache_manager.block_pool.get_num_free_blocks() == free
    assert len(core.model_executor.device) == 0
