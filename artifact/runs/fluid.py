"""What no scheduler can exceed: the steady-state (fluid) bound of one replica, in requests/s."""

from __future__ import annotations

import numpy as np

from niyama.latency import ModelCard
from niyama.latency.model import Batch, seconds


def fluid_bound_qps(
    card: ModelCard,
    prompt_tokens: np.ndarray,
    output_tokens: np.ndarray,
    max_chunk_tokens: int = 2552,
    shared_chunk: bool = False,
    chunk_step: int = 1,
) -> float:
    """Best rate over all chunk sizes up to `max_chunk_tokens` prefill tokens, when every iteration is full.

    chunk_step: tries only each of so many chunk sizes.
    With `shared_chunk` the decodes count towards the chunk, as in Sarathi.

    In steady state an iteration with C prompt tokens starts C / mean(prompt) requests, so that
    D = C / mean(prompt) * mean(output - 1) decode beside it. Ignores the prefix term of the linear model (which only
    slows it down), and keeps D and its context within 256 requests and the KV cache.
    """
    prompt, output = prompt_tokens.astype(float), output_tokens.astype(float)
    steps = output - 1.0
    context = float((steps * (prompt + output / 2)).sum() / max(steps.sum(), 1.0))
    pairs_per_token = float((prompt**2).sum() / 2 / prompt.sum())
    model = card.build()
    best = 0.0
    for chunk in range(1, max_chunk_tokens + 1, chunk_step):
        starts = chunk / prompt.mean()
        decodes = starts * steps.mean()
        full = shared_chunk and chunk + decodes > max_chunk_tokens
        if decodes > 256 or decodes * context > card.kv_tokens or full:
            break
        # Batch counts are whole in the engine; the bound takes their means
        batch = Batch(decodes, decodes * context, chunk, chunk * pairs_per_token, 0)
        best = max(best, starts / seconds(model, batch))
    return best
