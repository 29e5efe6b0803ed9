"""`python -m artifact cards`: which latency cards there are, and what one says."""

from __future__ import annotations

import argparse
import json
import textwrap
from typing import Any

from artifact.commands.table import Verb
from niyama.latency import ModelCard, load_card, model_names
from niyama.latency.coefficients import COEFFICIENTS, named

WIDTH = 118
SHOWN = 8  # rows of a list of coefficients, unless it is to be JSON


def cards(options: argparse.Namespace) -> None:
    """All cards that ship, or the one that is asked for."""
    if options.name is None:
        found = [load_card(name) for name in model_names()]
        print(json.dumps([facts(card) for card in found], indent=1) if options.json else _table(found))
    else:
        card = load_card(options.name)
        own = {**facts(card), "coefficients": coefficients(card)}
        print(json.dumps(own, indent=1) if options.json else "\n".join(_page(card)))


def facts(card: ModelCard) -> dict[str, Any]:
    """What a card says but its coefficients."""
    own = {name: getattr(card, name) for name in ("name", "model", "hardware", "gpu", "gpus", "engine", "basis")}
    rest = ("kind", "kv_tokens", "source", "error", "error_p95")
    return own | {name: getattr(card, name) for name in rest}


def coefficients(card: ModelCard) -> dict[str, dict[str, Any]]:
    """Name -> value, unit and meaning."""
    values = named(card.kind, card.coefficients)
    return {one.name: {**values[one.name], "meaning": one.meaning} for one in COEFFICIENTS[card.kind]}


def _table(found: list[ModelCard]) -> str:
    """A card's hardware and KV in a line, then the first sentences of engine, source and error."""
    lines = []
    for card in found:
        hardware = f"{card.gpus} x {card.gpu}"
        lines.append(
            f"{card.name:30s} {card.model:20s} {hardware:20s} {card.basis:15s} {card.kv_tokens:>10,d} KV tokens"
        )
        lines += _wrapped(f"engine: {card.engine.partition('; ')[0]}")
        lines += _wrapped(f"source: {card.source.partition('; ')[0]}")
        lines += _wrapped(f"error: {card.error.partition('. ')[0].rstrip('.')}")
    lines.append(
        "`python -m artifact cards NAME` says all of one, and its coefficients; --latency takes a name or a file"
    )
    return "\n".join(lines)


def _wrapped(text: str) -> list[str]:
    return textwrap.wrap(text, WIDTH, initial_indent="    ", subsequent_indent="      ")


def _page(card: ModelCard) -> list[str]:
    """One card: its facts, then its coefficients."""
    lines = []
    for name, value in facts(card).items():
        shown = f"{value:,d} tokens" if name == "kv_tokens" else "not known" if value is None else str(value)
        lines += textwrap.wrap(f"{name:12s} {shown}", WIDTH, subsequent_indent=" " * 13)
    lines.append("coefficients")
    for name, own in coefficients(card).items():
        value, unit, meaning = own["value"], own["unit"], own["meaning"]
        if not isinstance(value, list):
            lines.append(f"  {name:26s} {value:<14.7g} {unit:14s} {meaning}")
            continue
        lines.append(f"  {name:26s} {f'{len(value)} rows':14s} {unit:14s} {meaning}")
        rows = [", ".join(f"{x:.7g}" for x in (row if isinstance(row, list) else [row])) for row in value]
        lines += [f"  {'':26s} {row}" for row in (rows if len(rows) <= 3 * SHOWN else rows[:SHOWN])]
        if len(rows) > 3 * SHOWN:
            lines.append(f"  {'':26s} and {len(rows) - SHOWN} more: --json has them all")
    return lines


def add_commands(verb: Verb) -> None:
    """Add the command to the command line."""
    own = verb("cards", cards)
    own.add_argument("name", nargs="?", help="a card that ships, or a card's .json file (default: list all)")
    own.add_argument("--json", action="store_true", help="print JSON")
