"""Model cards: the latency models that ship, with hardware, source and error, in `cards.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cache
from pathlib import Path

import numpy as np

from niyama.latency.model import COEFFICIENTS, ROOFLINE, TWO_BIN_LINEAR, LatencyModel

KINDS = {"two-bin-linear": TWO_BIN_LINEAR, "roofline": ROOFLINE}


@dataclass(frozen=True)
class ModelCard:
    """One latency model with its provenance. kv_tokens: KV capacity of one replica, in tokens."""

    name: str
    kind: str
    coefficients: tuple[float, ...]
    hardware: str
    model: str
    kv_tokens: int
    source: str
    error: str

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"latency model {self.name!r}: kind is {self.kind!r}; use one of {sorted(KINDS)}")
        wanted = COEFFICIENTS[KINDS[self.kind]]
        if len(self.coefficients) != wanted or not np.all(np.isfinite(self.coefficients)):
            raise ValueError(f"latency model {self.name!r}: coefficients must be {wanted} finite numbers")
        c, roofline = self.coefficients, KINDS[self.kind] == ROOFLINE
        if (min(c) < 0 or c[0] + c[2] <= 0) if roofline else min(c[0], c[6], c[1] + c[2], c[7] + c[8]) <= 0:
            wanted = "none negative, overhead + floor positive" if roofline else "intercepts and token slopes positive"
            raise ValueError(f"latency model {self.name!r}: coefficients are {c}; make {wanted}: a step takes time")

    def build(self) -> LatencyModel:
        """A fresh instance: an executor and a predictor never share one."""
        return LatencyModel(KINDS[self.kind], np.array(self.coefficients, dtype=np.float64))


@cache
def _cards() -> dict[str, ModelCard]:
    rows = json.loads(Path(__file__).with_name("cards.json").read_text())
    return {row["name"]: ModelCard(**{**row, "coefficients": tuple(row["coefficients"])}) for row in rows}


def model_names() -> tuple[str, ...]:
    """Names that `load_card` knows."""
    return tuple(_cards())


def load_card(name: str) -> ModelCard:
    """The card called `name`; a ValueError lists the known names."""
    if name not in _cards():
        close = get_close_matches(name, _cards(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ValueError(f"latency model {name!r} is unknown{hint}; use one of {', '.join(_cards())}")
    return _cards()[name]
