"""The tokens that the emulated model answers with: plain text, the same for the same prompt, and never an end.

A client that sets max_tokens gets exactly that many, whether or not it says ignore_eos.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Sequence

import numpy as np
from vllm.config import ModelConfig
from vllm.tokenizers import cached_tokenizer_from_config

PLAIN_TOKENS = 64  # as many different ones come out
LOOKED_AT = 4096  # ids that are looked at for them


def special_tokens(model: ModelConfig) -> frozenset[int]:
    """Ids that mean something to the engine or its tokenizer: end, begin, padding and the like."""
    ids: set[int] = set()
    generation = model.try_get_generation_config()
    for value in (
        *(getattr(model.hf_text_config, name, None) for name in ("bos_token_id", "eos_token_id", "pad_token_id")),
        generation.get("eos_token_id"),
        getattr(cached_tokenizer_from_config(model), "all_special_ids", None),
    ):
        ids.update(value if isinstance(value, list) else () if value is None else (value,))
    return frozenset(ids)


def plain_tokens(model: ModelConfig, special: frozenset[int]) -> tuple[int, ...]:
    """Ids to answer with: letters where there is a tokenizer that has some, else the first that are not special."""
    tokenizer = cached_tokenizer_from_config(model)
    usable = [i for i in range(min(LOOKED_AT, model.get_vocab_size())) if i not in special]
    letters = [] if tokenizer is None else [i for i in usable if _is_word(tokenizer.decode([i]))]
    tokens = tuple((letters or usable)[:PLAIN_TOKENS])
    if not tokens:
        raise ValueError(f"emulated: the vocabulary of {model.model!r} has no token that is not special")
    return tokens


def _is_word(text: str) -> bool:
    return text.isascii() and text.strip().isalpha()


def fingerprint(prompt_token_ids: Sequence[int], seed: int | None) -> int:
    """What the output depends on: the same prompt and sampling seed give the same tokens, in every process."""
    return zlib.crc32(array("q", prompt_token_ids), 0 if seed is None else seed & 0xFFFFFFFF)


def token_at(alphabet: Sequence[int], key: int, position: int) -> int:
    """Output token number `position` (0-based): a function of its arguments, so a recomputed request goes on alike."""
    mixed = (key ^ (position * 0x9E3779B1)) * 0x85EBCA6B & 0xFFFFFFFF
    return alphabet[(mixed >> 8) % len(alphabet)]


def accepted_drafts(key: int, position: int, drafts: int, share: float) -> int:
    """How many of the tokens drafted for the places behind `position` are right, up to the first that is wrong."""
    for count in range(drafts):
        if zlib.crc32(array("q", (key, position + count))) >= share * 2**32:
            return count
    return drafts


def allowed_token(bitmask: np.ndarray, wanted: int, special: frozenset[int]) -> int:
    """`wanted` if the grammar's bitmask (int32; bit i of word w is token 32 w + i) allows it, else one that it allows.

    A special token, the end among them, comes out only when nothing else may.
    """
    if wanted < 32 * len(bitmask) and int(bitmask[wanted >> 5]) >> (wanted & 31) & 1:
        return wanted
    bits = np.unpackbits(np.ascontiguousarray(bitmask).view(np.uint8), bitorder="little")
    allowed = np.flatnonzero(bits).tolist()
    choice = [token for token in allowed if token not in special] or allowed or [wanted]
    return choice[wanted % len(choice)]
