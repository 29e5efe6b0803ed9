"""The two parts that a configuration names: a policy with numbers of its own, and a latency model's card."""

from __future__ import annotations

import json
from dataclasses import fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from niyama import Policy, load_card, load_policy
from niyama.latency import ModelCard

#: What a file may set: the numbers, not the rules, which are functions.
NUMBERS = {f.name: f.type for f in fields(Policy) if f.type in (int, float, bool, str) and f.name != "name"}
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}
_CARD_FIELDS = {f.name for f in fields(ModelCard)}


def build_policy(spec: Any) -> Policy:
    """A built-in policy by name, or `{name: ..., field: value}`. Raises ValueError naming field, value and fix."""
    if isinstance(spec, str):
        return _without_oracle(load_policy(spec))
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError(f"policy is {spec!r}; give a built-in name, or a mapping with name and the fields to change")
    base = load_policy(spec["name"])
    numbers = {field: _number(field, value) for field, value in spec.items() if field != "name"}
    return _without_oracle(replace(base, **numbers))


def _number(field: Any, value: Any) -> Any:
    """`value` as the type of the policy's `field`; integers stand for floats, nothing else is converted."""
    if field not in NUMBERS:
        close = get_close_matches(str(field), NUMBERS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"use one of {', '.join(NUMBERS)}"
        raise ValueError(f"policy: {field!r} is not a number of a policy; {hint}")
    kind = NUMBERS[field]
    if kind is float and type(value) is int:
        return float(value)
    if type(value) is not kind:
        raise ValueError(f"policy: {field} is {value!r}; make it {_KINDS[kind]}")
    return value


def _without_oracle(policy: Policy) -> Policy:
    if policy.estimator == "oracle":
        raise ValueError("policy: estimator is 'oracle'; an engine cannot know output lengths: use 'history'")
    return policy


def is_card_file(name: str) -> bool:
    """Whether `name` is the path of a card rather than the name of one that ships."""
    return name.endswith(".json")


def read_card(name: str) -> ModelCard:
    """The latency model's card: one that ships, or a JSON file with `ModelCard`'s fields (path ends in .json).

    Raises ValueError naming file, field and fix.
    """
    if not is_card_file(name):
        return load_card(name)
    try:
        row = json.loads(Path(name).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"latency is {name!r}, which cannot be read ({error}); correct the path") from None
    except (json.JSONDecodeError, RecursionError) as error:
        raise ValueError(f"latency is {name!r}, which is not valid JSON ({error}); correct it") from None
    if not isinstance(row, dict) or set(row) != _CARD_FIELDS:
        got = sorted(row) if isinstance(row, dict) else type(row).__name__
        raise ValueError(f"latency card {name!r} has {got}; give it exactly the fields {sorted(_CARD_FIELDS)}")
    return _card(name, row)


def _card(name: str, row: dict[str, Any]) -> ModelCard:
    for field in sorted(_CARD_FIELDS - {"coefficients", "kv_tokens"}):
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
