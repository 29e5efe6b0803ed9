"""Prompts with images: vLLM's encoder has a budget and a cache, which hold up nobody longer than they must."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.qos import CLASS
from tests.helpers.images import ends_well, give_encoder, image, watched
from tests.helpers.stepped_engine import Driven, driven

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
NIYAMA = {"policy": "niyama"}  # whose order and chunks these tests know
Q1, Q3 = {CLASS: "Q1"}, {CLASS: "Q3"}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module", params=[ASYNC, SYNC], ids=["async", "sync"])
def engine(request: pytest.FixtureRequest, model_dir: Path) -> Iterator[Driven]:
    """One engine for the tests that take it; each leaves it idle."""
    with driven(model_dir, request.param, niyama=NIYAMA, max_num_batched_tokens=1024, max_num_seqs=64) as one:
        yield one


@pytest.mark.parametrize("ahead", [0, 1], ids=["", "drafter-reads-ahead"])
def test_an_image_that_must_wait_holds_up_nobody_behind_it(
    engine: Driven, ahead: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """vLLM alone stops at the second prompt: the third would get nothing of the step.

    A drafter (EAGLE, MTP) reads one token ahead, so that the token before an image needs the image, too.
    """
    monkeypatch.setattr(engine.scheduler, "num_prefill_lookahead", ahead, raising=False)
    give_encoder(engine.scheduler, 600, 600)
    seen = watched(engine)
    first, second, third = (f"{name}-{ahead}" for name in ("first", "second", "third"))
    for name in (first, second, third):
        images = [image(ahead, 500, name)] if name != third else None
        engine.add(name, 502, 2, mm_features=images, extra_args=Q1)
        engine.clock.sleep(0.001)
    engine.step()
    assert seen[0] == {first: 502, third: 20}
    engine.step()
    assert seen[1][second] == 502
    ends_well(engine)


def test_a_prompt_paused_within_an_image_does_not_keep_the_cache(engine: Driven) -> None:
    """The lax prompt holds all of it when urgent ones come, and goes on only after them; its image is encoded again."""
    give_encoder(engine.scheduler, 600, 600)
    seen = watched(engine)
    engine.add("lax", 3000, 2, mm_features=[image(700, 600, "its")], extra_args=Q3)
    engine.step()
    assert seen[0] == {"lax": 1024} and engine.scheduler.encoder_cache_manager.num_freeable_slots == 0
    for i in range(4):
        engine.add(f"urgent-{i}", 1000, 2, mm_features=[image(0, 600, f"another-{i}")], extra_args=Q1)
    engine.step()
    assert max(seen[1].values()) == 1000 and "lax" not in seen[1], seen[1]
    ends_well(engine)
    prompts = [{name for name, tokens in step.items() if tokens > 1} for step in seen]
    assert sum(len(step - {"lax"}) > 0 for step in prompts[:6]) >= 4 and not any("lax" in step for step in prompts[1:5])


def test_streaming_input_with_images_waits_its_turn(engine: Driven) -> None:
    """It is offered in every step, after the planned prompts, and takes the encoder from none of them."""
    give_encoder(engine.scheduler, 300, 300)
    engine.add("stream", 400, 3, resumable=True, mm_features=[image(20, 300, "streamed")])
    for i in range(4):
        engine.add(f"planned-{i}", 600, 2, mm_features=[image(0, 300, f"planned-{i}")], extra_args=Q1)
    while len(engine.tokens["stream"]) < 3:
        engine.step()
    engine.add_piece("stream", 1, 1, last=True)
    ends_well(engine)
