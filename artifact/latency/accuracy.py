"""How well the three families predict: held-out steps, and the largest chunk within a slack (paper, section 3.6.1).

The paper's random forest, the artifact's two-bin linear model and our monotone one, each fitted to the same profiles.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from artifact.latency.cross_validation import CLAIM, chunk_errors, held_out
from artifact.latency.families import FAMILIES
from artifact.latency.profile import Profile, kernel_rows, profile_of
from artifact.latency.published import PAPER
from niyama.latency import load_card

GRID = Path(__file__).parents[1] / "reference" / "latency" / "a100-llama3-8b-linear-grid.csv"
#: Profile -> what it is.
SOURCES: Mapping[str, str] = {
    "a100-llama3-8b-kernels": "kernels measured on an A100 (vLLM 0.14.0), summed; no noise, no engine",
    "a100-tp2-qwen-7b-kernels": "kernels measured on A100s (vLLM 0.14.0), summed; no noise, no engine",
    "h100-tp4-llama3-70b-kernels": "kernels measured on H100s (vLLM 0.24.0), summed; no noise, no engine",
    "a100-llama3-8b-linear": "the authors' linear model on a grid: a model, which its own family fits exactly",
}
QUANTILES = np.linspace(0.0, 1.0, 101)


def profiles() -> dict[str, Profile]:
    """The profiles of SOURCES."""
    grid = np.loadtxt(GRID, delimiter=",", skiprows=1)
    kernels = {f"{name}-kernels": profile_of(kernel_rows(shape), {}) for name, shape in PAPER.items()}
    return {**kernels, "a100-llama3-8b-linear": profile_of(_grid_rows(grid), {})}


def _grid_rows(grid: np.ndarray) -> list[dict[str, Any]]:
    """Rows of a profile from [prefill, prefix, decodes, decode context, seconds]; what fits the KV memory."""
    rows, kv_tokens = [], load_card("a100-llama3-8b-linear").kv_tokens
    for prefill, prefix, decodes, context, seconds in grid.tolist():
        if prefill + prefix + context <= kv_tokens:
            row = {"decodes": int(decodes), "decode_context_tokens": int(context), "prefill_tokens": int(prefill)}
            row |= {"prefix_tokens": int(prefix), "prefill_work": prefill * (prefix + prefill / 2), "seconds": seconds}
            rows.append({**row, "context_tokens": int(context / decodes) if decodes else 0})
    return rows


def rows(found: Mapping[str, Profile]) -> list[dict[str, Any]]:
    """The table: a row per profile, predictor, test (steps, chunks) and part (region, or slack)."""
    table = []
    for name, profile in found.items():
        for kind in FAMILIES:
            steps = held_out(kind, profile)
            shared = {"profile": name, "predictor": kind, "margin": steps.margin}
            for region, own in profile.regions().items():
                if own.any():
                    table.append({**shared, "test": "steps", "part": region, **spread(steps.ratio[own])})
            chunks = chunk_errors(kind, profile)
            ratios = np.array([row["ratio"] for row in chunks])
            slacks = np.array([row["slack_s"] for row in chunks])
            table.append({**shared, "test": "chunks", "part": "all", **spread(ratios)})
            for slack_s in np.unique(slacks):
                part = f"slack {1e3 * slack_s:g} ms"
                table.append({**shared, "test": "chunks", "part": part, **spread(ratios[slacks == slack_s])})
            cautious = np.array([row["ratio"] for row in chunk_errors(kind, profile, steps.margin)])
            table.append({**shared, "test": "chunks with margin", "part": "all", **spread(cautious)})
    return table


def spread(ratio: np.ndarray) -> dict[str, Any]:
    """Of predicted over true: count, sizes of the error, bias, shares within the claim and above 1, and quantiles."""
    size = np.abs(ratio - 1.0)
    return {
        "count": len(ratio),
        "mean_abs": float(size.mean()),
        "p50_abs": float(np.median(size)),
        "p90_abs": float(np.quantile(size, 0.9)),
        "bias": float(ratio.mean() - 1.0),
        "within_claim": float((size <= CLAIM).mean()),
        "above": float((ratio > 1.0).mean()),
        "ratio_quantiles": np.quantile(ratio, QUANTILES).tolist(),
    }
