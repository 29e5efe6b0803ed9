"""The cards made from published kernel measurements: the paper's three configurations, and others.

    python -m artifact.latency.published        # rewrites the cards and artifact/reference/latency/published.json
    python -m artifact.latency.published NAME   # only the cards whose names start so

No engine was measured for most. The cards are monotone: `-kernels`, what the kernels alone
take, which no engine beats; `-engine`, the same times the factor, plus the offset, that lead from the kernels of
Llama-3-8B on one A100 to the authors' linear model of their engine there; and, where the kernels are today's vLLM's,
`-vllm`, by the map that leads from the kernels of Qwen3-8B on one H100 to vLLM's steps there (`vllm_steps`). That an
engine costs the same elsewhere is an assumption; how the results then compare with the paper's, and with what others
measured, is the check. As vLLM takes 1.01 times its kernels there, only the paper's configurations have a `-kernels`.
"""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import lsq_linear

from artifact.latency.cards import make_card, write_card
from artifact.latency.cross_validation import by_region, predict, summary
from artifact.latency.kernels import Kernels
from artifact.latency.profile import Profile, kernel_rows, profile_of
from artifact.latency.shapes import (
    DEEPSEEK_V3,
    GPT_OSS_120B,
    H100,
    H200,
    LLAMA3_8B,
    LLAMA3_70B,
    QWEN3_32B,
    QWEN_7B,
    ModelShape,
)
from artifact.latency.vllm_steps import ENGINE, SILYBENCH, EngineMap
from artifact.latency.vllm_steps import comparisons as engine_comparisons
from artifact.latency.vllm_steps import engine_map as vllm_map
from artifact.results import tables
from niyama.latency import ModelCard, load_card
from niyama.latency.cards import FOLDER, KERNELS

AUTHORS = "a100-llama3-8b-linear"
PAPER = {"a100-llama3-8b": LLAMA3_8B, "a100-tp2-qwen-7b": QWEN_7B, "h100-tp4-llama3-70b": LLAMA3_70B}
NAMES = {
    **PAPER,
    "h100-llama3-8b": replace(LLAMA3_8B, gpu=H100),
    "h200-llama3-8b": replace(LLAMA3_8B, gpu=H200),
    "h200-tp4-llama3-70b": replace(LLAMA3_70B, gpu=H200),
    "h100-tp2-qwen3-32b": QWEN3_32B,
    "h100-tp2-gpt-oss-120b": GPT_OSS_120B,
    "h200-gpt-oss-120b": replace(GPT_OSS_120B, gpu=H200, gpus=1),
    "h200-tp8-deepseek-v3": DEEPSEEK_V3,
}
#: Version of vLLM whose kernels each system's tables have; those of TODAY are about as fast as in `vllm_steps`.
VLLM = {"a100_sxm": "0.14.0", "h100_sxm": "0.24.0", "h200_sxm": "0.24.0"}
TODAY = ("h100_sxm", "h200_sxm")
REPORT = Path(__file__).parents[1] / "reference" / "latency" / "published.json"
KIND = "monotone"

# Others' answers for the same step, in ms: (card, decodes, context of each, prefill tokens, ms, what is in it).
AICONFIGURATOR = "aiconfigurator 0.12, its own composition of the same kernel tables"
VIDUR = "Vidur's profile, linear and elementwise layers (and all-reduce under TP) only, of an older engine"
_STEPS = ((0, 0, 512), (0, 0, 2048), (1, 2048, 0), (64, 2048, 0), (256, 2048, 0))
_AICONFIGURATOR_MS = {
    "a100-llama3-8b": (36.0, 125.2, 12.0, 23.1, 63.0),
    "h100-tp4-llama3-70b": (37.3, 130.2, 15.0, 20.7, 37.2),
    "h100-llama3-8b": (12.0, 43.5, 6.2, 12.6, 30.7),
    "h200-llama3-8b": (11.5, 43.4, 4.9, 9.5, 23.5),
    "h200-tp4-llama3-70b": (35.5, 127.8, 12.4, 16.4, 31.2),
}
OTHERS = (
    *((n, *s, ms, AICONFIGURATOR) for n, own in _AICONFIGURATOR_MS.items() for s, ms in zip(_STEPS, own, strict=True)),
    ("a100-llama3-8b", 0, 0, 512, 34.6, VIDUR),
    ("a100-llama3-8b", 0, 0, 2048, 143.7, VIDUR),
    ("h100-tp4-llama3-70b", 0, 0, 512, 39.9, VIDUR),
    ("h100-tp4-llama3-70b", 0, 0, 2048, 138.8, VIDUR),
)

