"""A part that a configuration names: a policy with numbers of its own."""

from __future__ import annotations

from typing import Any

from niyama import Policy, load_policy


def build_policy(spec: Any) -> Policy:
    """A built-in policy by name, or `{name: ..., number: value}`. Raises ValueError naming number, value and fix."""
    if isinstance(spec, str):
        return _without_oracle(load_policy(spec))
    if not isinstance(spec, dict) or not isinstance(spec.get("name"), str):
        raise ValueError(f"policy is {spec!r}; give a built-in name, or a mapping with name and the numbers to change")
    numbers = {name: value for name, value in spec.items() if name != "name"}
    return _without_oracle(load_policy(spec["name"]).with_numbers(numbers))


def _without_oracle(policy: Policy) -> Policy:
    if policy.estimator == "oracle":
        raise ValueError("policy: estimator is 'oracle'; an engine cannot know output lengths: use 'history'")
    return policy
