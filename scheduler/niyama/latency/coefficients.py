"""A card's numbers by name: what each is, its unit, and where it stands in the flat array that the kernel reads.

A card's file names them: `"token": {"value": 9.02e-05, "unit": "s/token"}`. Older files have the array itself, a list
of numbers in this order, which is still read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple

SECONDS, PER_TOKEN, PER_PAIR = "s", "s/token", "s/token pair"
BEND, NODE = "[tokens, s/token]", "[feature, threshold or s, row]"


class Coefficient(NamedTuple):
    """One number, or a list of numbers or of rows of them. `width`: numbers of a row; 0: a single number."""

    name: str
    unit: str
    meaning: str
    width: int = 0


_PAIRS = "token pairs of prefill attention: of each chunk, tokens x (prefix + tokens / 2)"
_TOP = "tokens already in KV of the prompt that the step's first chunk continues"
_CONTEXT = "KV tokens that the step's decodes attend to, summed"


def _bin(where: str) -> tuple[Coefficient, ...]:
    """One of the two bins of the authors' model."""
    own = (
        ("intercept", SECONDS, f"any step {where} tokens"),
        ("token", PER_TOKEN, "each token of the step, prefilled or decoded"),
        ("prefill_token", PER_TOKEN, "each prefilled token, on top of that"),
        ("decode", "s/decode", "each request that decodes, on top of that"),
        ("decode_context", PER_TOKEN, _CONTEXT),
        ("top_prefix", PER_TOKEN, _TOP),
    )
    return tuple(Coefficient(f"{name}_{where.replace(' ', '_')}", unit, text) for name, unit, text in own)


#: Kind -> its coefficients, in the order of the array.
COEFFICIENTS: Mapping[str, tuple[Coefficient, ...]] = MappingProxyType(
    {
        "two-bin-linear": (*_bin("up to 512"), *_bin("above 512")),
        "roofline": (
            Coefficient("overhead", SECONDS, "any step"),
            Coefficient("token", PER_TOKEN, "each token of the step, by the GPU's arithmetic"),
            Coefficient("floor", SECONDS, "reading the weights once: the least that all tokens together take"),
            Coefficient("prefill_work", PER_PAIR, _PAIRS),
            Coefficient("decode_context", PER_TOKEN, _CONTEXT),
        ),
        "monotone": (
            Coefficient("base", SECONDS, "any step"),
            Coefficient("decode", "s/decode", "each request that decodes, on top of its token"),
            Coefficient("decode_context", PER_TOKEN, _CONTEXT),
            Coefficient("prefill_work", PER_PAIR, _PAIRS),
            Coefficient("top_prefix", PER_TOKEN, _TOP),
            Coefficient("token", PER_TOKEN, "each token of the step, prefilled or decoded, up to the first bend"),
            Coefficient("bends", BEND, "from so many tokens of the step on, each further one", 2),
        ),
        "forest": (
            Coefficient("trees", "1", "number of trees, whose mean is the step's time"),
            Coefficient("roots", "row", "where each tree's first node stands in nodes", 1),
            Coefficient("nodes", NODE, "the trees' nodes, each tree in preorder; a leaf's row is its own", 3),
        ),
    }
)


def named(kind: str, numbers: Sequence[float]) -> dict[str, dict[str, Any]]:
    """The array as a card's file has it: name -> value and unit."""
    found, at = {}, 0
    for one in COEFFICIENTS[kind]:
        count = _count(one, numbers, at)
        own = numbers[at : at + count]
        at += count
        rows = [list(own[i : i + one.width]) for i in range(0, count, one.width or 1)]
        value: Any = own[0] if one.width == 0 else list(own) if one.width == 1 else rows
        found[one.name] = {"value": value, "unit": one.unit}
    return found


def _count(one: Coefficient, numbers: Sequence[float], at: int) -> int:
    """How many numbers of the array from `at` on are this coefficient's."""
    if one.width == 0:
        return 1
    return int(numbers[0]) if one.name == "roots" else len(numbers) - at


def flat(kind: str, values: Mapping[str, Any]) -> list[Any]:
    """The array from what a card's file has. ValueError names the field; whether they are numbers is not looked at."""
    wanted = {one.name: one for one in COEFFICIENTS[kind]}
    if set(values) != set(wanted):
        raise ValueError(f"coefficients has {sorted(values)}; a {kind} card has exactly {sorted(wanted)}")
    numbers: list[Any] = []
    for name, one in wanted.items():
        entry = values[name]
        if not isinstance(entry, Mapping) or set(entry) != {"value", "unit"}:
            raise ValueError(f"coefficients.{name} is {entry!r:.60}; give it a value and a unit ({one.unit})")
        if entry["unit"] != one.unit:
            raise ValueError(f"coefficients.{name}.unit is {entry['unit']!r}; convert its value to {one.unit!r}")
        numbers += _numbers(one, entry["value"])
    return numbers


def _numbers(one: Coefficient, value: Any) -> list[Any]:
    """The numbers of one entry, row after row."""
    if one.width == 0:
        return [value]
    rows = value if isinstance(value, list) else [None]
    if one.width == 1:
        return rows
    if not all(isinstance(row, list) and len(row) == one.width for row in rows):
        raise ValueError(f"coefficients.{one.name}.value is {value!r:.60}; make it a list of {one.unit}")
    return [number for row in rows for number in row]
