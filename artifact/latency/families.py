"""Three families of latency models, each from a profile's batches and times to the coefficients of its kind of card."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

import numpy as np
from scipy.optimize import lsq_linear

from artifact.config import ConfigError
from artifact.latency.forest import grow_forest
from niyama.latency.model import BIN_EDGE_TOKENS

LEAST_S = 1e-6  # of an intercept, and of a prefill token in the linear model: a step takes time
LEAST_BIN_STEPS = 10
#: Where the monotone line may bend, in tokens; those beyond the profile's steps are left out.
BENDS = (16, 32, 64, 96, 128, 160, 192, 256, 320, 384, 512, 640, 768, 1024, 1536, 2048, 3072)


def fit_two_bins(batches: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The artifact's model: ordinary least squares, up to 512 tokens and above. ConfigError when a bin is too empty.

    Total tokens are prefill tokens and decodes, so that their coefficient can be spread over the others; it is 0.
    """
    decodes, context, prefill, _, prefix = batches.T
    columns, parts = np.column_stack([np.ones(len(batches)), prefill, decodes, context, prefix]), []
    small = decodes + prefill <= BIN_EDGE_TOKENS
    for where, rows in (("up to", small), ("above", ~small)):
        if rows.sum() < LEAST_BIN_STEPS:
            least = f"the linear model needs {LEAST_BIN_STEPS}: profile a larger grid, or leave it out (--kinds)"
            raise ConfigError(f"the profile has {rows.sum()} steps {where} {BIN_EDGE_TOKENS} tokens; {least}")
        low = np.array([LEAST_S, LEAST_S / 100, -np.inf, -np.inf, -np.inf])
        base, *slopes = _least_squares(columns[rows], seconds[rows], low)
        parts += [base, 0.0, *slopes]
    return np.array(parts)


def fit_monotone(batches: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """Ours: least squares of the relative error with no coefficient below 0, so that time falls in no argument."""
    decodes, context, prefill, work, prefix = batches.T
    total = decodes + prefill
    bends = np.array([0, *(b for b in BENDS if b < total.max())], float)
    ends = np.append(bends[1:], np.inf)
    segments = np.clip(total[:, None], bends, ends) - bends
    columns = np.column_stack([np.ones(len(total)), decodes, context, work, prefix, segments]) / seconds[:, None]
    low = np.zeros(columns.shape[1])
    low[0] = LEAST_S
    found = _least_squares(columns, np.ones(len(total)), low)
    costs, slopes = found[:5], found[5:]
    bent = np.column_stack([bends[1:], slopes[1:]]).ravel()
    return np.concatenate([costs, slopes[:1], bent])


def _least_squares(columns: np.ndarray, target: np.ndarray, low: np.ndarray) -> np.ndarray:
    """Bounded least squares, on columns of equal size: as one is tokens squared and another a constant."""
    size = np.abs(columns).max(axis=0)
    size[size == 0] = 1.0
    found = lsq_linear(columns / size, target, (low * size, np.inf), method="bvls", max_iter=1000)
    if not found.success:
        raise ConfigError(f"the fit did not converge ({found.message}); is the profile whole?")
    return np.maximum(found.x / size, low)


#: Kind of card -> its fit.
FAMILIES: Mapping[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = MappingProxyType(
    {"two-bin-linear": fit_two_bins, "forest": grow_forest, "monotone": fit_monotone}
)
