"""Fig 4: duration and throughput of one iteration against its prefill chunk, straight from a latency model."""

from __future__ import annotations

from artifact.experiments.panel_config import Curve
from niyama import load_card
from niyama.latency import empty_batch, seconds, with_prefill

BACKEND = "latency-model"
#: The models of the paper's configurations, all of which Fig 4 shows.
LATENCIES = (
    *(f"a100-llama3-8b-{end}" for end in ("engine", "kernels", "linear", "roofline")),
    *(f"{name}-{end}" for name in ("a100-tp2-qwen-7b", "h100-tp4-llama3-70b") for end in ("engine", "kernels")),
)


def chunk_curve(curve: Curve, latency: str) -> list[dict[str, object]]:
    """A row per number of decodes and chunk size; the chunk is the first of its prompt, beside those decodes.

    tokens_per_s counts the decodes' tokens too, prefill_tokens_per_s does not.
    """
    model, rows = load_card(latency).build(), []
    for decodes in curve.decodes:
        context = decodes * curve.context_tokens
        for chunk in range(1, curve.most_chunk_tokens + 1):
            duration_s = float(seconds(model, with_prefill(empty_batch(decodes, context), 0, chunk)))
            rows.append(
                {
                    "backend": BACKEND,
                    "latency": latency,
                    "decodes": decodes,
                    "decode_context_tokens": context,
                    "chunk_tokens": chunk,
                    "duration_s": duration_s,
                    "tokens_per_s": (chunk + decodes) / duration_s,
                    "prefill_tokens_per_s": chunk / duration_s,
                }
            )
    return rows
