"""What the emulated GPU is told to be: its settings, and how long its steps take."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Annotated, Any, Literal

import numpy as np
from pydantic import Field, ValidationError

from niyama.latency import Batch, LatencyModel, ModelCard, empty_batch, load_card, seconds, with_prefill
from niyama.vllm.loading import ConfigError, explain, short
from niyama.vllm.served_class import Strict

ENVIRONMENT = "NIYAMA_EMULATED"
KEY = "emulated"
EXAMPLE = '{"latency": "a100-llama3-8b-roofline"}'


class KVLayers(Strict):
    """Layers of one kind; full attention unless one of the last three is set."""

    groups: int = Field(1, ge=1, description="how many groups of such layers; each takes a block where another does")
    sliding_window: int | None = Field(None, ge=1, description="tokens that a sliding window holds")
    local_chunk: int | None = Field(None, ge=1, description="tokens of a chunk of local attention")
    mamba: bool = Field(False, description="layers that keep a state for each request, as large as a block of KV")


class Emulation(Strict):
    """Settings of the emulated GPU, from `additional_config["emulated"]` or the environment."""

    latency: str = Field(min_length=1, description="latency model: a card's name, or the path of a card's .json file")
    noise: float = Field(0.0, ge=0.0, le=1.0, description="standard deviation of the log of step times; mean factor 1")
    seed: int = Field(0, ge=0, description="of the noise")
    right_drafts: float = Field(0.5, ge=0.0, le=1.0, description="share of drafted tokens that the model would make")
    time: Literal["real", "virtual"] = Field("real", description="virtual: only in-process, through run_virtual")

    kv_layers: Annotated[tuple[KVLayers, ...], Field(strict=False, min_length=1)] = Field(
        (KVLayers(),), description="kinds of layers that share the KV; the card's kv_tokens are one group's, had it all"
    )

    def card(self) -> ModelCard:
        """The latency model's card. ConfigError when there is none of that name, or the file is not one."""
        try:
            return load_card(self.latency)
        except ValueError as fault:
            raise ConfigError(f"{KEY}: {fault}") from None


def load_emulation(additional_config: Mapping[str, Any] | None, environ: Mapping[str, str]) -> Emulation:
    """The settings; additional_config wins over the environment. ConfigError: a line for every fault."""
    given, source = (additional_config or {}).get(KEY), f"additional_config[{KEY!r}]"
    if given is None and environ.get(ENVIRONMENT):
        source = ENVIRONMENT
        try:
            given = json.loads(environ[ENVIRONMENT])
        except json.JSONDecodeError as fault:
            raise ConfigError(f"{ENVIRONMENT} is not JSON ({fault}); give something like '{EXAMPLE}'") from None
    if not isinstance(given, Mapping):
        raise ConfigError(f"{source} is {short(given)}; the emulated executor needs settings such as {EXAMPLE}")
    try:
        return Emulation(**given)
    except ValidationError as faults:
        raise explain(faults, source, Emulation.model_fields) from None


class StepTimes:
    """Duration of each step, drawn in the order of the calls. Mutable: the stream of noise moves on."""

    def __init__(self, model: LatencyModel, noise: float, seed: int) -> None:
        self._model, self._noise = model, noise
        self._random = np.random.default_rng(seed)
        seconds(model, with_prefill(empty_batch(1, 1), 0, 1))  # compiles now, not in the first step

    def seconds(self, batch: Batch) -> float:
        """Seconds that a step with this batch takes; 0 without tokens."""
        if batch.decodes + batch.prefill_tokens == 0:
            return 0.0
        step_s = float(seconds(self._model, batch))
        if self._noise == 0.0:
            return step_s
        # log-normal with mean 1, as in the simulator
        return step_s * float(np.exp(self._noise * self._random.standard_normal() - 0.5 * self._noise**2))
