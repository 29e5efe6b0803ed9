"""Random prompts with images under a small encoder budget and cache: all end, with the outputs of vLLM alone."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.vllm.emulated.virtual import ASYNC_STOCK
from niyama.vllm.qos import CLASS
from tests.helpers.images import ends_well, give_encoder, image, watched
from tests.helpers.random_actions import Actions
from tests.helpers.stepped_engine import DRAFTS, DROPS_TOO_MUCH, Driven, driven

pytestmark = pytest.mark.engine
STEPS = int(os.environ.get("NIYAMA_RANDOM_STEPS", "150"))
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
LAYERS = [{}, {"groups": 3, "mamba": True}]


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


class ImageActions(Actions):
    """Random actions where most prompts hold images, some of them the same."""

    most = 200  # tokens of an image

    def add(self) -> None:
        draw, name = self._random, f"{self._names}-{self._added}"
        self._added += 1
        length, start, images = int(draw.integers(1, 2400)), int(draw.integers(0, 40)), []
        while draw.random() < 0.8:
            tokens = int(draw.choice([1, 30, int(draw.integers(1, self.most)), self.most]))
            if start + tokens > length:
                break
            name_of = f"shared-{tokens}" if draw.random() < 0.2 else f"{name}-{start}"
            images.append(image(start, tokens, name_of))
            start += tokens + int(draw.choice([0, 1, 500]))
        self._live[name] = self.engine.steps
        prompt = draw.integers(0, 256, length).tolist()
        if draw.random() < 0.3:  # the same prompt and images as another: in the prefix cache, if there is one
            prompt, images = [7] * length, [image(i, 20, "seven") for i in range(3, length - 20, 300)]
        self.engine.add(name, prompt, int(draw.integers(1, 40)), mm_features=images or None)


@pytest.mark.timeout(3000 + STEPS)
@pytest.mark.parametrize("whole", [False, True], ids=["", "whole"])
@pytest.mark.parametrize(
    ("scheduler", "settings", "budget", "cache"),
    [
        (ASYNC, {}, 200, 200),
        (SYNC, {}, 200, 200),
        (ASYNC, {"enable_prefix_caching": True}, 300, 210),
        (SYNC, {"kv_blocks": 300, "enable_prefix_caching": True}, 210, 500),
        (ASYNC, {"max_num_seqs": 8, "max_num_batched_tokens": 210}, 250, 250),
        (ASYNC_STOCK, {}, 200, 200),
    ],
    ids=["async", "sync", "async-prefixes", "sync-short-kv", "async-tiny", "vllm-alone"],
)
def test_every_request_ends_as_with_vllm_alone(
    scheduler: str, settings: dict[str, Any], budget: int, cache: int, whole: bool, model_dir: Path
) -> None:
    with driven(model_dir, scheduler, max_model_len=2600, **settings) as engine:
        give_encoder(engine.scheduler, budget, cache, whole_items=whole)
        actions = ImageActions(engine, seed=budget)
        for _ in range(STEPS):
            actions.act()
            assert getattr(engine.scheduler, "planner", True) is not None, f"switched off after {actions.counts}"
        actions.end()
        ends_well(engine)
        print(f"{scheduler}: {engine.steps} steps, {actions.summary()}")
    assert len(engine.finished) > STEPS / 20


@pytest.mark.timeout(3000 + STEPS)
@pytest.mark.parametrize(
    ("caching", "whole"),
    [(False, False), (True, False), (False, True)],  # vLLM alone waits for ever with both and such a drafter
    ids=["", "prefixes", "whole"],
)
@pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
def test_models_with_images_states_and_drafts_at_once(
    scheduler: str, caching: bool, whole: bool, model_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As Qwen3.5 with MTP: chunks end at blocks and before images, and the drafter reads one token ahead."""
    if DROPS_TOO_MUCH and scheduler == ASYNC:
        pytest.skip("this vLLM loses tokens of its own")
    settings = {"kv_blocks": 400, "enable_prefix_caching": caching, "max_num_batched_tokens": 700, "more": DRAFTS}
    with driven(model_dir, scheduler, max_model_len=2600, block_tokens=48, kv_layers=LAYERS, **settings) as engine:
        for name in {"num_prefill_lookahead", "use_eagle", "use_eagle_block_drop"} & vars(engine.scheduler).keys():
            monkeypatch.setattr(engine.scheduler, name, type(getattr(engine.scheduler, name))(1))
        # an image's last token needs the image behind it, too: with less cache than for both vLLM alone waits for ever
        give_encoder(engine.scheduler, 250, 2 * ImageActions.most + 20, whole_items=whole)
        actions = ImageActions(engine, seed=7)
        for _ in range(STEPS):
            actions.act()
            assert engine.scheduler.planner is not None, f"switched off after {actions.counts}"
        actions.end()
        ends_well(engine)
        print(f"{scheduler}: {engine.steps} steps, {actions.summary()}")
    assert len(engine.finished) > STEPS / 20


def test_items_that_may_not_be_cut_are_computed_at_once(model_dir: Path) -> None:
    """However small the chunks that the plan wants, and an image longer than any of them makes progress."""
    starts, tokens = (10, 311, 700), 300
    niyama = {"policy": {"name": "niyama", "max_chunk_tokens": 64, "min_chunk_tokens": 64}}
    with driven(model_dir, ASYNC, niyama=niyama, max_num_batched_tokens=512, max_num_seqs=16) as engine:
        give_encoder(engine.scheduler, 300, 300, whole_items=True)
        seen = watched(engine)
        engine.add("decode", 20, 60)
        engine.add("text", 400, 3)
        engine.add("images", 1010, 3, mm_features=[image(start, tokens, str(start)) for start in starts])
        ends_well(engine)
    chunks = [step["images"] for step in seen if "images" in step]
    ends = [sum(chunks[: i + 1]) for i in range(len(chunks))]
    assert not any(start < end < start + tokens for start in starts for end in ends), chunks
    assert max(chunks) == tokens and max(step.get("text", 0) for step in seen) == 64


def seconds_for_all(engine: Driven) -> float:
    """Virtual time until 60 prompts are served, two thirds of them with images, all there at the start."""
    random = np.random.default_rng(5)
    for i in range(60):
        length, images = int(random.integers(200, 2400)), []
        for start in range(5, length - 200, 700) if i % 3 else ():
            images.append(image(start, int(random.integers(20, 200)), f"{i}-{start}"))
        engine.add(f"r{i}", length, 30, mm_features=images or None, extra_args={CLASS: "Q3"})
    ends_well(engine)
    return engine.clock.now_s


@pytest.mark.parametrize("encoder", [(1024, 1024), (200, 200)], ids=["ample", "scarce"])
def test_as_fast_as_vllm_alone(encoder: tuple[int, int], model_dir: Path, tmp_path: Path) -> None:
    """Of a batch class, which has no token deadlines; and what was decided can be decided again."""
    log, took_s = tmp_path / "log.jsonl", []
    for scheduler, niyama in ((ASYNC_STOCK, {}), (ASYNC, {"decision_log": str(log)})):
        with driven(model_dir, scheduler, niyama=niyama, max_num_batched_tokens=1024, max_num_seqs=64) as engine:
            give_encoder(engine.scheduler, *encoder)
            took_s.append(seconds_for_all(engine))
    print(took_s)
    assert took_s[1] <= 1.05 * took_s[0]
    found = replay(log)
    assert (found.divergence, found.cut_short) == (None, None)
