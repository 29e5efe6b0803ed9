"""Latency models: from the shape of one engine iteration to its duration in seconds, and back."""

from niyama.latency.cards import ModelCard, is_card_file, load_card, model_names
from niyama.latency.model import Batch, LatencyModel, empty_batch, fit_tokens, seconds, with_prefill

__all__ = [
    "Batch",
    "LatencyModel",
    "ModelCard",
    "empty_batch",
    "fit_tokens",
    "is_card_file",
    "load_card",
    "model_names",
    "seconds",
    "with_prefill",
]
