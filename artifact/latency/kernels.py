"""A step's time from measured kernels: matrix products, attention and all-reduce, summed over a model's layers.

The tables in `reference/latency/kernels/` are slices of those in NVIDIA's aiconfigurator-core (see `slices`). What they
lack is computed and said: products of a shape that was not measured are interpolated, elementwise kernels are
counted by their bytes, and there is no engine around the kernels.
"""

from __future__ import annotations

from bisect import bisect_right
from functools import cache
from pathlib import Path

import numpy as np
import pandas as pd

from artifact.latency.shapes import ModelShape

FOLDER = Path(__file__).parents[1] / "reference" / "latency" / "kernels"
# Elementwise kernels of a layer: two norms with residual, rotary embedding, KV write, gated activation. aiconfigurator
# counts them so too.
ELEMENTWISE_KERNELS = 5
ELEMENTWISE_BANDWIDTH_SHARE = 0.8
ELEMENTWISE_LAUNCH_S = 3e-6
MS = 1e-3


class Kernels:
    """The measured kernels of one model on its GPUs; times in seconds, of one kernel on every GPU at once."""

    def __init__(self, shape: ModelShape, folder: Path = FOLDER) -> None:
        self.shape = shape
        system, (heads, kv_heads) = shape.gpu.system, shape.own_heads
        gemm, attention, reduce = (_rows(folder, name, system) for name in ("gemm", "attention", "all_reduce"))
        self._gemm = {key: _curve(rows, "m") for key, rows in gemm.groupby(["n", "k"])}
        context = attention[(attention["op"] == "context") & _of(attention, heads, kv_heads)]
        self._context = _curve(context, "tokens")
        # Decode attention was measured up to 8 KV heads; 16 are twice as many sequences of 8: the same KV and work.
        self._fold = max(1, kv_heads // 8)
        folded = _of(attention, heads // self._fold, kv_heads // self._fold)
        decode = attention[(attention["op"] == "decode") & folded]
        self._decode = {int(s): _curve(rows, "batch") for s, rows in decode.groupby("tokens")}
        self._reduce = _curve(reduce[reduce["gpus"] == shape.gpus], "elements") if shape.gpus > 1 else None

    def gemm(self, m: float, n: int, k: int) -> float:
        """[m, k] x [k, n]: between the measured n, and k, by straight lines; beyond the largest n in proportion."""
        by_k = [(k_known, self._between_n(m, n, k_known)) for k_known in _around(k, {key[1] for key in self._gemm})]
        return float(np.interp(k, *zip(*by_k, strict=True)))

    def _between_n(self, m: float, n: int, k: int) -> float:
        around = _around(n, {key[0] for key in self._gemm if key[1] == k})
        times = [_at(self._gemm[known, k], m) for known in around]
        return times[-1] * n / around[-1] if n > around[-1] else float(np.interp(n, around, times))

    def chunk_attention(self, tokens: int, prefix: int) -> float:
        """A prompt's chunk behind its prefix: its share of the attention of prefix and chunk, by pairs of tokens.

        Too little for small chunks, which leave a GPU partly idle; at least that of the chunk alone.
        """
        if tokens == 0:
            return 0.0
        whole = prefix + tokens
        share = 1.0 - (prefix / whole) ** 2
        return max(share * _at(self._context, whole), _at(self._context, tokens))

    def decode_attention(self, decodes: int, context: float) -> float:
        """`decodes` requests of `context` tokens each."""
        if decodes == 0:
            return 0.0
        known = sorted(self._decode)
        around = _around(context, known)
        times = [_at(self._decode[s], decodes * self._fold) for s in around]
        return times[-1] * context / around[-1] if context > around[-1] else float(np.interp(context, around, times))

    def all_reduce(self, tokens: float) -> float:
        """The activations of `tokens` tokens, summed over the GPUs."""
        return 0.0 if self._reduce is None else _at(self._reduce, tokens * self.shape.hidden)

    def elementwise(self, tokens: float) -> float:
        """All elementwise kernels of a layer, by the bytes they move: computed, not measured."""
        shape, (heads, kv_heads) = self.shape, self.shape.own_heads
        norms, rotary, cache_write = 8 * shape.hidden, 2 * (heads + kv_heads) * 128, 4 * kv_heads * 128
        moved = 2 * tokens * (norms + rotary + cache_write + 3 * shape.inner / shape.gpus)
        return ELEMENTWISE_KERNELS * ELEMENTWISE_LAUNCH_S + moved / (
            ELEMENTWISE_BANDWIDTH_SHARE * shape.gpu.peak_bytes_per_s
        )

    def step(self, prefill: int, prefix: int, decodes: int, context: float) -> float:
        """Seconds of all kernels of one step; context: tokens of KV of each decode. One chunk, its logits included."""
        shape, tokens = self.shape, prefill + decodes
        layer = sum(self.gemm(tokens, n, k) for n, k in shape.gemms) + self.elementwise(tokens)
        layer += 2 * self.all_reduce(tokens)
        layer += self.chunk_attention(prefill, prefix) + self.decode_attention(decodes, context)
        return shape.layers * layer + self.gemm(decodes + (prefill > 0), shape.vocabulary // shape.gpus, shape.hidden)


@cache
def _table(path: Path) -> pd.DataFrame:
    return pd.read_csv(path)


def _rows(folder: Path, name: str, system: str) -> pd.DataFrame:
    table = _table(folder / f"{name}.csv")
    return table[table["system"] == system]


def _of(attention: pd.DataFrame, heads: int, kv_heads: int) -> pd.Series:
    return (attention["heads"] == heads) & (attention["kv_heads"] == kv_heads)


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
