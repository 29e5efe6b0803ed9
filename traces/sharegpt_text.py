"""Token lengths from ShareGPT conversation text, counted with a tokenizer the reader has on disk."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from traces.catalog import find_entry
from traces.errors import TraceError
from traces.files import sha256_of
from traces.lengths import Lengths
from traces.trace import Trace

CountTokens = Callable[[str], int]
Pairing = Literal["first", "cumulative"]

_HUMAN = frozenset({"human", "user"})
_MODEL = frozenset({"gpt", "chatgpt", "assistant"})


def load_tokenizer(folder: Path | str) -> CountTokens:
    """A token counter from a Hugging Face tokenizer stored in `folder`; nothing is downloaded.

    Special tokens are not counted. Raises TraceError if `folder` or the transformers package is absent.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise TraceError(f"tokenizer folder {folder} does not exist; give a folder that holds tokenizer.json")
    try:
        from transformers import AutoTokenizer  # heavy, and needed for this data set only
    except ImportError:
        raise TraceError("counting text needs the transformers package; run `pip install transformers`") from None
    tokenizer = AutoTokenizer.from_pretrained(str(folder), local_files_only=True)
    return lambda text: len(tokenizer.encode(text, add_special_tokens=False))


def read_sharegpt_text(
    path: Path | str,
    count_tokens: CountTokens,
    *,
    pairing: Pairing = "first",
    max_total_tokens: int | None = None,
    cache_dir: Path | str | None = None,
) -> Lengths:
    """Prompt and output lengths of the conversations in a ShareGPT JSON file.

    `first` takes the first human turn and the model turn right after it; `cumulative` takes every model turn,
    its prompt being all the turns before it. Pairs with an empty side, or longer in total than
    `max_total_tokens`, are dropped and counted in the notes. `cache_dir` is where `datasets` keeps its Arrow
    copy.

    Raises TraceError if the file is absent, has no conversations, or no pair is left.
    """
    from datasets import load_dataset  # slow to import, and needed for this data set only

    path = Path(path)
    if not path.is_file():
        raise TraceError(f"{path} does not exist; run `python -m traces fetch sharegpt-v3-text`")
    rows = load_dataset(
        "json", data_files=str(path), split="train", cache_dir=None if cache_dir is None else str(cache_dir)
    )
    if "conversations" not in rows.column_names:
        raise TraceError(f"{path}: has no 'conversations' column but {rows.column_names}; give a ShareGPT file")
    pairs = np.array(list(_all_pairs(rows["conversations"], count_tokens, pairing)), dtype=np.int64).reshape(-1, 2)
    return _filtered(path, pairs, max_total_tokens)


def sharegpt_trace(
    path: Path | str,
    tokenizer_dir: Path | str,
    *,
    pairing: Pairing = "first",
    max_total_tokens: int | None = None,
    cache_dir: Path | str | None = None,
) -> Trace:
    """The trace `sharegpt-v3-text` from its file and a local tokenizer. Raises TraceError as its parts do."""
    entry = find_entry("sharegpt-v3-text")
    digest = sha256_of(Path(path))
    if digest != entry.sha256:
        raise TraceError(f"{path} has sha256 {digest}, expected {entry.sha256}; fetch {entry.name} again")
    lengths = read_sharegpt_text(
        path,
        load_tokenizer(tokenizer_dir),
        pairing=pairing,
        max_total_tokens=max_total_tokens,
        cache_dir=cache_dir,
    )
    return Trace.of(entry, lengths, source="local", sha256=digest)


def _all_pairs(
    conversations: Iterable[Sequence[Mapping[str, str]]], count_tokens: CountTokens, pairing: Pairing
) -> Iterator[tuple[int, int]]:
    for turns in conversations:
        pairs = _pairs(turns or (), count_tokens)
        if pairing == "cumulative":
            yield from pairs
        elif (first := next(pairs, None)) is not None:
            yield first


def first_pair(turns: Sequence[Mapping[str, str]], count_tokens: CountTokens) -> tuple[int, int] | None:
    """Tokens of a chat's first question and its answer; turns say `from` and `value`, or `role` and `content`."""
    alike = ({"from": t.get("from", t.get("role")), "value": t.get("value", t.get("content"))} for t in turns)
    return next(_pairs([{key: str(value or "") for key, value in turn.items()} for turn in alike], count_tokens), None)


def _pairs(turns: Sequence[Mapping[str, str]], count_tokens: CountTokens) -> Iterator[tuple[int, int]]:
    """(context tokens, answer tokens) of each model turn that answers a human turn, in order."""
    context, before = 0, None
    for turn in turns:
        tokens = count_tokens(turn["value"])
        if turn["from"] in _MODEL and before in _HUMAN:
            yield context, tokens
        context, before = context + tokens, turn["from"]


def _filtered(path: Path, pairs: np.ndarray, max_total_tokens: int | None) -> Lengths:
    usable = np.asarray((pairs >= 1).all(axis=1))
    fits = usable if max_total_tokens is None else usable & (pairs.sum(axis=1) <= max_total_tokens)
    notes = []
    if not usable.all():
        notes.append(f"{int((~usable).sum())} pairs with an empty side dropped")
    if not fits[usable].all():
        notes.append(f"{int((usable & ~fits).sum())} pairs longer than {max_total_tokens} tokens dropped")
    if not fits.any():
        raise TraceError(
            f"{path}: no usable pair of turns ({'; '.join(notes) or 'none found'}); raise max_total_tokens"
        )
    kept = pairs[fits].astype(np.int32)
    return Lengths(kept[:, 0].copy(), kept[:, 1].copy(), None, tuple(notes))
