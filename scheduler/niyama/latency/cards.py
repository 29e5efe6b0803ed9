"""Model cards: a latency model with hardware, engine, source and error. Those that ship are the files in `cards/`."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from niyama.latency import curve, forest
from niyama.latency.coefficients import flat, named
from niyama.latency.model import FOREST, MONOTONE, ROOFLINE, TWO_BIN_LINEAR, LatencyModel
from niyama.names import did_you_mean

KINDS = {"two-bin-linear": TWO_BIN_LINEAR, "roofline": ROOFLINE, "forest": FOREST, "monotone": MONOTONE}
#: What a card's times rest on: measured steps of an engine; sums of measured kernels, as they are or mapped to an
#: engine; peaks of the hardware; emulated steps. Older files do not say.
MEASURED, KERNELS, BY_PEAKS, EMULATED, NOT_SAID = "measured", "sum of kernels", "roofline", "emulated", "not said"
BASES = (MEASURED, KERNELS, BY_PEAKS, EMULATED, NOT_SAID)
FOLDER = Path(__file__).with_name("cards")
SUFFIX = ".json"


def _two_bins_complaint(c: tuple[float, ...]) -> str | None:
    if len(c) != 12:
        return "coefficients must be 12 finite numbers"
    if min(c[0], c[6], c[1] + c[2], c[7] + c[8]) <= 0:
        return f"coefficients are {c}; make intercepts and token slopes positive: a step takes time"
    return None


def _roofline_complaint(c: tuple[float, ...]) -> str | None:
    if len(c) != 5:
        return "coefficients must be 5 finite numbers"
    if min(c) < 0 or c[0] + c[2] <= 0:
        return f"coefficients are {c}; make none negative, overhead + floor positive: a step takes time"
    return None


def _in_words(complaint: Callable[[tuple[float, ...]], str | None]) -> Callable[[tuple[float, ...]], str | None]:
    return lambda c: f"coefficients: {found}" if (found := complaint(c)) else None


_COMPLAINTS = {
    "two-bin-linear": _two_bins_complaint,
    "roofline": _roofline_complaint,
    "forest": _in_words(forest.complaint),
    "monotone": _in_words(curve.complaint),
}
_TIMES = {"forest": forest.times, "monotone": curve.times}  # of the others all are


@dataclass(frozen=True)
class ModelCard:
    """One latency model with its provenance.

    hardware: of a replica, as `H100-80GB SXM, TP4`. engine: what was measured, and its version. kv_tokens: KV capacity
    of one replica, in tokens. error: in words, and against what. error_p95: 95 % of held-out steps take at most that
    many times the predicted time; None: not known. (`Policy.margin`, by which a scheduler stretches predictions, is the
    operator's own.) coefficients: the array that `niyama.latency.coefficients` names. basis: one of BASES.
    """

    name: str
    kind: str
    hardware: str
    model: str
    engine: str
    kv_tokens: int
    source: str
    error: str
    error_p95: float | None
    coefficients: tuple[float, ...]
    basis: str = NOT_SAID

    def __post_init__(self) -> None:
        _check_kind(self.name, self.kind)
        if not np.all(np.isfinite(self.coefficients)):
            raise ValueError(f"latency model {self.name!r}: coefficients must be finite numbers")
        found = _COMPLAINTS[self.kind](self.coefficients)
        if found is not None:
            raise ValueError(f"latency model {self.name!r}: {found}")
        if self.error_p95 is not None and not 0 < self.error_p95 < float("inf"):
            raise ValueError(f"latency model {self.name!r}: error_p95 is {self.error_p95}; make it positive, or null")
        if self.basis not in BASES:
            raise ValueError(f"latency model {self.name!r}: basis is {self.basis!r}; use one of {list(BASES)}")

    @property
    def gpu(self) -> str:
        """The name of its GPU, without their number."""
        return self._hardware["gpu"]

    @property
    def gpus(self) -> int:
        """How many of them serve one replica: as `hardware` says, else one."""
        return int(self._hardware["count"] or self._hardware["tensor_parallel"] or 1)

    @property
    def _hardware(self) -> dict[str, Any]:
        found = _HARDWARE.fullmatch(self.hardware)
        assert found is not None, self.hardware
        return found.groupdict()

    def build(self) -> LatencyModel:
        """A fresh instance: an executor and a predictor never share one."""
        return LatencyModel(KINDS[self.kind], np.array(self.coefficients, dtype=np.float64))

    def times(self) -> np.ndarray:
        """Which coefficients are seconds (bool): a model is stretched by multiplying those."""
        c = np.array(self.coefficients, dtype=np.float64)
        return _TIMES[self.kind](c) if self.kind in _TIMES else np.ones(len(c), bool)


_HARDWARE = re.compile(r"(?:(?P<count>[1-9]\d*) ?[x×] ?)?(?P<gpu>.*?)(?:, TP(?P<tensor_parallel>[1-9]\d*))?", re.DOTALL)
_FIELDS = {f.name for f in fields(ModelCard)}
_WORDS = sorted(_FIELDS - {"coefficients", "kv_tokens", "error_p95"})


@cache
def model_names() -> tuple[str, ...]:
    """Names of the cards that ship."""
    return tuple(sorted(path.stem for path in FOLDER.glob(f"*{SUFFIX}")))


def is_card_file(name: str) -> bool:
    """Whether `name` is the path of a card rather than the name of one that ships."""
    return name.endswith(SUFFIX)


def load_card(name: str) -> ModelCard:
    """The card called `name`, or in the file `name` (ends in .json). ValueError: it is unknown, or what is wrong."""
    if is_card_file(name):
        return _read(Path(name), name)
    if name not in model_names():
        near = did_you_mean(name, model_names(), "? ")
        listed = "`python -m artifact cards` lists those that ship; a file of your own ends in .json"
        raise ValueError(f"latency model {name!r} is unknown; {near}{listed}")
    return _shipped(name)


@cache
def _shipped(name: str) -> ModelCard:
    return _read(FOLDER / f"{name}{SUFFIX}", name)


def _read(path: Path, name: str) -> ModelCard:
    try:
        row = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"latency is {name!r}, which cannot be read ({error}); correct the path") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"latency is {name!r}, which is not valid JSON ({error}); correct it") from None
    if isinstance(row, dict):
        row = current_fields(row)
    if not isinstance(row, dict) or set(row) != _FIELDS:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"latency card {name!r} has {got}; give it exactly the fields {sorted(_FIELDS)}")
    return _card(name, row)


def current_fields(row: dict[str, Any]) -> dict[str, Any]:
    """The fields of a card as they are now, where it was written when `error_p95` was called `margin`, or without
    `basis`."""
    row = {"basis": NOT_SAID, **row}
    if "error_p95" in row:
        return row
    return {"error_p95" if field == "margin" else field: value for field, value in row.items()}


def card_text(card: ModelCard) -> str:
    """The card as a file: a field a line, and a coefficient a line."""
    values = {f.name: getattr(card, f.name) for f in fields(card) if f.name != "coefficients"}
    lines = [f" {json.dumps(name)}: {json.dumps(value)}" for name, value in values.items()]
    own = [f"  {json.dumps(k)}: {json.dumps(v)}" for k, v in named(card.kind, card.coefficients).items()]
    return "{\n" + ",\n".join([*lines, ' "coefficients": {\n' + ",\n".join(own) + "\n }"]) + "\n}\n"


def _card(name: str, row: dict[str, Any]) -> ModelCard:
    for field in _WORDS:
        if not isinstance(row[field], str):
            raise ValueError(f"latency card {name!r}: {field} is {row[field]!r}; make it a string")
    if type(row["kv_tokens"]) is not int or row["kv_tokens"] < 1:
        raise ValueError(f"latency card {name!r}: kv_tokens is {row['kv_tokens']!r}; make it an integer >= 1")
    if row["error_p95"] is not None and type(row["error_p95"]) not in (int, float):
        raise ValueError(f"latency card {name!r}: error_p95 is {row['error_p95']!r}; make it a number, or null")
    numbers = row["coefficients"]
    if isinstance(numbers, dict):
        _check_kind(row["name"], row["kind"])
        try:
            numbers = flat(row["kind"], numbers)
        except ValueError as error:
            raise ValueError(f"latency card {name!r}: {error}") from None
    if not isinstance(numbers, list) or not all(type(number) in (int, float) for number in numbers):
        raise ValueError(
            f"latency card {name!r}: coefficients is {numbers!r:.200}; make it numbers by name, or a list of numbers"
        )
    return ModelCard(**{**row, "coefficients": tuple(_float(name, number) for number in numbers)})


def _check_kind(name: str, kind: str) -> None:
    if kind not in KINDS:
        raise ValueError(f"latency model {name!r}: kind is {kind!r}; use one of {sorted(KINDS)}")


def _float(name: str, number: int | float) -> float:
    try:
        return float(number)
    except OverflowError:
        raise ValueError(f"latency card {name!r}: a coefficient is beyond what a float holds; correct it") from None
