"""The fields of a RunSpec on the command line."""

from __future__ import annotations

import argparse
import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any

from artifact.config import MOST_REPLICAS, ConfigError, parse
from artifact.runs.spec import LATENCY, RunSpec, load_classes


def add_run_options(parser: argparse.ArgumentParser, requests: int) -> None:
    """The fields of a RunSpec that a single point or a capacity search takes."""
    parser.add_argument("--trace", required=True, help="trace name (`python -m traces list`), or its -synth twin")
    parser.add_argument("--system", required=True, help="system name, or FILE.py:NAME of your own policy")
    parser.add_argument("--requests", type=int, default=requests, help=f"requests that arrive (default {requests})")
    parser.add_argument("--latency", default=LATENCY, help=f"latency model that executes (default {LATENCY})")
    parser.add_argument("--predictor", help="latency model that predicts (default: the executor's own, an oracle)")
    parser.add_argument("--noise", type=float, default=0.0, help="standard deviation of the log of step times")
    parser.add_argument("--replicas", help="replicas per pool, such as 4 or 7,3,3 (default one each)")
    parser.add_argument("--routing", default="round-robin", help="round-robin, least-work or packed")
    parser.add_argument(
        "--arrivals", default="poisson", help='poisson, trace, or JSON such as {"kind": "gamma", "cv": 3}'
    )
    parser.add_argument("--classes", type=Path, help="YAML list of QoS classes (default: the paper's Table 3)")
    parser.add_argument("--low-importance-share", type=float, default=0.0, help="share that is not important")
    parser.add_argument("--policy", default="{}", help='numbers of the policy that differ, such as {"margin": 1.0}')
    parser.add_argument("--json", action="store_true", help="print JSON")


def spec_of(options: argparse.Namespace, **more: Any) -> RunSpec:
    """The RunSpec of the command line."""
    values: dict[str, Any] = {
        name: getattr(options, name)
        for name in ("trace", "system", "requests", "latency", "predictor", "noise", "routing", "low_importance_share")
    }
    if options.classes is not None:
        values["classes"] = load_classes(options.classes)
    if options.replicas is not None:
        values["replicas"] = integers("--replicas", options.replicas)
    values["arrivals"] = _json("--arrivals", options.arrivals) if options.arrivals.startswith("{") else options.arrivals
    values["policy"] = _json("--policy", options.policy)
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
