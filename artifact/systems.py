"""Systems by name: the built-in ones, and a user's own policy or system from a file."""

from __future__ import annotations

from difflib import get_close_matches

from artifact.config import ClassSpec, ConfigError
from niyama import BUILT_IN, Policy
from niyama.policies import load_from_file
from niyama.sim import Pool, System, shared

SILO = "sarathi-silo"
SYSTEMS = (
    "niyama",
    "niyama-dc",
    "niyama-dc-er",
    "niyama-adaptive",
    "sarathi-fcfs",
    "sarathi-edf",
    "sarathi-sjf",
    "sarathi-srpf",
    SILO,
    "qoserve-artifact",
)


def build_system(
    name: str, classes: tuple[ClassSpec, ...], replicas: tuple[int, ...] | None = None, routing: str = "round-robin"
) -> System:
    """The system called `name` for these classes, with `replicas` per pool (default one each).

    `sarathi-silo` has one pool per class: chunk 256 for interactive classes, 2048 for batch (paper section 4).
    FILE.py:NAME loads a `Policy` or a `System` of the user's. Raises ConfigError.
    """
    if ":" in name:
        loaded = _load(name)
        if isinstance(loaded, System):
            return loaded
        return shared(loaded, *_sizes(name, replicas, 1), routing)
    if name == SILO:
        sizes = _sizes(name, replicas, len(classes))
        return System(SILO, tuple(silo_pool(c, size) for c, size in zip(classes, sizes, strict=True)), routing)
    if name not in SYSTEMS:
        close = get_close_matches(name, SYSTEMS, n=1)
        hint = f" (did you mean {close[0]!r}?)" if close else ""
        raise ConfigError(f"system {name!r} is unknown{hint}; use one of {', '.join(SYSTEMS)}, or FILE.py:NAME")
    return shared(BUILT_IN[name], *_sizes(name, replicas, 1), routing)


def silo_pool(qos: ClassSpec, replicas: int) -> Pool:
    """The silo's pool for one class."""
    policy = BUILT_IN["sarathi-fcfs" if qos.qos().interactive else "sarathi-fcfs-2048"]
    return Pool(policy, replicas, (qos.name,))


def _sizes(name: str, replicas: tuple[int, ...] | None, pools: int) -> tuple[int, ...]:
    sizes = replicas or (1,) * pools
    if len(sizes) != pools:
        raise ConfigError(f"replicas is {sizes}: system {name!r} has {pools} pool(s); give {pools} number(s)")
    return sizes


def _load(name: str) -> Policy | System:
    try:
        loaded = load_from_file(name)
    except ValueError as error:
        raise ConfigError(f"system {error}") from None
    if not isinstance(loaded, Policy | System):
        raise ConfigError(f"system {name!r} is {loaded!r}; it must be a niyama Policy or System")
    return loaded
