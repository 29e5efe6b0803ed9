"""A step's time from measured kernels: matrix products, attention and all-reduce, summed over a model's layers.

The tables in `reference/latency/kernels/` are slices of those in NVIDIA's aiconfigurator-core (see `slices`). What they
lack is computed and said: products of a shape that was not measured are interpolated, elementwise kernels are
counted by their bytes, and there is no engine around the kernels. Products of FP8 weights outside of experts and latent
attention are taken from the bf16 table: the FP8 rows below 8,000 tokens are how long a launch takes, not the GPU.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from artifact.latency.shapes import Experts, ModelShape

FOLDER = Path(__file__).parents[1] / "reference" / "latency" / "kernels"
# Elementwise kernels of a layer: two norms with residual, rotary embedding, KV write, gated activation. aiconfigurator
# counts them so too.
ELEMENTWISE_KERNELS = 5
ELEMENTWISE_BANDWIDTH_SHARE = 0.8
ELEMENTWISE_LAUNCH_S = 3e-6
#: Up to so many tokens vLLM runs the shared expert on a stream of its own, beside the others.
SIDE_BY_SIDE_TOKENS = 256
MS = 1e-3


class Kernels:
    """The measured kernels of one model on its GPUs; times in seconds, of one kernel on every GPU at once."""

    def __init__(self, shape: ModelShape, folder: Path = FOLDER) -> None:
        self.shape = shape
        system, (heads, kv_heads) = shape.gpu.system, shape.own_heads
        gemm, reduce = (_rows(folder, name, system) for name in ("gemm", "all_reduce"))
        self._gemm = {key: _curve(rows, "m") for key, rows in gemm.groupby(["n", "k"])}
        # Decode attention was measured up to 8 KV heads; 16 are twice as many sequences of 8: the same KV and work.
        self._fold = max(1, kv_heads // 8) if shape.latent is None else 1
        if shape.latent is None:
            parts = {(op, w): self._attention(folder, op, w) for op in ("context", "decode") for w in {0, shape.window}}
        else:
            table = _rows(folder, "latent_attention", system)
            own = table[table["heads"] == heads]
            parts = {(op, 0): own[own["op"] == op] for op in ("context", "decode")}
        self._context = {w: _curve(rows, "tokens") for (op, w), rows in parts.items() if op == "context"}
        self._decode = {
            w: {int(s): _curve(own, "batch") for s, own in rows.groupby("tokens")}
            for (op, w), rows in parts.items()
            if op == "decode"
        }
        self._reduce = _curve(reduce[reduce["gpus"] == shape.gpus], "elements") if shape.gpus > 1 else None
        e = shape.experts
        self._experts = None if e is None else _curve(self._rows_of_experts(folder, e), "tokens")

    def _attention(self, folder: Path, op: str, window: int) -> pd.DataFrame:
        """The rows of one kind of plain attention, with this window or, for 0, none."""
        table, fold = _rows(folder, "attention", self.shape.gpu.system), self._fold if op == "decode" else 1
        heads, kv_heads = (count // fold for count in self.shape.own_heads)
        kind = (table["op"] == op) & (table["heads"] == heads) & (table["kv_heads"] == kv_heads)
        return table[kind & (table["head_size"] == self.shape.head_size) & (table["window"] == window)]

    def _rows_of_experts(self, folder: Path, e: Experts) -> pd.DataFrame:
        """The rows of the shape's mixture of experts."""
        shape, table = self.shape, _rows(folder, "experts", self.shape.gpu.system)
        kind = (table["experts"] == e.count) & (table["chosen"] == e.chosen) & (table["stored"] == e.stored)
        kind &= (table["inner"] == e.inner) & (table["hidden"] == shape.hidden) & (table["gpus"] == shape.gpus)
        return table[kind]

    def gemm(self, m: float, n: int, k: int) -> float:
        """[m, k] x [k, n]: between the measured n, and k, by straight lines; beyond the largest n in proportion."""
        by_k = [(k_known, self._between_n(m, n, k_known)) for k_known in _around(k, {key[1] for key in self._gemm})]
        return float(np.interp(k, *zip(*by_k, strict=True)))

    def _between_n(self, m: float, n: int, k: int) -> float:
        around = _around(n, {key[0] for key in self._gemm if key[1] == k})
        times = [_at(self._gemm[known, k], m) for known in around]
        return times[-1] * n / around[-1] if n > around[-1] else float(np.interp(n, around, times))

    def chunk_attention(self, tokens: int, prefix: int, window: int = 0) -> float:
        """A prompt's chunk behind its prefix: its share of the attention of prefix and chunk, by pairs of tokens.

        Too little for small chunks, which leave a GPU partly idle; at least that of the chunk alone, and no more in a
        layer with a window. Latent attention was measured with its products: what the chunk adds to its prefix.
        """
        if tokens == 0:
            return 0.0
        curve, whole = self._context[window], prefix + tokens
        alone = _at(curve, tokens)
        if window or prefix == 0:
            return alone
        if self.shape.latent is not None:
            return max(_at(curve, whole) - _at(curve, prefix), alone)
        return max((1.0 - (prefix / whole) ** 2) * _at(curve, whole), alone)

    def decode_attention(self, decodes: int, context: float, window: int = 0) -> float:
        """`decodes` requests of `context` tokens each."""
        if decodes == 0:
            return 0.0
        curves = self._decode[window]
        around = _around(context, sorted(curves))
        times = [_at(curves[s], decodes * self._fold) for s in around]
        return times[-1] * context / around[-1] if context > around[-1] else float(np.interp(context, around, times))

    def all_reduce(self, tokens: float) -> float:
        """The activations of `tokens` tokens, summed over the GPUs."""
        return 0.0 if self._reduce is None else _at(self._reduce, tokens * self.shape.hidden)

    def elementwise(self, tokens: float, inner: int) -> float:
        """All elementwise kernels of a layer, by the bytes they move: computed, not measured. inner: width of its MLP.

        Those of experts and of latent attention were measured with them.
        """
        shape, (heads, kv_heads) = self.shape, self.shape.own_heads
        rotary, cache_write = 2 * (heads + kv_heads) * shape.head_size, 4 * kv_heads * shape.head_size
        attention = 0 if shape.latent is not None else rotary + cache_write
        norms = 8 * shape.hidden
        moved = 2 * tokens * (norms + attention + 3 * inner / shape.gpus)
        return ELEMENTWISE_KERNELS * ELEMENTWISE_LAUNCH_S + moved / (
            ELEMENTWISE_BANDWIDTH_SHARE * shape.gpu.peak_bytes_per_s
        )

    def step(self, prefill: int, prefix: int, decodes: int, context: float) -> float:
        """Seconds of all kernels of one step; context: tokens of KV of each decode. One chunk, its logits included."""
        shape, e, tokens = self.shape, self.shape.experts, prefill + decodes
        kinds = [
            self.chunk_attention(prefill, prefix, window) + self.decode_attention(decodes, context, window)
            for window in {0, shape.window}
        ]
        attention = sum(kinds) / len(kinds)  # half of the layers have a window, or none has
        dense = shape.layers if e is None else e.dense_layers
        layers = dense * (self._mlp(tokens) + attention) if dense else 0.0
        if e is not None:
            layers += (shape.layers - dense) * (self._mixture(tokens, e) + attention)
        return layers + self.gemm(decodes + (prefill > 0), shape.vocabulary // shape.gpus, shape.hidden)

    def _mlp(self, tokens: int) -> float:
        """A layer with an MLP, without its attention."""
        products = self.gemm_sum(tokens, (*self._projections, *self.shape.mlp_gemms(self.shape.inner)))
        return products + self.elementwise(tokens, self.shape.inner) + 2 * self.all_reduce(tokens)

    def _mixture(self, tokens: int, e: Experts) -> float:
        """A layer with experts, without its attention. Small steps run the shared one while the others run."""
        assert self._experts is not None
        chosen = _at(self._experts, tokens)
        shared = self.gemm_sum(tokens, self.shape.mlp_gemms(e.shared)) if e.shared else 0.0
        mixture = max(chosen, shared) if tokens <= SIDE_BY_SIDE_TOKENS else chosen + shared
        products = self.gemm_sum(tokens, (*self._projections, (e.count, self.shape.hidden)))
        return products + mixture + self.elementwise(tokens, e.shared) + 2 * self.all_reduce(tokens)

    @property
    def _projections(self) -> tuple[tuple[int, int], ...]:
        """Products of a layer's attention that were not measured with it."""
        return () if self.shape.latent is not None else self.shape.attention_gemms

    def gemm_sum(self, tokens: int, shapes: Iterable[tuple[int, int]]) -> float:
        """Products of all tokens by matrices of these (n, k)."""
        return sum(self.gemm(tokens, n, k) for n, k in shapes)


@cache
def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def _rows(folder: Path, name: str, system: str) -> pd.DataFrame:
    table = _table(folder / f"{name}.csv")
    return table[table["system"] == system]


def _curve(rows: pd.DataFrame, column: str) -> tuple[np.ndarray, np.ndarray]:
    """Arguments and seconds, by rising argument. ValueError when nothing was measured."""
    if rows.empty:
        raise ValueError(f"kernel tables: no row by {column} fits this model; cut them with artifact.latency.slices")
    rows = rows.sort_values(column)
    return rows[column].to_numpy(float), rows["ms"].to_numpy(float) * MS


def _at(curve: tuple[np.ndarray, np.ndarray], x: float) -> float:
    """On straight lines between what was measured; beyond it in proportion."""
    xs, seconds = curve
    return float(seconds[-1] * x / xs[-1] if x > xs[-1] else np.interp(x, xs, seconds))


def _around(x: float, known: set[int] | list[int]) -> list[int]:
    """The known values on both sides of x, or the one that is x or nearest."""
    values = sorted(known)
    right = bisect_right(values, x)
    if right == 0 or right == len(values) or values[right - 1] == x:
        return [values[max(0, right - 1)]]
    return values[right - 1 : right + 1]
