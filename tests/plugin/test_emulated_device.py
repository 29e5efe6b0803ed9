"""The emulated GPU by itself: its settings, step times, batches and tokens."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm import SamplingParams
from vllm.v1.core.sched.output import CachedRequestData, NewRequestData, SchedulerOutput

from artifact.servers.model_files import EOS_ID
from niyama.latency import empty_batch, seconds, with_prefill
from niyama.vllm.config import load_config
from niyama.vllm.emulated.device import Device
from niyama.vllm.emulated.emulation import ENVIRONMENT, StepTimes, load_emulation
from niyama.vllm.emulated.made_up_tokens import allowed_token, fingerprint, token_at
from niyama.vllm.loading import ConfigError
from tests.helpers.emulated_runs import CARD, FAST, card_file, step_s

SETTINGS = {"latency": CARD.name}


@pytest.mark.parametrize(
    ("additional", "said"),
    [
        (None, "needs settings such as"),
        ({"emulated": "a100"}, "additional_config['emulated'] is 'a100'"),
        ({"emulated": {}}, "latency is missing"),
        ({"emulated": {"latency": ""}}, "latency is ''"),
        ({"emulated": {**SETTINGS, "nois": 0.1}}, "nois is not a known field; did you mean 'noise'"),
        ({"emulated": {**SETTINGS, "noise": -0.1}}, "noise is -0.1"),
        ({"emulated": {**SETTINGS, "noise": float("nan")}}, "noise is nan"),
        ({"emulated": {**SETTINGS, "noise": "0.1"}}, "noise is '0.1'"),
        ({"emulated": {**SETTINGS, "seed": 1.5}}, "seed is 1.5"),
        ({"emulated": {**SETTINGS, "time": "warp"}}, "time is 'warp'"),
    ],
)
def test_settings_that_make_no_sense_are_named_in_a_line(additional: dict | None, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        load_emulation(additional, {})
    assert said in str(raised.value)
    assert "\n" not in str(raised.value)


def test_the_environment_is_the_alternative_and_loses() -> None:
    environ = {ENVIRONMENT: '{"latency": "a100-llama3-8b-linear", "seed": 3}'}
    assert load_emulation({}, environ).seed == 3
    assert load_emulation({"emulated": SETTINGS}, environ).latency == CARD.name
    with pytest.raises(ConfigError, match=f"{ENVIRONMENT} is not JSON"):
        load_emulation({}, {ENVIRONMENT: "a100"})


def test_cards_come_by_name_or_file(tmp_path: Path) -> None:
    assert load_emulation({"emulated": SETTINGS}, {}).card() == CARD
    assert load_emulation({"emulated": {"latency": card_file(FAST, tmp_path)}}, {}).card() == FAST
    for latency, said in (("a100-llama3", "is unknown"), (str(tmp_path / "none.json"), "cannot be read")):
        with pytest.raises(ConfigError, match=f"emulated: .*{said}"):
            load_emulation({"emulated": {"latency": latency}}, {}).card()


def test_niyama_settings_beside_are_left_alone() -> None:
    additional = {"emulated": SETTINGS, "niyama": {"latency": CARD.name}}
    assert load_config(additional, {}).latency == load_emulation(additional, {}).latency


def test_step_times_are_the_models_with_noise_of_mean_one() -> None:
    batch = with_prefill(empty_batch(3, 900), 16, 100)
    model = CARD.build()
    assert StepTimes(model, 0.0, 0).seconds(batch) == seconds(model, batch)
    assert StepTimes(model, 0.3, 0).seconds(empty_batch(0, 0)) == 0.0
    noisy, again = StepTimes(model, 0.3, 5), StepTimes(model, 0.3, 5)
    factors = np.array([noisy.seconds(batch) for _ in range(20_000)]) / seconds(model, batch)
    assert factors[0] * seconds(model, batch) == again.seconds(batch)
    assert factors.mean() == pytest.approx(1.0, abs=0.01)
    assert np.log(factors).std() == pytest.approx(0.3, abs=0.01)


def new_request(name: str, prompt: int, computed: int, params: SamplingParams | None = None, **more) -> NewRequestData:
    params = params or SamplingParams()
    return NewRequestData(name, list(range(prompt)), [], params, None, ([],), computed, None, **more)


def a_step(scheduled: dict[str, int], new: list[NewRequestData], cached: dict[str, tuple[int, int]]) -> SchedulerOutput:
    """A scheduler's output; cached: id -> (tokens computed, output tokens known)."""
    output = SchedulerOutput.make_empty()
    output.num_scheduled_tokens, output.total_num_scheduled_tokens = scheduled, sum(scheduled.values())
    output.scheduled_new_reqs, output.scheduled_cached_reqs = new, CachedRequestData.make_empty()
    output.scheduled_cached_reqs.req_ids = list(cached)
    output.scheduled_cached_reqs.num_computed_tokens = [computed for computed, _ in cached.values()]
    output.scheduled_cached_reqs.num_output_tokens = [outputs for _, outputs in cached.values()]
    return output


