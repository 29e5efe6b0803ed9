"""A random forest in the layout of `niyama.latency.forest`: regression trees on bootstrap samples, as in CART.

Each split is the one that leaves the least squared error, over all features; a leaf is the mean of its steps. Without
the bootstrap a tree is the one that scikit-learn grows with the same least leaf (tested).
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

TREES = 16
LEAST_LEAF = 2
SEED = 0


def features(batches: np.ndarray) -> np.ndarray:
    """float[step, feature], as `niyama.latency.forest.FEATURES`, of batches [step, field of Batch]."""
    return np.column_stack([batches[:, 0] + batches[:, 2], batches])


def grow_forest(batches: np.ndarray, seconds: np.ndarray) -> np.ndarray:
    """The coefficients of a forest fitted to the steps; the same for the same steps."""
    x, random = features(batches), np.random.default_rng(SEED)
    roots, nodes = [], []
    for _ in range(TREES):
        sample = random.integers(0, len(x), len(x))
        roots.append(len(nodes))
        nodes += grow_tree(x[sample], seconds[sample], LEAST_LEAF, len(nodes))
    return np.array([TREES, *roots, *(number for node in nodes for number in node)], float)


def grow_tree(x: np.ndarray, y: np.ndarray, least_leaf: int, first_row: int = 0) -> list[tuple[float, float, float]]:
    """The nodes of one tree in preorder; the first is row `first_row`."""
    nodes: list[tuple[float, float, float]] = []

    def add(rows: np.ndarray) -> None:
        row = len(nodes)
        split = best_split(x[rows], y[rows], least_leaf)
        nodes.append((0.0, float(y[rows].mean()), float(first_row + row)))
        if split is not None:
            feature, threshold = split
            left = x[rows, feature] <= threshold
            add(rows[left])
            nodes[row] = (float(feature), threshold, float(first_row + len(nodes)))
            add(rows[~left])

    add(np.arange(len(x)))
    return nodes


def best_split(x: np.ndarray, y: np.ndarray, least_leaf: int) -> tuple[int, float] | None:
    """(feature, threshold) with the least squared error on both sides together; None when a leaf is as good."""
    best, found = y.sum() ** 2 / len(y) * (1 + 1e-12), None
    if len(y) < 2 * least_leaf or np.ptp(y) == 0:
        return None
    for feature, gain, threshold in _splits(x, y, least_leaf):
        if gain > best:
            best, found = gain, (feature, threshold)
    return found


def _splits(x: np.ndarray, y: np.ndarray, least_leaf: int) -> Iterator[tuple[int, float, float]]:
    """Each feature's best split: what it explains (sum^2 / count on both sides), and its threshold, midway."""
    order = np.argsort(x, axis=0, kind="stable")
    left = np.arange(least_leaf, len(y) - least_leaf + 1)  # steps on the left side
    for feature in range(x.shape[1]):
        values, sums = x[order[:, feature], feature], np.cumsum(y[order[:, feature]])
        below = sums[left - 1]
        gain = below**2 / left + (sums[-1] - below) ** 2 / (len(y) - left)
        gain[values[left - 1] == values[np.minimum(left, len(y) - 1)]] = -np.inf
        i = int(np.argmax(gain))
        if gain[i] > -np.inf:
            yield feature, float(gain[i]), float((values[left[i] - 1] + values[left[i]]) / 2)
