"""`python -m artifact card`: a latency card of this machine, fitted to its measured step times.

The model is the roofline of `niyama.latency`, t = overhead + max(c_token * n, floor) + c_attention * work + c_context *
decode_context: continuous and monotone, so that a scheduler finds no bargains in it that the hardware does not offer.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import least_squares

from artifact import tables
from artifact.config import ConfigError
from artifact.step_summary import SHAPE
from niyama.latency import ModelCard, load_card

KIND = "roofline"
START = load_card("a100-llama3-8b-roofline").coefficients  # any GPU's are within a few times of these
#: Columns of a batch array.
DECODES, DECODE_CONTEXT, PREFILL, WORK = range(4)


def batches_and_seconds(rows: Sequence[Mapping[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """Batches [shape, 4] (means over the repeats) and their times in seconds (medians), without the scheduling.

    An asynchronous engine schedules while the step before runs, so that part is none of a step's length there.
    """
    shapes: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        shapes.setdefault(tuple(row[name] for name in SHAPE), []).append(row)
    columns = ("decodes", "decode_context_tokens", "prefill_tokens", "prefill_work")
    batches = np.array([[np.mean([r[c] for r in own]) for c in columns] for own in shapes.values()])
    times_s = np.array([np.median([r["seconds"] - r["schedule_s"] for r in own]) for own in shapes.values()])
    return batches, times_s


def roofline_seconds(coefficients: Sequence[float], batches: np.ndarray) -> np.ndarray:
    """What the model says the batches [n, 4] take, in seconds."""
    overhead_s, token_s, floor_s, work_s, context_s = coefficients
    layers_s = np.maximum(token_s * (batches[:, DECODES] + batches[:, PREFILL]), floor_s)
    return overhead_s + layers_s + work_s * batches[:, WORK] + context_s * batches[:, DECODE_CONTEXT]


def fit(batches: np.ndarray, times_s: np.ndarray) -> tuple[float, ...]:
    """The coefficients with the least squared relative error, none below 0. ConfigError when none are found."""
    start = np.array(START) * np.median(times_s / roofline_seconds(START, batches))

    def error(x: np.ndarray) -> np.ndarray:
        return roofline_seconds(x, batches) / times_s - 1.0

    exact = {"xtol": 1e-12, "ftol": 1e-12, "gtol": 1e-12}
    found = least_squares(error, start, bounds=(0.0, np.inf), x_scale=start, **exact)
    if not found.success:
        raise ConfigError(f"the step times give no latency model ({found.message}); measure more shapes")
    return tuple(float(f"{value:.10g}") for value in found.x)


def fitted_card(rows: Sequence[Mapping[str, Any]], about: Mapping[str, Any]) -> ModelCard:
    """The card of the engine that `rows` and `about` (a table of `profile`) were measured on."""
    batches, times_s = batches_and_seconds(rows)
    if len(times_s) < 2 * len(START):
        raise ConfigError(f"{len(times_s)} shapes are too few to fit {len(START)} coefficients; measure a larger grid")
    coefficients = fit(batches, times_s)
    error = np.abs(roofline_seconds(coefficients, batches) / times_s - 1.0)
    engine = about["engine"]
    slug = re.sub(r"[^a-z0-9]+", "-", engine["device"].lower()).strip("-")
    return ModelCard(
        name=f"{slug}-{about['model_shape']}-{KIND}",
        kind=KIND,
        coefficients=coefficients,
        hardware=engine["device"],
        model=f"{about['model_shape']} {engine['dtype']}",
        kv_tokens=engine["kv_tokens"],
        source=f"fit to the measured times of {len(times_s)} shapes of steps, less their scheduling "
        f"(vLLM {engine['vllm']}, torch {engine['torch']}): python -m artifact profile, card",
        error=f"mean abs {error.mean():.1%}, p90 {np.quantile(error, 0.9):.1%}, max {error.max():.1%} of the measured",
    )


def make_card(options: argparse.Namespace) -> None:
    """Fit, write the card, say what it is."""
    if options.out.suffix != ".json":
        raise ConfigError(f"--out is {str(options.out)!r}; give a file that ends in .json")
    table = tables.read_table(options.step_times)
    card = fitted_card(table.to_pylist(), tables.provenance(table))
    tables.write_text(options.out, json.dumps(asdict(card), indent=1) + "\n")
    print(f"{card.name}: {card.error}\nwritten to {options.out}")


def add_command(verbs: Any, verb: Any) -> None:
    """Add the command to the command line; `verb` makes it."""
    parser = verb(verbs, "card", make_card, "Fit a latency card to measured step times.")
    parser.add_argument("step_times", type=Path, help="what `profile` wrote")
    parser.add_argument("--out", type=Path, required=True, help="the card, FILE.json, to be named as a latency model")
