"""From a fit to a card: its error as text and at p95, its numbers to seven digits, its file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from artifact.latency.cross_validation import FOLDS, WITHIN, HeldOut, by_region, held_out
from artifact.latency.families import FAMILIES
from artifact.latency.profile import Profile
from artifact.results import tables
from niyama.latency import ModelCard
from niyama.latency.cards import card_text

DIGITS = 7


def make_card(name: str, kind: str, profile: Profile, **about: Any) -> tuple[ModelCard, HeldOut]:
    """The family `kind` fitted to the whole profile, with the error of its cross-validation.

    about: hardware, model, engine, kv_tokens, source, and optionally error, which is put before our own text.
    """
    found = held_out(kind, profile)
    coefficients = tuple(float(f"{c:.{DIGITS}g}") for c in FAMILIES[kind](profile.batches, profile.seconds))
    error = " ".join(text for text in (about.pop("error", ""), describe_error(found, profile)) if text)
    margin = float(f"{found.margin:.4g}")
    return ModelCard(name=name, kind=kind, error=error, error_p95=margin, coefficients=coefficients, **about), found


def describe_error(found: HeldOut, profile: Profile) -> str:
    """The cross-validated error by region, for the card."""
    parts = [
        f"{name} {row['mean_abs']:.1%} (bias {row['bias']:+.1%}, p90 {row['p90_abs']:.1%}, {row['steps']} steps)"
        for name, row in by_region(found, profile).items()
    ]
    return (
        f"Fit, held out by shape in {FOLDS} folds, mean absolute: {'; '.join(parts)}; "
        f"{WITHIN:.0%} of held-out steps within {found.margin:.3f} times the prediction."
    )


def write_card(card: ModelCard, folder: Path) -> Path:
    """Write NAME.json into the folder; its path."""
    path = folder / f"{card.name}.json"
    tables.write_text(path, card_text(card))
    return path
