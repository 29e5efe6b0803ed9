"""Cut the kernel tables of our configurations out of an installed aiconfigurator-core.

    pip install aiconfigurator-core==0.12.0        # 80 MB, in an environment of its own
    python -m artifact.latency.slices FOLDER       # its aiconfigurator_core/systems/data

Rewrites the five files in artifact/reference/latency/kernels/. Needed only to take over newer measurements.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path

import pandas as pd

from artifact.latency.kernels import FOLDER
from artifact.latency.published import NAMES, VLLM
from artifact.latency.shapes import GPT_OSS_120B, QWEN3_8B, ModelShape

#: QWEN3_8B and one GPU with gpt-oss are for comparison with engines only.
SHAPES = (*NAMES.values(), QWEN3_8B, replace(GPT_OSS_120B, gpus=1))
MAX_BATCH = 512
ROUTING = "power_law_1.01"  # how tokens choose experts; of the three that were measured, the middle one


def _neighbours(value: int, known: Iterable[int]) -> set[int]:
    """The value when it was measured, else the measured ones on both sides."""
    below, above = [v for v in known if v <= value], [v for v in known if v >= value]
    return {max(below), min(above, default=max(below))}


def _gemm(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    table = pd.read_parquet(folder / system / "gemm" / "vllm" / VLLM[system] / "gemm_perf.parquet")
    table = table[(table["gemm_dtype"] == "bfloat16") & (table["m"] <= 8192)]
    wanted = set()
    for shape in shapes:
        for n, k in shape.products:
            for known_k in _neighbours(k, table["k"].unique()):
                wanted |= {(known_n, known_k) for known_n in _neighbours(n, table[table["k"] == known_k]["n"].unique())}
    rows = table[[pair in wanted for pair in zip(table["n"], table["k"], strict=True)]]
    return rows[["n", "k", "m", "latency"]].sort_values(["n", "k", "m"])


def _attention(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    parts = []
    for op, file in (("context", "context_attention_perf"), ("decode", "generation_attention_perf")):
        table = pd.read_parquet(folder / system / "attention" / "vllm" / VLLM[system] / f"{file}.parquet")
        table = table[table["kv_cache_dtype"] == "bfloat16"]
        table = table.assign(window=table["window_size"] if "window_size" in table else 0)
        for heads, kv_heads, size, window in _kinds(shapes):
            fold = max(1, kv_heads // 8) if op == "decode" else 1
            kind = (table["num_heads"] == heads // fold) & (table["num_key_value_heads"] == kv_heads // fold)
            kind &= (table["head_dim"] == size) & (table["window"] == window)
            rows = table[kind & (table["batch_size"] <= (1 if op == "context" else MAX_BATCH))]
            tokens = rows["isl"] if op == "context" else rows["step"] + 1
            own = {"op": op, "heads": heads // fold, "kv_heads": kv_heads // fold, "head_size": size, "window": window}
            own |= {"batch": rows["batch_size"], "tokens": tokens, "latency": rows["latency"]}
            parts.append(pd.DataFrame(own))
    keys = ["op", "heads", "kv_heads", "head_size", "window", "batch", "tokens"]
    return pd.concat(parts).drop_duplicates().sort_values(keys)


def _kinds(shapes: list[ModelShape]) -> set[tuple[int, int, int, int]]:
    """(heads, KV heads, head's size, window) of all layers with plain attention; a model with a window has both."""
    plain = [shape for shape in shapes if shape.latent is None]
    return {(*shape.own_heads, shape.head_size, window) for shape in plain for window in {0, shape.window}}


def _all_reduce(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    table = pd.read_parquet(folder / system / "comm" / "vllm" / VLLM[system] / "custom_allreduce_perf.parquet")
    gpus = table["num_gpus"].isin([shape.gpus for shape in shapes])
    rows = table[gpus & (table["backend"] == "vllm_graph") & (table["message_size"] <= 2**28)]
    return pd.DataFrame({"gpus": rows["num_gpus"], "elements": rows["message_size"], "latency": rows["latency"]})


def _experts(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    mixtures = {(s.experts, s.hidden, s.gpus) for s in shapes if s.experts is not None}
    if not mixtures:
        return pd.DataFrame()
    table = pd.read_parquet(folder / system / "moe" / "vllm" / VLLM[system] / "moe_perf.parquet")
    table, parts = table[(table["distribution"] == ROUTING) & (table["moe_ep_size"] == 1)], []
    for e, hidden, gpus in sorted(mixtures, key=lambda m: (m[0].count, m[2])):
        kind = (table["moe_dtype"] == e.stored) & (table["hidden_size"] == hidden) & (table["inter_size"] == e.inner)
        kind &= (table["topk"] == e.chosen) & (table["num_experts"] == e.count) & (table["moe_tp_size"] == gpus)
        own = {"experts": e.count, "chosen": e.chosen, "hidden": hidden, "inner": e.inner, "stored": e.stored}
        rows = table[kind]
        own |= {"gpus": gpus, "tokens": rows["num_tokens"], "latency": rows["latency"]}
        parts.append(pd.DataFrame(own).sort_values("tokens"))
    return pd.concat(parts)


def _latent(folder: Path, system: str, shapes: list[ModelShape]) -> pd.DataFrame:
    """Attention with all its products, as one: what DeepSeek-V3's took, by heads of one GPU."""
    parts = []
    for heads, stored in sorted({(s.own_heads[0], s.experts.stored) for s in shapes if s.latent and s.experts}):
        for op, file in (("context", "mla_context_module_perf"), ("decode", "mla_generation_module_perf")):
            table = pd.read_parquet(folder / system / "mla" / "vllm" / VLLM[system] / f"{file}.parquet")
            kind = (table["num_heads"] == heads) & (table["gemm_type"] == stored)
            kind &= (table["kv_cache_dtype"] == "bfloat16") & (table["model"] == "deepseek-ai/DeepSeek-V3")
            rows = table[kind & (table["batch_size"] <= (1 if op == "context" else MAX_BATCH))]
            own = {"op": op, "heads": heads, "batch": rows["batch_size"]}
            own |= {"tokens": rows["isl" if op == "context" else "step"], "latency": rows["latency"]}
            parts.append(pd.DataFrame(own).sort_values(["batch", "tokens"]))
    return pd.concat(parts) if parts else pd.DataFrame()


TABLES = {
    "gemm": _gemm,
    "attention": _attention,
    "all_reduce": _all_reduce,
    "experts": _experts,
    "latent_attention": _latent,
}


def cut(folder: Path, out: Path = FOLDER) -> None:
    """Write a file for each of TABLES: system, the kernel's arguments, and milliseconds."""
    out.mkdir(parents=True, exist_ok=True)
    for name, part in TABLES.items():
        tables = []
        for system in VLLM:
            own = part(folder, system, [shape for shape in SHAPES if shape.gpu.system == system])
            tables.append(own.rename(columns={"latency": "ms"}).assign(system=system))
        joined = pd.concat(table for table in tables if "ms" in table)
        columns = ["system", *(c for c in joined.columns if c != "system")]
        joined[columns].to_csv(out / f"{name}.csv", index=False, float_format="%.6g")


if __name__ == "__main__":
    cut(Path(sys.argv[1]))