def test_a_step_becomes_a_batch_in_scheduling_order() -> None:
    device = Device(tuple(range(64)), frozenset())
    device.read(a_step({"a": 100, "b": 1}, [new_request("a", 100, 0), new_request("b", 1, 0)], {}))
    # a and b decode, c's prompt begins behind a cached prefix, a request resumed as a new one recomputes its output
    resumed = new_request("d", 50, 0, prefill_token_ids=list(range(60)))
    step = a_step(
        {"d": 60, "a": 1, "c": 70, "b": 1}, [new_request("c", 300, 32), resumed], {"a": (100, 1), "b": (1, 1)}
    )
    batch, tokens = device.read(step)
    assert batch == with_prefill(with_prefill(empty_batch(2, 101), 0, 60), 32, 70)
    assert [len(tokens[name]) for name in ("a", "b", "c", "d")] == [1, 1, 0, 1]
    # a, preempted after three tokens, comes back in two chunks
    batch, tokens = device.read(a_step({"a": 64}, [], {"a": (0, 3)}))
    assert (batch, tokens) == (with_prefill(empty_batch(0, 0), 0, 64), {"a": []})
    batch, tokens = device.read(a_step({"a": 39}, [], {"a": (64, 3)}))
    assert (batch, len(tokens["a"])) == (with_prefill(empty_batch(0, 0), 64, 39), 1)


def test_tokens_depend_on_prompt_seed_and_position_alone() -> None:
    def first(name: str, prompt: int, params: SamplingParams) -> int:
        device = Device(tuple(range(1000)), frozenset())
        return device.read(a_step({name: prompt}, [new_request(name, prompt, 0, params)], {}))[1][name][0]

    plain = SamplingParams()
    assert first("a", 10, plain) == first("b", 10, plain)
    assert first("a", 10, plain) != first("a", 11, plain)
    assert first("a", 10, plain) != first("a", 10, SamplingParams(seed=7))
    assert first("a", 10, SamplingParams(allowed_token_ids=[4242])) == 4242
    assert len({token_at(range(1000), 1, position) for position in range(100)}) > 80


def mask(*allowed: int) -> np.ndarray:
    """A grammar's bitmask that allows these tokens."""
    words = np.zeros(10, np.uint32)
    for token in allowed:
        words[token >> 5] |= np.uint32(1 << (token & 31))
    return words.view(np.int32)


def test_right_drafts_come_out_and_a_grammar_takes_none() -> None:
    device = Device(tuple(range(64)), frozenset(), right_drafts=1.0)
    device.read(a_step({"a": 10, "b": 12}, [new_request("a", 10, 0), new_request("b", 12, 0)], {}))
    step = a_step({"a": 3, "b": 2}, [], {"a": (10, 1), "b": (12, 1)})
    step.scheduled_spec_decode_tokens = {"a": [0, 0], "b": [0]}
    batch, tokens = device.read(step)
    assert batch == empty_batch(2 + 3, 22) and [len(tokens[name]) for name in "ab"] == [3, 2]
    grammar = SimpleNamespace(structured_output_request_ids=["a", "b"], grammar_bitmask=[mask(1)] * 3 + [mask(2)] * 2)
    device.constrain(tokens, grammar, step.scheduled_spec_decode_tokens)
    assert tokens == {"a": [1], "b": [2]}
    assert device.read(a_step({"a": 1}, [], {"a": (11, 2)}))[1]["a"] == [
        token_at(range(64), fingerprint(range(10), None), 2)
    ]


def test_a_grammar_is_obeyed_and_the_end_comes_when_nothing_else_may() -> None:
    special = frozenset({31, EOS_ID})
    assert allowed_token(mask(31, 7, 200), 7, special) == 7
    assert allowed_token(mask(31, 200), 7, special) == 200
    assert allowed_token(mask(EOS_ID), 7, special) == EOS_ID


def test_step_seconds_by_hand() -> None:
    overhead, per_token, floor, attention, context = CARD.coefficients
    assert step_s([100, 200], (64, 32)) == pytest.approx(
        overhead + max(34 * per_token, floor) + attention * 32 * (64 + 16) + context * 300, rel=1e-12
    )
