"""What the tests of the emulated GPU share: requests, cards, runs with their tokens, and times worked out by hand."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np

from niyama import PAPER_CLASSES, load_card
from niyama.latency import ModelCard, empty_batch, seconds, with_prefill
from niyama.sim import Requests, Run
from niyama.vllm.emulated.virtual import EngineSettings, Traffic, run_virtual

CARD = load_card("a100-llama3-8b-roofline")
FAST = replace(
    CARD, name="fast", coefficients=(0.002, 1e-6, 0.002, 1e-12, 1e-9), hardware="none", source="a test", kv_tokens=8000
)


def some_requests(arrival_s: list[float], prompts: list[int], outputs: list[int]) -> Requests:
    """Requests of the three paper classes in turn."""
    n = len(arrival_s)
    return Requests(
        PAPER_CLASSES, np.arange(n) % 3, np.array(arrival_s), np.array(prompts), np.array(outputs), np.ones(n, bool)
    )


def random_requests(n: int, load_qps: float, seed: int = 0) -> Requests:
    """Poisson arrivals, prompts to 1,500 tokens, outputs to 60."""
    random = np.random.default_rng(seed)
    arrival_s = np.cumsum(random.exponential(1 / load_qps, n)).tolist()
    return some_requests(arrival_s, random.integers(1, 1500, n).tolist(), random.integers(1, 60, n).tolist())


def small_kv(blocks: int) -> ModelCard:
    """The card with KV for that many blocks of 16 tokens."""
    return replace(CARD, kv_tokens=16 * blocks)


def with_tokens(traffic: Traffic, card: ModelCard, engine: EngineSettings, **options: object) -> tuple[Run, list]:
    """The run and the token ids of every request."""
    tokens: list[list[int]] = [[] for _ in traffic.requests.arrival_s]
    run = run_virtual(
        traffic, card, engine, watch=lambda o: tokens[int(o.request_id)].extend(o.new_token_ids), **options
    )
    return run, tokens


def step_s(decode_contexts: list[int], *chunks: tuple[int, int]) -> float:
    """Modelled seconds of a step: decodes at these contexts, then chunks of (prefix, tokens)."""
    batch = empty_batch(len(decode_contexts), sum(decode_contexts))
    for prefix, tokens in chunks:
        batch = with_prefill(batch, prefix, tokens)
    return seconds(CARD.build(), batch)


def tokens_of(run: Run, row: int) -> np.ndarray:
    """Token times of one request, in seconds."""
    return run.token_s[run.token_start[row] : run.token_start[row + 1]]


def card_file(card: ModelCard, folder: Path) -> str:
    """The path of a new file in the folder that holds the card."""
    path = folder / "card.json"
    path.write_text(json.dumps(asdict(card)))
    return str(path)
