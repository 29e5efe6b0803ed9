"""Requests that vLLM would not admit yet, and requests that no plan knows: they never block those behind them."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.lora.request import LoRARequest
from vllm.v1.request import RequestStatus

from artifact.servers.model_files import model_folder
from niyama.vllm.admission import Adapters, must_wait
from niyama.vllm.qos import CLASS
from tests.helpers.stepped_engine import Driven, driven, is_compiling

pytestmark = pytest.mark.engine
NIYAMA = {"policy": "niyama"}  # whose order and chunks these tests know
COMPILING = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR


@pytest.fixture(scope="module", params=["niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"])
def engine(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """One engine for all the tests; each leaves it idle."""
    model_dir = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    with driven(model_dir, request.param, niyama=NIYAMA, max_num_batched_tokens=1024, max_num_seqs=64) as one:
        yield one


@pytest.fixture
def one_adapter(engine: Driven, monkeypatch: pytest.MonkeyPatch) -> tuple[LoRARequest, LoRARequest]:
    """Two adapters, of which one may run at a time."""
    monkeypatch.setattr(engine.scheduler, "lora_config", SimpleNamespace(max_loras=1))
    planner, adapters = engine.scheduler.planner, Adapters(engine.scheduler)
    for its in (planner, planner._entry):
        monkeypatch.setattr(its, "_adapters", adapters)
    return LoRARequest("a1", 1, "nowhere"), LoRARequest("a2", 2, "nowhere")


def ends_well(engine: Driven) -> None:
    """Let it serve what it has, and look at everything."""
    engine.drain()
    engine.check_idle()
    engine.check_outputs()
    assert engine.scheduler.planner is not None, "the plug-in switched itself off"


def add_compiling(engine: Driven, name: str, prompt: int) -> None:
    """A request whose grammar is being compiled; `compiled` says that it is done."""
    engine.add(name, prompt, 2, before_it_is_added=is_compiling)


def compiled(engine: Driven, name: str) -> None:
    """Its grammar is there (and constrains nothing)."""
    request = engine.scheduler.requests[name]
    request.status, request.structured_output_request = RequestStatus.WAITING, None


def test_ten_are_served_behind_eight_whose_grammars_compile(engine: Driven) -> None:
    """Nothing runs, eight stand before ten: the ten are served, as with vLLM alone, and then the eight."""
    for i in range(8):
        add_compiling(engine, f"grammar-{i}", 6000)
    for i in range(10):
        engine.add(f"plain-{i}", 900, 3)
    for _ in range(60):
        engine.step()
    assert {f"plain-{i}" for i in range(10)} <= set(engine.finished)
    assert not any(engine.tokens[f"grammar-{i}"] for i in range(8))
    for i in range(8):
        compiled(engine, f"grammar-{i}")
    ends_well(engine)
    assert len(engine.tokens["grammar-0"]) == 2


def test_those_behind_a_slow_grammar_start_at_once(engine: Driven) -> None:
    """Four decodes, a long prompt whose grammar takes its time, six prompts behind it: not a token is lost to it."""
    for i in range(4):
        engine.add(f"decode-{i}", 20, 80)
    for _ in range(4):
        engine.step()
    add_compiling(engine, "slow", 6000)
    for i in range(6):
        engine.add(f"behind-{i}", 1000, 2)
    began_s = engine.clock.now_s
    while not all(engine.tokens[f"behind-{i}"] for i in range(6)):
        engine.step()
        assert engine.clock.now_s - began_s < 0.8, "the prompts behind it wait"
    compiled(engine, "slow")
    ends_well(engine)


def test_its_wait_counts_from_its_arrival(engine: Driven) -> None:
    """The grammar's time is the request's own: its deadline does not move."""
    add_compiling(engine, "late", 100)
    mirror = engine.scheduler.planner.mirror
    arrival_s = mirror.lives["late"].arrival_s
    engine.step()
    engine.clock.sleep(2.0)
    compiled(engine, "late")
    engine.step()
    live = mirror.lives["late"]
    assert mirror.scheduler.table.arrival_s[live.row] == arrival_s
    ends_well(engine)


def test_an_aborted_one_leaves_nothing(engine: Driven) -> None:
    add_compiling(engine, "gone", 100)
    engine.step()
    engine.abort("gone")
    ends_well(engine)


@pytest.mark.parametrize(
    ("grammar", "waits"), [(None, True), (object(), False), (ValueError("no such grammar"), False)]
)
def test_a_request_waits_for_its_grammar_alone(grammar: object, waits: bool) -> None:
    """One that cannot be compiled is shown to vLLM, which ends it."""
    request = SimpleNamespace(status=COMPILING, structured_output_request=SimpleNamespace(grammar=grammar))
    assert must_wait(request) is waits


def test_adapters_beyond_those_that_may_run_do_not_block(engine: Driven, one_adapter: tuple) -> None:
    """One adapter at a time: requests of others wait, the base model's do not, and all are served in the end."""
    engine.add("first", 50, 60, lora_request=one_adapter[0])
    for _ in range(3):
        engine.step()
    engine.add("other", 6000, 3, lora_request=one_adapter[1])
    for i in range(6):
        engine.add(f"base-{i}", 900, 2)
    engine.add("same", 200, 2, lora_request=one_adapter[0])
    while not all(engine.tokens[name] for name in ("same", *(f"base-{i}" for i in range(6)))):
        engine.step()
        assert len(engine.tokens["first"]) < 60 and not engine.tokens["other"]
    ends_well(engine)
    assert len(engine.tokens["other"]) == 3


