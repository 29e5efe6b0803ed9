"""Prompts with images, and an encoder for an engine of a text model: vLLM's scheduler looks at no more of a model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from vllm.multimodal.inputs import MultiModalFeatureSpec, PlaceholderRange
from vllm.v1.core.encoder_cache_manager import EncoderCacheManager

if TYPE_CHECKING:
    from tests.helpers.stepped_engine import Driven


def image(start: int, tokens: int, name: str) -> MultiModalFeatureSpec:
    """An image of that many tokens, each an embedding; the same name is the same image."""
    return MultiModalFeatureSpec(None, "image", name, PlaceholderRange(start, tokens))


def give_encoder(scheduler: Any, budget: int, cache: int, *, whole_items: bool = False) -> None:
    """An encoder that makes `budget` embeddings in a step at most, and keeps `cache`."""
    scheduler.max_num_encoder_input_tokens = budget
    scheduler.encoder_cache_manager = EncoderCacheManager(cache)
    scheduler.scheduler_config.disable_chunked_mm_input = whole_items


def take_encoder_time(executor: Any, scheduler: Any, s_per_embed: float) -> None:
    """From now on a step of the emulated device takes so much longer for each embedding."""
    seconds, execute, embeds = executor._step_times.seconds, executor.execute_model, [0]

    def executed(output: Any, *args: Any, **kwargs: Any) -> Any:
        inputs = output.scheduled_encoder_inputs.items()
        embeds[0] = sum(scheduler.requests[name].get_num_encoder_embeds(i) for name, items in inputs for i in items)
        return execute(output, *args, **kwargs)

    executor.execute_model = executed
    executor._step_times = type("WithEncoder", (), {"seconds": lambda _, b: seconds(b) + s_per_embed * embeds[0]})()


def ends_well(engine: Driven) -> None:
    """Let it serve what it has, and look at everything."""
    engine.drain()
    engine.check_idle()
    engine.check_outputs()
    cache = engine.scheduler.encoder_cache_manager
    assert cache.num_freeable_slots == cache.cache_size, "somebody who is gone holds an image"
    assert getattr(engine.scheduler, "planner", True) is not None, "the plug-in switched itself off"


def watched(engine: Driven) -> list[dict[str, int]]:
    """The tokens granted in each step to come, by request."""
    seen, schedule = [], type(engine.scheduler).schedule

    def scheduled(*args: Any, **kwargs: Any) -> Any:
        output = schedule(engine.scheduler, *args, **kwargs)
        seen.append(dict(output.num_scheduled_tokens))
        return output

    engine.scheduler.schedule = scheduled
    return seen
