"""A part that a configuration names: a policy with numbers of its own."""

from __future__ import annotations

from dataclasses import fields, replace
from difflib import get_close_matches
from typing import Any

from niyama import Policy, load_policy

#: What a file may set: the numbers, not the rules, which are functions.
NUMBERS = {f.name: f.type for f in fields(Policy) if f.type in (int, float, bool, str) and f.name != "name"}
_KINDS = {int: "an integer", float: "a number", bool: "true or false", str: "a string"}


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
