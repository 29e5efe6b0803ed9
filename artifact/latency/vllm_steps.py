"""Steps of today's vLLM that others measured and published: what leads from kernels to them, and how far it is off.

The map is fitted to Qwen3-8B on one H100 alone, whose kernels are tabled; everything else is for comparison.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from scipy.optimize import lsq_linear

from artifact.latency.kernels import Kernels
from artifact.latency.shapes import (
    DEEPSEEK_V3,
    GPT_OSS_120B,
    H100,
    H200,
    LLAMA3_8B,
    LLAMA3_70B,
    QWEN3_8B,
    ModelShape,
)

#: vLLM 0.30.0, Qwen3-8B in bf16 on an H100 SXM of GCP, `vllm bench serve`, three repeats.
SILYBENCH = "github.com/tgarg01/silybench-data at 93e4887, derived/csv/perf_points.csv, run 20260924T125045Z"
ENGINE = "vLLM 0.30.0"
GPUSTACK_OSS = "github.com/gpustack/gpustack at 72aee9d, docs/performance-lab/gpt-oss-120b/h100.md"
GPUSTACK_R1 = "github.com/gpustack/gpustack at a5c9faf, docs/performance-lab/deepseek-r1/h200.md"
LLM_D = "github.com/llm-d/llm-d-batch-gateway, issue 491"


class Step(NamedTuple):
    """One kind of step, and its milliseconds: decodes, their context each, and one chunk of a prompt."""

    decodes: int
    context: int
    prefill: int
    milliseconds: float
    what: str


#: Decodes at the middle of 1,024 output tokens behind 128; and a prompt of 8,192 tokens filling vLLM's step of 8,192.
MEASURED = (
    Step(1, 640, 0, 6.858, "median ITL, concurrency 1, 128 in, 1,024 out"),
    Step(4, 640, 0, 7.009, "median ITL, concurrency 4"),
    Step(16, 640, 0, 7.530, "median ITL, concurrency 16"),
    Step(32, 640, 0, 8.110, "median ITL, concurrency 32"),
    Step(64, 640, 0, 9.494, "median ITL, concurrency 64"),
    Step(128, 640, 0, 12.004, "median ITL, concurrency 128"),
    Step(256, 640, 0, 18.084, "median ITL, concurrency 256"),
    Step(1, 8448, 0, 7.301, "median ITL, concurrency 1, 8,192 in, 512 out"),
    Step(4, 8448, 0, 8.617, "median ITL, concurrency 4, 8,192 in"),
    Step(10, 8448, 0, 11.779, "median ITL, concurrency 10, 8,192 in"),
    Step(42, 8448, 8150, 232.968, "p95 of ITL, concurrency 64, 8,192 in: a full step"),
)


@dataclass(frozen=True)
class EngineMap:
    """seconds = factor x kernels + offset_s. left_out: each measured step's relative error by the map of the others."""

    factor: float
    offset_s: float
    left_out: np.ndarray

    @property
    def mean_abs(self) -> float:
        """Size of that error."""
        return float(np.abs(self.left_out).mean())

    def __call__(self, kernels_s: Any) -> Any:
        return self.factor * kernels_s + self.offset_s


def kernel_seconds(shape: ModelShape, steps: Iterable[Step]) -> np.ndarray:
    """What the kernels of these steps take."""
    kernels = Kernels(shape)
    return np.array([kernels.step(s.prefill, 0, s.decodes, s.context) for s in steps])


def engine_map() -> EngineMap:
    """From kernels to vLLM, with the least squared relative error over MEASURED; neither part may be negative."""
    kernels_s = kernel_seconds(QWEN3_8B, MEASURED)
    engine_s = np.array([step.milliseconds for step in MEASURED]) / 1e3
    errors = []
    for out in range(len(MEASURED)):
        factor, offset_s = _fit(np.delete(kernels_s, out), np.delete(engine_s, out))
        errors.append((factor * kernels_s[out] + offset_s) / engine_s[out] - 1.0)
    factor, offset_s = _fit(kernels_s, engine_s)
    return EngineMap(float(f"{factor:.5g}"), round(float(offset_s), 6), np.array(errors))


