"""Synthetic traces: token lengths drawn from quantile sketches, for when the real bytes cannot be had."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from types import MappingProxyType
from typing import Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, model_validator

from traces.errors import TraceError

SYNTHETIC_ROWS = 100_000  # it has a size and a seed of its own, so that it behaves like a trace
SYNTHETIC_SEED = 20240510  # the first day of the Azure week
_EIGHTHS = 8


class Sketch(BaseModel):
    """Quantiles of the two lengths (tokens), how they depend on each other, and where that is known from."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    source: str
    fidelity: Literal["high", "good", "medium-low", "low"]
    rows: int
    prompt_q: tuple[float, ...]
    output_q: tuple[float, ...]
    spearman: float | None
    spearman_basis: str | None
    gauss_copula_r: float
    rank_hist8_permille: tuple[tuple[float, ...], ...] | None
    targets: Mapping[str, float]

    @model_validator(mode="after")
    def _shapes_agree(self) -> Sketch:
        for field in ("prompt_q", "output_q"):
            if np.any(np.diff(getattr(self, field)) < 0):
                raise ValueError(f"{field}: quantiles decrease; list them in order")
        table = self.rank_hist8_permille
        if table is not None and np.shape(table) != (_EIGHTHS, _EIGHTHS):
            raise ValueError(f"rank_hist8_permille: shape is {np.shape(table)}; give 8 rows of 8")
        return self


class _Sketches(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    about: str
    quantile_probs: tuple[float, ...]
    sketches: Mapping[str, Sketch]

    @model_validator(mode="after")
    def _one_quantile_each(self) -> _Sketches:
        knots = len(self.quantile_probs)
        for name, sketch in self.sketches.items():
            if not len(sketch.prompt_q) == len(sketch.output_q) == knots:
                raise ValueError(f"{name}: needs {knots} quantiles of prompt and of output")
        return self


@lru_cache(maxsize=1)
def _stored() -> _Sketches:
    return _Sketches.model_validate_json((resources.files("traces") / "sketches.json").read_text("utf-8"))


def quantile_probs() -> np.ndarray:
    """float64[k] in [0, 1]: the probabilities at which every sketch states its quantiles."""
    return np.array(_stored().quantile_probs)


def load_sketches() -> Mapping[str, Sketch]:
    """Read-only map from sketch name to sketch."""
    return MappingProxyType(dict(_stored().sketches))


def sample(sketch: Sketch, n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`n` independent (prompt, output) pairs as two int32[n] arrays of tokens >= 1.

    The ranks come from the joint histogram of rank eighths, or from a Gaussian copula where there is none;
    the inverse CDF, linear between the quantiles, turns ranks into lengths. Raises TraceError if n < 1.
    """
    if n < 1:
        raise TraceError(f"n is {n}; ask for at least 1 row")
    rng = np.random.default_rng(seed)
    if sketch.rank_hist8_permille is None:
        prompt_rank, output_rank = _gaussian_ranks(sketch.gauss_copula_r, n, rng)
    else:
        prompt_rank, output_rank = _histogram_ranks(np.array(sketch.rank_hist8_permille), n, rng)
    return _tokens(prompt_rank, sketch.prompt_q), _tokens(output_rank, sketch.output_q)


def _tokens(rank: np.ndarray, quantiles: tuple[float, ...]) -> np.ndarray:
    return np.maximum(np.rint(np.interp(rank, quantile_probs(), quantiles)), 1).astype(np.int32)


def _histogram_ranks(mass: np.ndarray, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    # A rank is uniform by definition, but the counted table is off by sampling noise and ties; alternate
    # scaling (Sinkhorn) makes both margins uniform, so that the quantiles come out right.
    for _ in range(200):
        mass = mass / mass.sum(axis=1, keepdims=True)
        mass = mass / mass.sum(axis=0, keepdims=True)
    cell = rng.choice(mass.size, size=n, p=(mass / mass.sum()).ravel())
    within = rng.random((2, n))
    return (cell // _EIGHTHS + within[0]) / _EIGHTHS, (cell % _EIGHTHS + within[1]) / _EIGHTHS


def _gaussian_ranks(r: float, n: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    first, free = rng.standard_normal((2, n))
    second = r * first + math.sqrt(1 - r * r) * free
    return _normal_cdf(first), _normal_cdf(second)


def _normal_cdf(z: np.ndarray) -> np.ndarray:
    return np.fromiter((0.5 * math.erfc(-x / math.sqrt(2)) for x in z.tolist()), np.float64, z.size)
