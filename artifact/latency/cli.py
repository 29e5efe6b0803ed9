"""`python -m artifact fit`, `kernel-profile` and `predictor-accuracy`."""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from artifact.commands.table import Verb
from artifact.config import ConfigError
from artifact.latency import accuracy, published
from artifact.latency.cards import make_card, write_card
from artifact.latency.cross_validation import by_region
from artifact.latency.families import FAMILIES
from artifact.latency.profile import WRITTEN, kernel_rows, read_profile
from artifact.results import tables
from artifact.results.code_hash import code_of
from niyama.latency import ModelCard
from niyama.latency.cards import EMULATED, MEASURED


def fit(options: argparse.Namespace) -> None:
    """Fit every kind to the profile, write the cards, print how good they are."""
    profile = read_profile(options.profile)
    about, name = card_facts(options.profile, profile.about), options.name or options.profile.stem
    folder, answer = options.out or options.profile.parent, []
    if not options.json:
        print(
            f"{len(profile.seconds)} steps of {len(set(profile.shape))} shapes; {about['hardware']}, {about['engine']}"
        )
        print(HEAD)
    for kind in options.kinds:
        card, found = make_card(f"{name}-{kind}", kind, profile, **about)
        regions, path = by_region(found, profile), write_card(card, folder)
        answer.append({"card": str(path), "kind": kind, "error_p95": card.error_p95, "regions": regions})
        if not options.json:
            print("\n".join(_lines(card, regions)), flush=True)
    print(json.dumps(answer, indent=1) if options.json else f"cards in {folder}: use one as `--latency CARD.json`")


HEAD = f"{'kind':16s} {'steps held out':14s} {'steps':>6s} {'mean abs':>9s} {'p90 abs':>9s} {'bias':>8s} {'p95':>7s}"


def _lines(card: ModelCard, regions: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """A line per region; p95 is that of all."""
    lines = []
    for name, row in regions.items():
        kind, margin = (card.kind, f"{card.error_p95:7.3f}") if name == "all" else ("", "")
        errors = f"{row['mean_abs']:9.1%} {row['p90_abs']:9.1%} {row['bias']:+8.1%}"
        lines.append(f"{kind:16s} {name:14s} {row['steps']:6d} {errors} {margin}".rstrip())
    return lines


def card_facts(path: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """What a card says of its hardware, model and engine, from what the profile says. ConfigError without it."""
    if "card" in about:
        return dict(about["card"])
    try:
        engine = about["engine"]
        return {
            "hardware": str(engine["device"]),
            "model": f"{about['model_shape']} {engine['dtype']}",
            "engine": f"vLLM {engine['vllm']}, torch {engine['torch']}",
            "kv_tokens": int(engine["kv_tokens"]),
            "source": f"fit of {path.name}, from `profile --backend {about['backend']} --grid {about['grid']}`",
            "basis": EMULATED if about["backend"] == EMULATED else MEASURED,
        }
    except KeyError as error:
        raise ConfigError(f"{path}: does not say {error} of its engine; give {WRITTEN}") from None


def kernel_profile(options: argparse.Namespace) -> None:
    """The kernels' times as a profile."""
    shape = published.NAMES[options.name]
    card = published.facts(shape)
    tables.write_table(options.out, kernel_rows(shape), listed=False, backend="kernels", card=card)
    print(f"{card['model']} on {card['hardware']}, {card['engine']}: written to {options.out}")


def predictor_accuracy(options: argparse.Namespace) -> None:
    """The table of predictor_accuracy."""
    rows = accuracy.rows(accuracy.profiles())
    tables.write_table(options.out, rows, backend="profiles", profiles=accuracy.SOURCES, code=code_of(options.command))
    print(f"{len(rows)} rows written to {options.out}")


def add_commands(verb: Verb) -> None:
    """Add all three to the command line."""
    own = verb("fit", fit)
    own.add_argument("profile", type=Path, help="FILE.parquet of `profile`")
    own.add_argument("--kinds", nargs="+", choices=list(FAMILIES), default=list(FAMILIES), help="default: all")
    own.add_argument("--name", help="start of the cards' names (default: the profile's)")
    own.add_argument("--out", type=Path, help="folder of the cards (default: the profile's)")
    own.add_argument("--json", action="store_true", help="print JSON")
    kernels = verb("kernel-profile", kernel_profile)
    kernels.add_argument("name", choices=list(published.NAMES))
    kernels.add_argument("--out", type=Path, required=True, help="FILE.parquet")
    accurate = verb("predictor-accuracy", predictor_accuracy)
    accurate.add_argument("--out", type=Path, required=True)