def _fit(kernels_s: np.ndarray, engine_s: np.ndarray) -> np.ndarray:
    columns = np.column_stack([kernels_s, np.ones_like(kernels_s)]) / engine_s[:, None]
    found: np.ndarray = lsq_linear(columns, np.ones_like(engine_s), (0, np.inf)).x
    return found


class Elsewhere(NamedTuple):
    """A step of another model or GPU: what was published of it, and the shape whose kernels are compared.

    scale: of those kernels' times, where they were measured on another GPU.
    """

    shape: ModelShape
    step: Step
    engine: str
    source: str
    scale: float = 1.0


#: A full step is vLLM's default of 8,192 tokens, when as many prompts of 4,000 tokens wait as it will take; decodes
#: beside it: prompts begun a step times output tokens, at most 250. llm-d: an A100, whose MXFP4 kernels were not
#: measured: those of an H100, longer by the ratio of memory bandwidths; as many decodes as rate x output x ITL says.
_A100_BY_BANDWIDTH = 3.35 / 2.04
ONE_H100 = replace(GPT_OSS_120B, gpu=H100, gpus=1)
_CI = "vLLM, version not said", "buildkite.com/vllm/performance-benchmark/builds/9515"
ELSEWHERE = (
    Elsewhere(replace(LLAMA3_8B, gpu=H200), Step(8, 96, 0, 833.4 / 128, "batch of 8, 32 in, 128 out"), *_CI),
    Elsewhere(replace(LLAMA3_70B, gpu=H200), Step(8, 96, 0, 2077.5 / 128, "batch of 8, 32 in, 128 out"), *_CI),
    Elsewhere(ONE_H100, Step(4, 450, 0, 7.99, "median ITL, ShareGPT, concurrency 4"), "vLLM 0.10.2", GPUSTACK_OSS),
    Elsewhere(GPT_OSS_120B, Step(4, 450, 0, 5.54, "median ITL, ShareGPT, concurrency 4"), "vLLM 0.10.2", GPUSTACK_OSS),
    Elsewhere(
        GPT_OSS_120B, Step(250, 4070, 7942, 215.59, "median ITL, saturated: a full step"), "vLLM 0.10.2", GPUSTACK_OSS
    ),
    Elsewhere(
        DEEPSEEK_V3, Step(250, 4100, 7942, 383.79, "p99 of ITL, saturated: a full step"), "vLLM 0.11.0", GPUSTACK_R1
    ),
    Elsewhere(
        ONE_H100, Step(46, 576, 0, 24.0, "median ITL, 15 requests/s"), "vLLM 0.23, A100", LLM_D, _A100_BY_BANDWIDTH
    ),
    Elsewhere(
        ONE_H100, Step(12, 576, 0, 12.0, "median ITL, 7.5 requests/s"), "vLLM 0.23, A100", LLM_D, _A100_BY_BANDWIDTH
    ),
)


def comparisons(factor: float, offset_s: float) -> list[dict[str, Any]]:
    """Our two maps for comparison with what was measured, in ms, and their ratios to it; arguments: the authors'."""
    rows = [Elsewhere(QWEN3_8B, step, ENGINE, SILYBENCH) for step in MEASURED]
    table, found = [], engine_map()
    for shape, step, engine, source, scale in (*rows, *ELSEWHERE):
        kernels_s = scale * float(kernel_seconds(shape, [step])[0])
        ours_ms, authors_ms = 1e3 * float(found(kernels_s)), 1e3 * (factor * kernels_s + offset_s)
        row = {"model": shape.name, "hardware": shape.hardware, "engine": engine, **step._asdict(), "scale": scale}
        row |= {"kernels_ms": 1e3 * kernels_s, "ours_ms": ours_ms, "ours_over_theirs": ours_ms / step.milliseconds}
        table.append({**row, "authors_over_theirs": authors_ms / step.milliseconds, "source": source})
    return table
