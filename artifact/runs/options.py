"""The fields of a RunSpec on the command line."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from artifact.config import MOST_REPLICAS, ConfigError, parse
from artifact.runs.spec import RunSpec, load_classes

#: Fields that are options of a single point and of a capacity search alike.
FIELDS = [name for name in RunSpec.model_fields if name not in ("load_qps", "seed", "overlapped")]
NUMBERS = ("noise", "noise_bursts", "stalls", "delivery_s", "low_importance_share")
TYPES = {"requests": int, "classes": Path, **dict.fromkeys(NUMBERS, float)}
#: How those are written that are no plain text or number.
WRITTEN = {
    "replicas": ", such as 4 or 7,3,3",
    "arrivals": ', as JSON such as {"kind": "gamma", "cv": 3}',
    "classes": ", as a YAML list; none: the paper's Table 3",
    "policy": ', as JSON such as {"margin": 1.0}',
}


def about(name: str) -> str:
    """What a field of a RunSpec is."""
    return str(RunSpec.model_fields[name].description)


def add_run_options(parser: argparse.ArgumentParser, requests: int) -> None:
    """The fields of a RunSpec that a single point or a capacity search takes. requests: the default."""
    for name in FIELDS:
        own = requests if name == "requests" else None
        text, default = about(name) + WRITTEN.get(name, ""), own or RunSpec.model_fields[name].default
        text += f" (default {default})" if isinstance(default, str | int | float) else ""
        flag = f"--{name.replace('_', '-')}"
        if RunSpec.model_fields[name].annotation is bool:
            parser.add_argument(flag, action="store_true", default=None, help=about(name))
            continue
        required, kind = name in ("trace", "system"), TYPES.get(name, str)
        parser.add_argument(flag, type=kind, required=required, default=own, help=text)
    parser.add_argument("--json", action="store_true", help="print JSON")


def spec_of(options: argparse.Namespace, **more: Any) -> RunSpec:
    """The RunSpec of the command line; what is not given there is as RunSpec has it."""
    given = {name: value for name in FIELDS if (value := getattr(options, name)) is not None}
    read: dict[str, Callable[[Any], Any]] = {
        "classes": load_classes,
        "replicas": partial(integers, "--replicas"),
        "policy": partial(_json, "--policy"),
    }
    if given.get("arrivals", "").startswith("{"):
        read["arrivals"] = partial(_json, "--arrivals")
    values = {name: read[name](value) if name in read else value for name, value in given.items()}
    return parse(RunSpec, {**values, **more}, "command line")


def integers(flag: str, text: str) -> tuple[int, ...]:
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise ConfigError(f"{flag} is {text!r}; write whole numbers such as 7,3,3") from None
    if not all(1 <= number <= MOST_REPLICAS for number in numbers):
        raise ConfigError(f"{flag} is {text!r}; give each pool 1 to {MOST_REPLICAS}")
    return numbers


def _json(flag: str, text: str) -> Any:
    try:
        return json.loads(text, object_pairs_hook=partial(_once, flag))
    except json.JSONDecodeError as error:
        raise ConfigError(f"{flag} is {text!r}, which is not JSON ({error.msg})") from None


def _once(flag: str, pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which the last of a key's values would be taken."""
    for name, number in Counter(key for key, _ in pairs).items():
        if number > 1:
            raise ConfigError(f"{flag} has {name!r} {number} times; give it once")
    return dict(pairs)