# Attention of a chunk behind a prefix, of 32 heads on one A100 (tokens, prefix, ms of one layer, mean): Vidur's
# data/profiling/a100/attention.csv at e2d00e9 (Llama-2-70B split over two GPUs, FlashAttention of early 2024).
VIDUR_CHUNKS = ((704, 0, 0.1208), (672, 1024, 0.1944), (672, 2048, 0.2762), (672, 3072, 0.3554), (672, 3392, 0.3832))


def chunk_comparisons() -> list[dict[str, float]]:
    """Our attention of a chunk, with the 32 heads of Llama-3-8B, to compare with VIDUR_CHUNKS; ms of one layer."""
    kernels, rows = Kernels(LLAMA3_8B), []
    for tokens, prefix, theirs_ms in VIDUR_CHUNKS:
        ours_ms = 1e3 * kernels.chunk_attention(tokens, prefix)
        row = {"tokens": tokens, "prefix_tokens": prefix, "theirs_ms": theirs_ms, "ours_ms": ours_ms}
        rows.append({**row, "ours_over_theirs": ours_ms / theirs_ms})
    return rows


def engine_map(profile: Profile) -> tuple[float, float, np.ndarray]:
    """(factor, offset_s) from kernels to the authors' model, with the least squared relative error; and the ratios."""
    engine_s = predict(load_card(AUTHORS).build(), profile, np.arange(len(profile.seconds)))
    columns = np.column_stack([profile.seconds, np.ones_like(engine_s)]) / engine_s[:, None]
    factor, offset_s = (float(f"{x:.5g}") for x in lsq_linear(columns, np.ones_like(engine_s), (0, np.inf)).x)
    return factor, offset_s, (factor * profile.seconds + offset_s) / engine_s


def comparisons() -> list[dict[str, Any]]:
    """Our kernel times for comparison with OTHERS, in ms."""
    kernels = {name: Kernels(shape) for name, shape in NAMES.items()}
    rows = []
    for name, decodes, context, prefill, theirs_ms, source in OTHERS:
        ours_ms = 1e3 * kernels[name].step(prefill, 0, decodes, context)
        row = {"model": name, "decodes": decodes, "context_tokens": context, "prefill_tokens": prefill}
        rows.append(
            {
                **row,
                "theirs_ms": theirs_ms,
                "ours_ms": ours_ms,
                "ours_over_theirs": ours_ms / theirs_ms,
                "source": source,
            }
        )
    return rows


def facts(shape: ModelShape) -> dict[str, Any]:
    """What the cards of a configuration say of hardware, model, engine, KV and source."""
    version, computed = VLLM[shape.gpu.system], "elementwise computed"
    if shape.experts is not None:
        computed += ", tokens choose experts by a power law of 1.01"
    if shape.latent is not None:
        computed += ", products outside of experts and attention as in bf16, KV of a prefix unpacked for nothing"
    return {
        "hardware": shape.hardware,
        "model": shape.name,
        "kv_tokens": shape.kv_tokens,
        "engine": f"kernels of vLLM {version}, no engine",
        "source": f"sums of kernels measured on {shape.gpu.name} with vLLM {version} (NVIDIA aiconfigurator "
        f"0.12.0, Apache-2.0: artifact/reference/latency/kernels), {computed}; artifact.latency.published; "
        + shape.kv_arithmetic,
        "basis": KERNELS,
    }


def kernel_card(name: str, shape: ModelShape, profile: Profile) -> tuple[ModelCard, dict[str, Any]]:
    """What the kernels take."""
    own = [row["ours_over_theirs"] for row in comparisons() if row["model"] == name and row["source"] == AICONFIGURATOR]
    checked = f"within {max(abs(r - 1) for r in own):.0%} of aiconfigurator's own sums" if own else "not cross-checked"
    error = f"No engine was measured: a lower bound; the sums are {checked}. A chunk behind a prefix has its "
    error += "share of the whole prompt's attention: too little for small chunks."
    card, found = make_card(f"{name}-kernels", KIND, profile, error=error, **facts(shape))
    return card, by_region(found, profile)


Rows = list[dict[str, Any]]


