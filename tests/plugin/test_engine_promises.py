"""What an engine's metrics say of its promises: the SLOs themselves, and the outcome of requests that are given up."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.version import __version__ as vllm_version

import niyama
from artifact.servers.model_files import model_folder
from niyama.vllm.config import EngineConfig
from niyama.vllm.qos import CLASS
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
TTFT_S, TTLT_S = 6.0, 600.0
Key = tuple[str, str, str]  # class, SLO, outcome


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Driven]:
    """One engine for all the tests; each leaves it idle."""
    model_dir = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    with driven(model_dir, "niyama.vllm.NiyamaAsyncScheduler", max_num_batched_tokens=1024) as one:
        yield one


def sample(engine: Driven, name: str, **labels: str) -> float | None:
    """A metric of the engine core, as it is now."""
    return engine.scheduler.planner.metrics.registry.get_sample_value(name, labels)


def outcomes(engine: Driven) -> dict[Key, float]:
    """Class, SLO and outcome of everything that has been counted."""
    keys = [(c, s, o) for c in ("Q1", "Q2", "Q3") for s in ("ttft", "tbt", "ttlt") for o in ("attained", "missed")]
    counts = {(c, s, o): sample(engine, "niyama_slo_total", **{"class": c, "slo": s, "outcome": o}) for c, s, o in keys}
    return {key: count for key, count in counts.items() if count}


def given_up(
    engine: Driven, name: str, class_name: str, after_s: float, steps: int
) -> dict[tuple[str, str, str], float]:
    """What is counted of a request that is aborted after some steps and some time."""
    before = outcomes(engine)
    engine.add(name, 100, 50, extra_args={CLASS: class_name})
    for _ in range(steps):
        engine.step()
    engine.clock.now_s += after_s
    engine.abort(name)
    engine.drain()
    return {key: count - before.get(key, 0) for key, count in outcomes(engine).items() if count != before.get(key, 0)}


def test_an_engine_says_what_it_promises_and_what_it_is(engine: Driven) -> None:
    about = {
        "version": niyama.__version__,
        "vllm_version": vllm_version,
        "policy": "niyama",
        "latency_card": EngineConfig().latency,
    }
    assert sample(engine, "niyama_info", **about) == 1
    assert sample(engine, "niyama_slo_seconds", **{"class": "Q1", "slo": "ttft"}) == TTFT_S
    assert sample(engine, "niyama_slo_seconds", **{"class": "Q2", "slo": "ttlt"}) == TTLT_S
    assert sample(engine, "niyama_slo_seconds", **{"class": "Q2", "slo": "ttft"}) is None


def test_what_is_given_up_in_time_counts_for_no_slo(engine: Driven) -> None:
    assert given_up(engine, "a", "Q1", TTFT_S / 2, steps=0) == {}
    assert given_up(engine, "b", "Q2", TTLT_S / 2, steps=3) == {}


def test_what_is_given_up_after_its_deadline_is_a_miss(engine: Driven) -> None:
    assert given_up(engine, "c", "Q1", 2 * TTFT_S, steps=0) == {("Q1", "ttft", "missed"): 1}
    assert given_up(engine, "d", "Q2", 2 * TTLT_S, steps=3) == {("Q2", "ttlt", "missed"): 1}


def test_a_first_token_in_time_counts_though_the_rest_is_given_up(engine: Driven) -> None:
    assert given_up(engine, "e", "Q1", 2 * TTFT_S, steps=8) == {("Q1", "ttft", "attained"): 1}
