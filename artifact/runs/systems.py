"""Systems by name: the built-in ones, and a user's own policy or system from a file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from artifact.config import ConfigError
from artifact.runs.spec import ClassSpec
from niyama import BUILT_IN, Policy
from niyama.names import unknown_name
from niyama.policy_files import load_from_file
from niyama.sim import PACKED, ROUND_ROBIN, ROUTERS, ROUTINGS, Pool, Router, System, shared

SILO, POLYSERVE = "sarathi-silo", "polyserve"
SYSTEMS = (
    "niyama",
    "niyama-steady",
    "niyama-dc",
    "niyama-dc-er",
    "niyama-adaptive",
    "sarathi-fcfs",
    "sarathi-edf",
    "sarathi-sjf",
    "sarathi-srpf",
    SILO,
    "qoserve-artifact",
    "niyama-dc-fcfs",
    "medha",
    "sarathi-fcfs-192",
    "sarathi-fcfs-512",
    POLYSERVE,
)
#: Disaggregated systems, and the policy whose order and relegation their prefill pool takes.
DISAGGREGATED = {"disagg-fcfs": "sarathi-fcfs", "disagg-edf": "sarathi-edf", "disagg-niyama": "niyama"}
NO_CHANGES: Mapping[str, Any] = {}


def build_system(
    name: str,
    classes: tuple[ClassSpec, ...],
    replicas: tuple[int, ...] | None = None,
    routing: str | Router | None = None,
    changes: Mapping[str, Any] = NO_CHANGES,
) -> System:
    """The system called `name` for these classes, with `replicas` per pool (default one each), routed round robin.

    routing: a name of `niyama.sim`'s, or FILE.py:NAME of a Router of the user's.
    `sarathi-silo` has one pool per class: chunk 256 for interactive classes, 2048 for batch (paper section 4).
    `polyserve` has one pool per class too, each with steps of that class's TBT, and packs requests.
    FILE.py:NAME loads a `Policy` or a `System` of the user's. changes: numbers of every pool's policy that are not
    its own. Raises ConfigError.
    """
    own = _load(name) if ":" in name else None
    if isinstance(own, System):
        _refuse(name, replicas=replicas, routing=routing)
        return replace(own, pools=tuple(replace(p, policy=changed(p.policy, changes)) for p in own.pools))
    if name == POLYSERVE:
        _refuse(name, routing=None if routing == PACKED else routing)
    routing = router(routing) or ROUND_ROBIN
    if own is not None:
        return shared(changed(own, changes), _sizes(name, replicas, 1)[0], routing)
    if name == SILO:
        sizes = _sizes(name, replicas, len(classes))
        return System(SILO, tuple(silo_pool(c, n, changes) for c, n in zip(classes, sizes, strict=True)), routing)
    if name == POLYSERVE:
        sizes = _sizes(name, replicas, len(classes))
        return System(name, tuple(polyserve_pool(c, n, changes) for c, n in zip(classes, sizes, strict=True)), PACKED)
    if name not in SYSTEMS:
        raise ConfigError(unknown_name("system", name, SYSTEMS, ", or FILE.py:NAME"))
    return shared(changed(BUILT_IN[name], changes), _sizes(name, replicas, 1)[0], routing)


def router(name: str | Router | None) -> str | Router | None:
    """The router called `name`: decided before the run, or a Router that sees the replicas. Raises ConfigError."""
    if name is None or isinstance(name, Router) or name in ROUTINGS:
        return name
    if name in ROUTERS:
        return ROUTERS[name]
    if ":" not in name:
        known = unknown_name("router", name, (*ROUTINGS, *ROUTERS), ", or FILE.py:NAME")
        raise ConfigError(f"routing is {name!r}: {known}")
    try:
        loaded = load_from_file(name)
    except ValueError as error:
        raise ConfigError(f"routing {name!r}: {str(error).removeprefix(f'{name!r}: ')}") from None
    if not isinstance(loaded, Router):
        raise ConfigError(f"routing {name!r} is {loaded!r}; it must be a niyama Router")
    return loaded


def silo_pool(qos: ClassSpec, replicas: int, changes: Mapping[str, Any] = NO_CHANGES) -> Pool:
    """The silo's pool for one class."""
    policy = BUILT_IN["sarathi-fcfs" if qos.qos().interactive else "sarathi-fcfs-2048"]
    return Pool(changed(policy, changes), replicas, (qos.name,))


def polyserve_pool(qos: ClassSpec, replicas: int, changes: Mapping[str, Any] = NO_CHANGES) -> Pool:
    """PolyServe's pool for one class (arXiv 2507.17769): first come, first served, steps within the class's TBT."""
    if qos.tbt_s is None:
        raise ConfigError(f"system {POLYSERVE!r}: class {qos.name!r} has no tbt_s; give interactive classes only")
    policy = replace(BUILT_IN["medha"], name=POLYSERVE, step_s=qos.tbt_s)
    return Pool(changed(policy, changes), replicas, (qos.name,))


def changed(policy: Policy, changes: Mapping[str, Any]) -> Policy:
    """The policy with other numbers; its rules stay. Raises ConfigError."""
    try:
        return policy.with_numbers(changes)
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _refuse(name: str, **given: Any) -> None:
    """ConfigError for the first that is given although the system has its own."""
    for field, value in given.items():
        if value is not None:
            raise ConfigError(f"{field} is {value!r}: system {name!r} has its own; leave it out")


def _sizes(name: str, replicas: tuple[int, ...] | None, pools: int) -> tuple[int, ...]:
    sizes = replicas or (1,) * pools
    if len(sizes) != pools:
        raise ConfigError(f"replicas is {sizes}: system {name!r} has {pools} pool(s); give {pools} number(s)")
    return sizes


def _load(name: str) -> Policy | System:
    try:
        loaded = load_from_file(name)
    except ValueError as error:
        raise ConfigError(f"system {name!r}: {str(error).removeprefix(f'{name!r}: ')}") from None
    if not isinstance(loaded, Policy | System):
        raise ConfigError(f"system {name!r} is {loaded!r}; it must be a niyama Policy or System")
    return loaded