def engine_card(
    name: str, shape: ModelShape, profile: Profile, factor: float, offset_s: float, apart: float, measured: Rows
) -> ModelCard:
    """The kernels' times, mapped to the authors' engine. measured: rows of `vllm_steps.comparisons`."""
    mapped = replace(profile, seconds=factor * profile.seconds + offset_s)
    about, formula = facts(shape), f"{factor:g} x kernels + {1e3 * offset_s:.3g} ms"
    about["engine"] = f"{formula}: as the authors' engine on one A100 with Llama-3-8B; " + about["engine"]
    where = (
        "the very model mapped to"
        if shape is LLAMA3_8B
        else "assumed to cost the same here, not measured: error unknown"
    )
    if shape.gpu.system in TODAY:
        ratios = [row["authors_over_theirs"] for row in measured if row["engine"] == ENGINE]
        where += f"; {min(ratios):.1f} to {max(ratios):.1f} times what {ENGINE} takes on one H100 with Qwen3-8B"
    error = f"The map is {apart:.1%} off {AUTHORS} (mean absolute), {where}."
    return make_card(f"{name}-engine", KIND, mapped, error=error, **about)[0]


def vllm_card(name: str, shape: ModelShape, profile: Profile, found: EngineMap, measured: Rows) -> ModelCard:
    """The kernels' times, mapped to today's vLLM. measured: rows of `vllm_steps.comparisons`."""
    mapped = replace(profile, seconds=found(profile.seconds))
    about, formula = facts(shape), f"{found.factor:g} x kernels + {1e3 * found.offset_s:.3g} ms"
    about["engine"] = f"{formula}: as {ENGINE} on one H100 with Qwen3-8B; " + about["engine"]
    about["source"] += f"; steps of {ENGINE}: {SILYBENCH}"
    error = f"The map is {found.mean_abs:.1%} off measured steps of {ENGINE} (Qwen3-8B, one H100; mean absolute, each "
    error += "left out of the map in turn), assumed to cost the same here"
    own = [row for row in measured if _of(row, shape)]
    for row in own:
        error += f"; {row['ours_ms']:.3g} ms where {row['milliseconds']:.3g} were measured "
        error += f"({row['what']}; {row['engine']}; {row['source']})"
    error += "." if own else ", not measured: error unknown."
    return make_card(f"{name}-vllm", KIND, mapped, error=error, **about)[0]


def _of(row: dict[str, Any], shape: ModelShape) -> bool:
    """Whether the comparison is of this configuration, itself."""
    return (row["model"], row["hardware"], row["scale"]) == (shape.name, shape.hardware, 1.0)


def main(cards: Path = FOLDER, report: Path | None = REPORT, start: str = "") -> None:
    """Write the cards whose names start so, and the report, which has all."""
    profiles = {name: profile_of(kernel_rows(shape), {}) for name, shape in NAMES.items() if name.startswith(start)}
    authors = profile_of(kernel_rows(LLAMA3_8B), {})
    factor, offset_s, ratio = engine_map(authors)
    apart, errors, today = summary(ratio), {}, vllm_map()
    measured = engine_comparisons(factor, offset_s)
    for name, profile in profiles.items():
        shape = NAMES[name]
        if name in PAPER:
            card, errors[card.name] = kernel_card(name, shape, profile)
            write_card(card, cards)
        write_card(engine_card(name, shape, profile, factor, offset_s, apart["mean_abs"], measured), cards)
        if shape.gpu.system in TODAY:
            write_card(vllm_card(name, shape, profile, today, measured), cards)
    if report is None:
        return
    regions = {region: summary(ratio[rows]) for region, rows in authors.regions().items()}
    left_out = summary(today.left_out + 1.0)
    found = {
        "written_by": "python -m artifact.latency.published",
        "engine_map": {"factor": factor, "offset_s": offset_s, "to": AUTHORS, "relative_error": regions},
        "vllm_map": {"factor": today.factor, "offset_s": today.offset_s, "to": ENGINE, "relative_error": left_out},
        "cross_validated_error": errors,
        "beside_others": comparisons(),
        "beside_engines": measured,
        "chunk_attention_beside_vidur": chunk_comparisons(),
    }
    tables.write_text(report, json.dumps(_rounded(found), indent=1) + "\n")


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_rounded(item) for item in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value


if __name__ == "__main__":
    main(start=sys.argv[1], report=None) if sys.argv[1:] else main()
