"""The fields of a RunSpec on the command line."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from artifact.config import MOST_REPLICAS, ConfigError, parse
from artifact.runs.recorded import completed
from artifact.runs.spec import RunSpec, load_classes
from traces import ReplayArrivals, read_columns

#: Fields that are options of a single point and of a capacity search alike.
FIELDS = [name for name in RunSpec.model_fields if name not in ("load_qps", "seed", "overlapped")]
#: Those that say what arrives.
_OF_FILES = ("columns", "time_unit", "tokenizer", "max_total_tokens", "too_long")
ARRIVING = ("trace", "requests", "arrivals", "classes", "low_importance_share", *_OF_FILES)
NUMBERS = ("noise", "noise_bursts", "stalls", "delivery_s", "low_importance_share")
TYPES = {"requests": int, "max_total_tokens": int, "classes": Path, **dict.fromkeys(NUMBERS, float)}
#: How those are written that are no plain text or number.
WRITTEN = {
    "replicas": ", such as 4 or 7,3,3",
    "requests": "; in a replay all rows",
    "arrivals": ', as JSON such as {"kind": "gamma", "cv": 3}; lengths are rows in random order, except with --replay',
    "columns": ", as time=NAME,prompt=NAME,output=NAME and class, tenant, importance, session, hash_ids",
    "classes": ", as a YAML list; none: the paper's Table 3",
    "policy": ', as JSON such as {"margin": 1.0}',
}


def about(name: str) -> str:
    """What a field of a RunSpec is."""
    return str(RunSpec.model_fields[name].description)


def add_run_options(parser: argparse.ArgumentParser, requests: int, fields: Sequence[str] = FIELDS) -> None:
    """The fields of a RunSpec that a single point or a capacity search takes, or some. requests: the default."""
    whole = "system" in fields
    for name in fields:
        own = requests if name == "requests" else None
        text, default = about(name) + WRITTEN.get(name, ""), own or RunSpec.model_fields[name].default
        text += f" (default {default})" if isinstance(default, str | int | float) else ""
        flag = f"--{name.replace('_', '-')}"
        if RunSpec.model_fields[name].annotation is bool:
            parser.add_argument(flag, action="store_true", default=None, help=about(name))
            continue
        required, kind = whole and name in ("trace", "system"), TYPES.get(name, str)
        parser.add_argument(flag, type=kind, required=required, help=text)
    replay = "the trace as recorded: its times with their own lengths, classes, importance"
    parser.add_argument("--replay", action="store_true", help=replay)
    parser.add_argument("--window", metavar="A:B", help="seconds of the trace that a replay plays, such as 3600:7200")
    if whole:
        parser.add_argument("--json", action="store_true", help="print JSON")
    parser.set_defaults(default_requests=requests)


def add_load(parser: argparse.ArgumentParser) -> None:
    """How fast requests arrive."""
    parser.add_argument("--load", type=float, help=about("load_qps") + "; in a replay the trace's own")
    parser.add_argument("--speed", type=float, help="how many times as fast as recorded a replay is (default 1)")


def spec_of(options: argparse.Namespace, *, simulated: bool = True, **more: Any) -> RunSpec:
    """The RunSpec of the command line; what is not given there is as RunSpec has it, or as the trace says.

    simulated: on replicas whose KV cache is that of the latency model's card; else it is unknown.
    """
    given = {name: value for name in FIELDS if (value := getattr(options, name, None)) is not None}
    read: dict[str, Callable[[Any], Any]] = {
        "classes": load_classes,
        "replicas": partial(integers, "--replicas"),
        "policy": partial(_json, "--policy"),
        "columns": read_columns,
    }
    if given.get("arrivals", "").startswith("{"):
        read["arrivals"] = partial(_json, "--arrivals")
    values = {name: read[name](value) if name in read else value for name, value in given.items()}
    replay, speed = _replay(options, values), getattr(options, "speed", None)
    if speed is not None and (replay is None or more.get("load_qps") is not None):
        raise ConfigError(f"--speed is {speed:g}, which is for a --replay, and instead of --load; leave it out")
    fields = completed({**values, **more}, options.default_requests, replay, speed or 1.0, simulated)
    return parse(RunSpec, fields, "command line")


def _replay(options: argparse.Namespace, values: Mapping[str, Any]) -> ReplayArrivals | None:
    window = options.window
    if not options.replay:
        if window is not None:
            raise ConfigError(f"--window is {window}, which is for a replay; give --replay too")
        return None
    if "arrivals" in values:
        raise ConfigError(f"--arrivals is {options.arrivals}, and a replay has the trace's own; leave one out")
    if window is None:
        return ReplayArrivals()
    try:
        start_s, end_s = map(float, window.split(":"))
        return ReplayArrivals(window=(start_s, end_s))
    except ValueError:
        raise ConfigError(f"--window is {window!r}; write two times in seconds, the earlier first: 3600:7200") from None


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
