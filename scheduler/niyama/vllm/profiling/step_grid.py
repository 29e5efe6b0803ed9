"""Which steps of an engine are measured by `step_times`: shapes of batches, each asked for by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from types import MappingProxyType
from typing import NamedTuple


class Chunk(NamedTuple):
    """The prompt tokens of a step, one request's, behind `prefix_tokens` of the same prompt; 0 tokens: decodes only."""

    prefix_tokens: int
    tokens: int


@dataclass(frozen=True)
class Grid:
    """Every number of decodes at every context, alone and beside every chunk; all in tokens but `decodes`.

    decodes: requests that get one token each; 0 asks for chunks alone. context_tokens: KV of each of them at first;
    every step adds one. prefill_tokens: chunks that start their prompt, 0 for none. chunk_tokens: chunks behind
    each of prefix_tokens. repeats: measurements of each shape. Raises ValueError for numbers that make no step.
    """

    decodes: tuple[int, ...]
    context_tokens: tuple[int, ...]
    prefill_tokens: tuple[int, ...]
    prefix_tokens: tuple[int, ...]
    chunk_tokens: tuple[int, ...]
    repeats: int

    def __post_init__(self) -> None:
        may_be_0, may_be_empty = ("decodes", "prefill_tokens"), ("prefix_tokens", "chunk_tokens")
        for name in (f.name for f in fields(self) if f.name != "repeats"):
            values, least = getattr(self, name), 0 if name in may_be_0 else 1
            if len(set(values)) < len(values) or min(values, default=least) < least:
                raise ValueError(f"grid: {name} is {values}; give different numbers, none below {least}")
            if not values and name not in may_be_empty:
                raise ValueError(f"grid: {name} is empty; give at least one number")
        if self.repeats < 1:
            raise ValueError(f"grid: repeats is {self.repeats}; give at least 1")

    @property
    def chunks(self) -> list[Chunk]:
        """The chunks that are measured beside every number of decodes."""
        behind = [Chunk(prefix, tokens) for prefix in self.prefix_tokens for tokens in self.chunk_tokens]
        return [Chunk(0, tokens) for tokens in self.prefill_tokens] + behind

    @property
    def cells(self) -> list[tuple[int, int]]:
        """(decodes, context of each); without decodes there is no context, and one cell."""
        busy = [(d, context) for d in self.decodes if d for context in self.context_tokens]
        return [(0, 0)] * (0 in self.decodes) + busy

    @property
    def step_tokens(self) -> int:
        """Tokens of the largest step."""
        return max(self.decodes) + max((*self.prefill_tokens, *self.chunk_tokens))


_DECODES, _CONTEXT_TOKENS = (0, 1, 8, 32, 64, 128, 256), (256, 1024, 2048, 4096)
_FINE_TOKENS = tuple(range(256, 769, 16))  # where GPUs leave their graphs and the latency models jump

#: Grids that are measured one after the other, each with the modelled time of all its steps on the paper's A100.
#: full: what a latency model is fitted to, and a close look at 256-768 tokens (7 minutes). exhaustive: that look at
#: every number of decodes and every context too (31 minutes). short: the same kinds of step in about a minute.
#: cpu: what servers of a small model on the CPU meet at the loads of workflows/config/cpu.yaml.
GRIDS: Mapping[str, tuple[Grid, ...]] = MappingProxyType({
    "full": (
        Grid(
            decodes=_DECODES,
            context_tokens=_CONTEXT_TOKENS,
            prefill_tokens=(0, 64, 128, 256, 512, 1024, 2048, 4096),
            prefix_tokens=(1024, 8192),
            chunk_tokens=(256, 2048),
            repeats=3,
        ),
        Grid(
            decodes=(0, 32, 128),
            context_tokens=(1024,),
            prefill_tokens=_FINE_TOKENS,
            prefix_tokens=(),
            chunk_tokens=(),
            repeats=5,
        ),
    ),
    "exhaustive": (
        Grid(
            decodes=_DECODES,
            context_tokens=_CONTEXT_TOKENS,
            prefill_tokens=(0, 32, 64, 128, 192, *_FINE_TOKENS, 896, 1024, 1536, 2048, 3072, 4096),
            prefix_tokens=(1024, 2048, 4096, 8192),
            chunk_tokens=(64, 128, 256, 512, 1024, 2048),
            repeats=5,
        ),
    ),
    "short": (
        Grid(
            decodes=(0, 1, 8, 32),
            context_tokens=(256, 1024),
            prefill_tokens=(0, 32, 128, 256, 384, 512, 528, 640, 1024),
            prefix_tokens=(1024,),
            chunk_tokens=(128, 512),
            repeats=3,
        ),
    ),
    "cpu": (
        Grid(
            decodes=(0, 1, 8, 32, 128),
            context_tokens=(512, 2048),
            prefill_tokens=(0, 64, 256, 512, 1024, 2048, 2688),
            prefix_tokens=(2048, 6144),
            chunk_tokens=(512, 2048),
            repeats=3,
        ),
    ),
})  # fmt: skip
