"""Numbers of a policy that change nothing: those that only budget rules read, and its own does not."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from types import FunctionType
from typing import Any

from artifact.commands.progress import announce
from artifact.runs.spec import RunSpec
from artifact.runs.systems import build_system
from niyama.faults import ask_budget
from niyama.inputs import Limits
from niyama.limits import limits_of
from niyama.own_rules import source_of
from niyama.plan import plan
from niyama.sim import PACKED, System

#: They hand all numbers on to a rule, whichever it reads.
HANDED_ON = (limits_of, ask_budget)


@cache
def attributes_read(function: Callable[..., Any]) -> frozenset[str]:
    """Names of the attributes that a compiled function of ours and those that it calls read, without HANDED_ON."""
    found: set[str] = set()
    seen, left = set(HANDED_ON), [function]
    while left:
        if (one := left.pop()) in seen:
            continue
        seen.add(one)
        code = _python(one)
        found.update(code.__code__.co_names)
        called = (code.__globals__.get(name) for name in code.__code__.co_names)
        left += [other for other in called if isinstance(_python(other), FunctionType)]
    return frozenset(found)


def unread(system: System, numbers: Iterable[str]) -> list[str]:
    """Those that no pool reads. A router that packs reads some too, and a user's rule may read them in any way."""
    rules = {source_of(pool.policy.prefill_budget) for pool in system.pools}
    if system.routing == PACKED or not all(rule.__module__.startswith("niyama.") for rule in rules):
        return []
    read = attributes_read(plan).union(*map(attributes_read, rules))
    return [name for name in numbers if name in Limits._fields and name not in read]


def warn_of_unread(spec: RunSpec) -> None:
    """Say on stderr which of the policy numbers that somebody gave for a run change nothing."""
    if spec.policy and (found := unread(_system(spec), spec.policy)):
        announce(f"warning: policy has {', '.join(found)}, which no rule of {spec.system!r} reads; it changes nothing")


def _system(spec: RunSpec) -> System:
    return build_system(spec.system, spec.classes, spec.replicas, spec.routing, spec.policy)


def _python(function: Any) -> Any:
    """The Python function behind one that may be compiled."""
    return getattr(function, "py_func", function)
