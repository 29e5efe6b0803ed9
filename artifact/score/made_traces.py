"""The suite's two traces that nobody recorded, made up from stated numbers: `python -m artifact.score.made_traces`.

reasoning.csv: questions with long chains of thought. agents.csv: sessions of agents, whose prompts grow by each answer
and each tool's result, of four tenants of which the first sends two thirds of the work. No published trace has these;
the numbers below are ours, and so is every result that comes of them.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path

import numpy as np

FOLDER = Path(__file__).with_name("traces")
SEED = 20261201
REASONING_ROWS, SESSIONS = 3000, 300
TENANTS = ("a", "b", "c", "d")
TENANT_SHARES = (0.67, 0.11, 0.11, 0.11)


def reasoning() -> str:
    """CSV: prompts of about 200 tokens, outputs with a median of 1,200 tokens and a long tail, at most 12,000."""
    rng = np.random.default_rng(SEED)
    prompt = np.clip(rng.lognormal(np.log(200), 0.8, REASONING_ROWS), 16, 4000)
    output = np.clip(rng.lognormal(np.log(1200), 0.9, REASONING_ROWS), 32, 12_000)
    return _csv(("prompt_tokens", "output_tokens"), zip(prompt.astype(int), output.astype(int), strict=True))


def agents() -> str:
    """CSV: sessions of 4 to 16 turns; a turn adds a short answer or a tool's result to the prompt of the next."""
    rng = np.random.default_rng(SEED + 1)
    rows = []
    for session in range(SESSIONS):
        tenant = TENANTS[rng.choice(len(TENANTS), p=TENANT_SHARES)]
        prompt = int(rng.integers(800, 3000))
        for _ in range(int(rng.integers(4, 17))):
            output = int(np.clip(rng.lognormal(np.log(80), 0.9), 8, 1500))
            rows.append((prompt, output, tenant, f"s{session}"))
            prompt = min(prompt + output + int(np.clip(rng.lognormal(np.log(300), 1.0), 10, 3000)), 16_000)
    return _csv(("prompt_tokens", "output_tokens", "tenant", "session"), rows)


def _csv(header: tuple[str, ...], rows: object) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)  # type: ignore[arg-type]
    return text.getvalue()


if __name__ == "__main__":
    for make in (reasoning, agents):
        (FOLDER / f"{make.__name__}.csv").write_text(make())
