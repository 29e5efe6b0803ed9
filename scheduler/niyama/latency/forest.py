"""A regression forest in one flat float64 array: the mean over trees of the leaf that a batch falls into.

Layout: the number of trees; the row of each tree's root; then three numbers a node, trees one after the other, each in
preorder. An inner node: feature, threshold, row of its right child; its left child is the next row, and a batch whose
feature is at most the threshold goes there. A leaf: 0, seconds, its own row. A forest is a step function: beyond what
it was fitted to it says what it says at the edge, and it need not rise with every argument.
"""

from __future__ import annotations

import numpy as np

from niyama.jit import compiled

NODE = 3
#: What a node may ask for, in this order.
FEATURES = ("total_tokens", "decodes", "decode_context", "prefill_tokens", "prefill_work", "top_prefix")


@compiled
def forest_seconds(c, batch):
    """Seconds of one batch; `c` is the forest."""
    features = (
        float(batch.decodes + batch.prefill_tokens),
        float(batch.decodes),
        float(batch.decode_context),
        float(batch.prefill_tokens),
        float(batch.prefill_work),
        float(batch.top_prefix),
    )
    trees = int(c[0])
    first, total_s = 1 + trees, 0.0
    for tree in range(trees):
        row = int(c[1 + tree])
        while True:
            at = first + NODE * row
            right = int(c[at + 2])
            if right == row:
                break
            row = row + 1 if features[int(c[at])] <= c[at + 1] else right
        total_s += c[at + 1]
    return total_s / trees


def times(c: np.ndarray) -> np.ndarray:
    """Which of the numbers are seconds (bool): the leaves' values."""
    nodes = c[1 + int(c[0]) :].reshape(-1, NODE)
    seconds = np.zeros(nodes.shape, bool)
    seconds[:, 1] = nodes[:, 2] == np.arange(len(nodes))
    return np.concatenate([np.zeros(1 + int(c[0]), bool), seconds.ravel()])


def complaint(coefficients: tuple[float, ...]) -> str | None:
    """What keeps these numbers from being a forest, None if nothing does: every walk must end, at a positive time."""
    c = np.array(coefficients, dtype=np.float64)
    trees = int(c[0]) if len(c) and float(c[0]).is_integer() else 0
    nodes = c[1 + trees :]
    if trees < 1 or len(nodes) < NODE * trees or len(nodes) % NODE:
        return f"{len(c)} numbers are no forest: give the number of trees, their roots, then three numbers a node"
    roots, (features, values, rights) = c[1 : 1 + trees], nodes.reshape(-1, NODE).T
    rows = np.arange(len(rights))
    if not np.isin(roots, rows).all() or not np.isin(rights, rows).all() or (rights < rows).any():
        return "roots and right children must be rows of nodes, a child after its parent"
    leaf = rights == rows
    if not np.isin(features[~leaf], np.arange(len(FEATURES))).all():
        return f"an inner node's feature must be 0 to {len(FEATURES) - 1}"
    if (rights[~leaf] < rows[~leaf] + 2).any() or not leaf[-1]:
        return "an inner node's left child is the next row, its right child a later one"
    return "a leaf's time must be positive" if values[leaf].min() <= 0 else None