def test_a_started_prompt_that_is_passed_over_keeps_its_adapter_s_place(engine: Driven, one_adapter: tuple) -> None:
    """vLLM counts the adapters of the step alone; two of them in the next one would end the engine."""
    for i in range(12):
        adapter = LoRARequest(f"a{i % 3}", i % 3 + 1, "nowhere")
        engine.add(f"mixed-{'abc'[i % 3]}-{i}", 2500 if i % 2 else 60, 4, lora_request=adapter)
        engine.step()
        if i == 6:
            engine.reset()
    ends_well(engine)


def test_streaming_input_takes_no_adapter_s_place_from_a_started_prompt(engine: Driven, one_adapter: tuple) -> None:
    """Two adapters in the step after would end the engine: the prompt has begun, another has its turn in this one."""
    engine.add("lax", 3000, 2, lora_request=one_adapter[0], extra_args={CLASS: "Q3"})
    engine.step()
    engine.add("urgent", 3000, 2, extra_args={CLASS: "Q1"})
    engine.add("stream", 30, 20, resumable=True, lora_request=one_adapter[1])
    while engine.scheduler.requests.keys() - {"stream"}:
        engine.step()
    while len(engine.tokens["stream"]) < 20:
        engine.step()
    engine.add("after", 30, 2, lora_request=one_adapter[0])  # an idle stream's adapter has no place
    while "after" not in engine.finished:
        engine.step()
    engine.add_piece("stream", 1, 1, last=True)
    ends_well(engine)


def test_a_prompt_whose_adapter_s_place_a_stream_has_blocks_nobody(engine: Driven, one_adapter: tuple) -> None:
    engine.add("stream", 30, 60, resumable=True, lora_request=one_adapter[1])
    for _ in range(3):
        engine.step()
    engine.add("blocked", 5000, 2, lora_request=one_adapter[0], extra_args={CLASS: "Q1"})
    engine.add("free", 900, 2, extra_args={CLASS: "Q3"})
    for _ in range(6):
        engine.step()
    assert engine.tokens["free"] and not engine.tokens["blocked"] and len(engine.tokens["stream"]) < 60
    assert not engine.scheduler.requests["blocked"].num_computed_tokens
    engine.add_piece("stream", 1, 1, last=True)
    ends_well(engine)


def test_a_request_that_its_adapter_keeps_back_saturates_nothing(engine: Driven, one_adapter: tuple) -> None:
    """vLLM holds prefills back again, as where it passes such a request over itself."""
    engine.add("runs", 30, 20, lora_request=one_adapter[0])
    for _ in range(3):
        engine.step()
    for name, params in (("kept", {}), ("stream", {"resumable": True})):
        engine.add(name, 30, 2, lora_request=one_adapter[1], **params)
        engine.step()
        assert not getattr(engine.scheduler, "prefill_capacity_bound", False), name  # 0.26 has none
    while "kept" not in engine.finished or len(engine.tokens["stream"]) < 2:
        engine.step()
    engine.add_piece("stream", 1, 1, last=True)
    ends_well(engine)


def test_streaming_input_is_served_beside_the_plan(engine: Driven) -> None:
    """Its input comes in pieces; the others keep their promises, and it gets its tokens too."""
    engine.add("stream", 300, 3, resumable=True)
    for i in range(8):
        engine.add(f"others-{i}", 1500, 3)
    for _ in range(12):
        engine.step()
    assert engine.scheduler.planner is not None
    assert len(engine.tokens["stream"]) == 3
    engine.add_piece("stream", 200, 2)
    for _ in range(8):
        engine.step()
    engine.add_piece("stream", 1, 1, last=True)
    ends_well(engine)
    assert len(engine.tokens["stream"]) in (5, 6)  # 0.26 serves the last piece, 0.32 only takes it as the end


def test_an_output_that_nobody_scheduled_changes_nothing(engine: Driven) -> None:
    planner = engine.scheduler.planner
    engine.add("pair", 100, 4)
    planner.step_ended(object(), None, engine.clock.now_s)
    ends_well(engine)
    assert planner is engine.scheduler.planner
