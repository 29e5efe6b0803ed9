"""What an encoder takes is told from the rest of a step, so that predictions are right with images and without."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.vllm.clock import ExtraTime
from tests.helpers.emulated_runs import CARD, card_file
from tests.helpers.images import ends_well, give_encoder, image, take_encoder_time
from tests.helpers.stepped_engine import driven

pytestmark = pytest.mark.engine
ASYNC = "niyama.vllm.NiyamaAsyncScheduler"
S_PER_EMBED = 2e-4


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.mark.parametrize(
    ("settings", "learned_s"),
    [({}, S_PER_EMBED), ({"encoder_s_per_embed": 1e-4}, 1e-4), ({"correct_predictor": False}, 0.0)],
    ids=["learned", "given", "not-corrected"],
)
def test_encoder_time_is_told_from_the_rest_of_a_step(
    settings: dict[str, Any], learned_s: float, model_dir: Path, tmp_path: Path
) -> None:
    """Every third prompt has images that take longer than the rest of its step; predictions stay right for all."""
    niyama = {"latency": card_file(CARD, tmp_path), **settings}
    with driven(model_dir, ASYNC, niyama=niyama, max_num_batched_tokens=1024, max_num_seqs=64) as engine:
        give_encoder(engine.scheduler, 1024, 1024)
        take_encoder_time(engine.core.model_executor, engine.scheduler, S_PER_EMBED)
        clock, ended = engine.scheduler.planner.clock, []
        clock_ended = clock.ended
        clock.ended = lambda now_s: ended.append(clock_ended(now_s)) or ended[-1]
        for i in range(90):
            images = [image(10 + 100 * k, 80, f"{i}-{k}") for k in range(1 + i % 5)] if i % 3 == 0 else None
            engine.add(f"r{i}", 700, 12, mm_features=images)
            for _ in range(4):
                engine.step()
        ends_well(engine)
    assert clock.correction.scale == pytest.approx(1.0, abs=0.01)
    assert clock.encoder.each_s == pytest.approx(learned_s, rel=0.01)
    steps = [(predicted, took) for predicted, took, step in ended[len(ended) // 4 :] if step.embeds]
    assert len(steps) > 15
    for predicted_s, took_s in steps if settings == {} else ():
        assert predicted_s == pytest.approx(took_s, rel=0.03)


def test_encoder_time_is_a_median_over_embeddings() -> None:
    """A pause, a faster step than predicted and a few tiny images change little; the first image already counts."""
    time = ExtraTime(None, learn=True)
    time.learn(0.1, 1000)
    assert time.each_s == pytest.approx(1e-4)
    for extra_s, embeds in ((5.0, 900), (-0.1, 300), (0.05, 1), (0.06, 2), (0.11, 1000), (0.1, 1000)):
        time.learn(extra_s, embeds)
    assert time.each_s == pytest.approx(1e-4, rel=0.2)
    for _ in range(40):
        time.learn(0.4, 1000)
    assert time.each_s == pytest.approx(4e-4)
