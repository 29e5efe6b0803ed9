"""Model cards: the latency models that ship, in `cards.json`, and files of one's own; each tells its source."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields
from difflib import get_close_matches
from functools import cache
from pathlib import Path
from typing import Any

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


FIELDS = {f.name for f in fields(ModelCard)}


@cache
def _cards() -> dict[str, ModelCard]:
    rows = json.loads(Path(__file__).with_name("cards.json").read_text())
    return {row["name"]: ModelCard(**{**row, "coefficients": tuple(row["coefficients"])}) for row in rows}


def model_names() -> tuple[str, ...]:
    """Names of the cards that ship."""
    return tuple(_cards())


def is_card_file(name: str) -> bool:
    """Whether `name` is the path of a card rather than the name of one that ships."""
    return name.endswith(".json")


def load_card(name: str) -> ModelCard:
    """The latency model's card: one that ships, or a JSON file with `ModelCard`'s fields (path ends in .json).

    Raises ValueError: it lists the known names, or names file, field and fix.
    """
    return _read_card(name) if is_card_file(name) else _shipped_card(name)


def _shipped_card(name: str) -> ModelCard:
    if name not in _cards():
        close = get_close_matches(name, _cards(), n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        known = ", ".join(_cards())
        raise ValueError(f"latency model {name!r} is unknown{hint}; use one of {known}, or a card's FILE.json")
    return _cards()[name]


def _read_card(name: str) -> ModelCard:
    try:
        row = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"latency is {name!r}, which cannot be read ({error}); correct the path") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"latency is {name!r}, which is not valid JSON ({error}); correct it") from None
    if not isinstance(row, dict) or set(row) != FIELDS:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"latency card {name!r} has {got}; give it exactly the fields {sorted(FIELDS)}")
    return _card(name, row)


def _card(name: str, row: dict[str, Any]) -> ModelCard:
    for field in sorted(FIELDS - {"coefficients", "kv_tokens"}):
        if not isinstance(row[field], str):
            raise ValueError(f"latency card {name!r}: {field} is {row[field]!r}; make it a string")
    if type(row["kv_tokens"]) is not int or row["kv_tokens"] < 1:
        raise ValueError(f"latency card {name!r}: kv_tokens is {row['kv_tokens']!r}; make it an integer >= 1")
    numbers = row["coefficients"]
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(f"latency card {name!r}: coefficients is {numbers!r}; make it a list of numbers")
    return ModelCard(**{**row, "coefficients": tuple(_float(name, number) for number in numbers)})


def _float(name: str, number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"latency card {name!r}: a coefficient is beyond what a float holds; correct it") from None
