"""How good a family is on a profile: errors of steps and of chunk sizes that its fit has not seen."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from artifact.latency.families import FAMILIES
from artifact.latency.profile import Profile
from niyama.latency import LatencyModel, fit_tokens, seconds
from niyama.latency.cards import KINDS

FOLDS = 5
SEED = 0
WITHIN = 0.95  # share of held-out steps that the margin covers
SLACKS_S = (0.03, 0.05, 0.1, 0.2, 0.4)
LEAST_CHUNKS = 6  # sizes that a cell must have, for its largest chunk within a time to be known
CLAIM = 0.10  # the paper's: an error margin below 10 % on the chunk size (section 3.6.1)


@dataclass(frozen=True)
class HeldOut:
    """Steps predicted by a model that has seen no step of their group: predicted over measured seconds, by step."""

    kind: str
    ratio: np.ndarray

    @property
    def margin(self) -> float:
        """Times the prediction, WITHIN of the steps are not longer."""
        return float(np.quantile(1.0 / self.ratio, WITHIN, method="inverted_cdf"))


def model_of(kind: str, coefficients: np.ndarray) -> LatencyModel:
    """A model without a card."""
    return LatencyModel(KINDS[kind], np.ascontiguousarray(coefficients, np.float64))


def predict(model: LatencyModel, profile: Profile, steps: np.ndarray) -> np.ndarray:
    """Seconds of these steps, by the kernel that schedules."""
    return np.array([seconds(model, profile.batch(step)) for step in steps])


def folds(groups: np.ndarray, count: int = FOLDS) -> Iterator[np.ndarray]:
    """The steps of each fold; groups stay whole. The same for the same groups."""
    numbers = np.unique(groups)
    fold = np.random.default_rng(SEED).permutation(len(numbers)) % min(count, len(numbers))
    for k in range(fold.max() + 1):
        yield np.flatnonzero(np.isin(groups, numbers[fold == k]))


def models_by_fold(kind: str, profile: Profile, groups: np.ndarray) -> Iterator[tuple[LatencyModel, np.ndarray]]:
    """For each fold, the model fitted to the others, and the fold's steps."""
    for held in folds(groups):
        seen = np.setdiff1d(np.arange(len(profile.seconds)), held)
        yield model_of(kind, FAMILIES[kind](profile.batches[seen], profile.seconds[seen])), held


def held_out(kind: str, profile: Profile) -> HeldOut:
    """Every step predicted while its shape, all repeats of it, was held out."""
    ratio = np.full(len(profile.seconds), np.nan)
    for model, steps in models_by_fold(kind, profile, profile.shape):
        ratio[steps] = predict(model, profile, steps) / profile.seconds[steps]
    return HeldOut(kind, ratio)


def summary(ratio: np.ndarray) -> dict[str, Any]:
    """Of predicted over measured: mean and 90th percentile of the error's size, and the bias, below 0: too fast."""
    size = np.abs(ratio - 1.0)
    return {
        "steps": len(ratio),
        "mean_abs": float(size.mean()),
        "p90_abs": float(np.quantile(size, 0.9)),
        "bias": float(ratio.mean() - 1.0),
    }


def by_region(found: HeldOut, profile: Profile) -> dict[str, dict[str, Any]]:
    """A summary for each region that has steps."""
    return {name: summary(found.ratio[rows]) for name, rows in profile.regions().items() if rows.any()}


def chunk_errors(kind: str, profile: Profile, margin: float = 1.0) -> list[Mapping[str, Any]]:
    """Largest chunk within a slack, predicted over true, for every cell held out whole and every slack inside it.

    True: where the measured times of the cell's chunks, made rising and joined by lines, cross the slack. The predicted
    step, times `margin`, is to fit the slack, as the policy's does.
    """
    rows = []
    for model, steps in models_by_fold(kind, profile, profile.cell):
        for cell in np.unique(profile.cell[steps]):
            own = steps[profile.cell[steps] == cell]
            chunks, times = _rising(profile, own)
            if len(chunks) < LEAST_CHUNKS:
                continue
            batch = profile.batch(own[0])
            decodes, prefix = batch._replace(prefill_tokens=0, prefill_work=0.0, top_prefix=0), batch.top_prefix
            for slack_s in SLACKS_S:
                if times[0] < slack_s < times[-1]:
                    true = float(np.interp(slack_s, times, chunks))
                    fits = fit_tokens(model, decodes, prefix, slack_s / margin, int(chunks[-1]))
                    rows.append({"slack_s": slack_s, "decodes": decodes.decodes, "true": true, "ratio": fits / true})
    return rows


def _rising(profile: Profile, steps: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """A cell's chunk sizes and their median times, each at least that of any smaller chunk."""
    tokens = profile.batches[steps, 2]
    sizes = np.unique(tokens[tokens > 0])
    times = [np.median(profile.seconds[steps[tokens == size]]) for size in sizes]
    return sizes, np.maximum.accumulate(times) if len(sizes) else np.array([])
