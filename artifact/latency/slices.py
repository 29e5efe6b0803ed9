"""Cut the kernel tables of the paper's three configurations out of an installed aiconfigurator-core.

    pip install aiconfigurator-core==0.12.0        # 80 MB, in an environment of its own
    python -m artifact.latency.slices FOLDER       # its aiconfigurator_core/systems/data

Rewrites the three files in artifact/reference/latency/kernels/. Needed only to take over newer measurements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

import pandas as pd

from artifact.latency.kernels import FOLDER
from artifact.latency.shapes import LLAMA3_8B, LLAMA3_70B, QWEN_7B, ModelShape

SHAPES = (LLAMA3_8B, QWEN_7B, LLAMA3_70B)
ENGINES = {"a100_sxm": "0.14.0", "h100_sxm": "0.24.0"}  # vLLM version of each system's tables
MAX_BATCH = 512


def _neighbours(value: int, known: Iterable[int]) -> set[int]:
    """The value when it was measured, else the measured ones on both sides."""
    below, above = [v for v in known if v <= value], [v for v in known if v >= value]
    return {max(below), min(above, default=max(below))}


def _gemm(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    table = pd.read_parquet(folder / system / "gemm" / "vllm" / ENGINES[system] / "gemm_perf.parquet")
    table = table[(table["gemm_dtype"] == "bfloat16") & (table["m"] <= 8192)]
    wanted = set()
    for shape in shapes:
        for n, k in (*shape.gemms, (shape.vocabulary // shape.gpus, shape.hidden)):
            for known_k in _neighbours(k, table["k"].unique()):
                wanted |= {(known_n, known_k) for known_n in _neighbours(n, table[table["k"] == known_k]["n"].unique())}
    rows = table[[pair in wanted for pair in zip(table["n"], table["k"], strict=True)]]
    return rows[["n", "k", "m", "latency"]].sort_values(["n", "k", "m"])


def _attention(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    parts = []
    for op, file in (("context", "context_attention_perf"), ("decode", "generation_attention_perf")):
        table = pd.read_parquet(folder / system / "attention" / "vllm" / ENGINES[system] / f"{file}.parquet")
        table = table[(table["head_dim"] == 128) & (table["kv_cache_dtype"] == "bfloat16")]
        if "window_size" in table:
            table = table[table["window_size"] == 0]
        for heads, kv_heads in {shape.own_heads for shape in shapes}:
            fold = max(1, kv_heads // 8) if op == "decode" else 1
            pair = (table["num_heads"] == heads // fold) & (table["num_key_value_heads"] == kv_heads // fold)
            rows = table[pair & (table["batch_size"] <= (1 if op == "context" else MAX_BATCH))]
            tokens = rows["isl"] if op == "context" else rows["step"] + 1
            own = {"op": op, "heads": heads // fold, "kv_heads": kv_heads // fold, "batch": rows["batch_size"]}
            parts.append(pd.DataFrame({**own, "tokens": tokens, "latency": rows["latency"]}))
    return pd.concat(parts).drop_duplicates().sort_values(["op", "heads", "kv_heads", "batch", "tokens"])


def _all_reduce(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    table = pd.read_parquet(folder / system / "comm" / "vllm" / ENGINES[system] / "custom_allreduce_perf.parquet")
    gpus = table["num_gpus"].isin([shape.gpus for shape in shapes])
    rows = table[gpus & (table["backend"] == "vllm_graph") & (table["message_size"] <= 2**28)]
    return pd.DataFrame({"gpus": rows["num_gpus"], "elements": rows["message_size"], "latency": rows["latency"]})


def cut(folder: Path, out: Path = FOLDER) -> None:
    """Write gemm.csv, attention.csv and all_reduce.csv: system, the kernel's arguments, and milliseconds."""
    out.mkdir(parents=True, exist_ok=True)
    for name, part in (("gemm", _gemm), ("attention", _attention), ("all_reduce", _all_reduce)):
        tables = []
        for system in ENGINES:
            own = part(folder, system, [shape for shape in SHAPES if shape.gpu.system == system])
            tables.append(own.rename(columns={"latency": "ms"}).assign(system=system))
        joined = pd.concat(tables)
        columns = ["system", *(c for c in joined.columns if c != "system")]
        joined[columns].to_csv(out / f"{name}.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    cut(Path(sys.argv[1]))
