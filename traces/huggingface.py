"""A data set of the Hugging Face hub, or one that `datasets` saved on disk, as rows of a trace."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from traces.documents import as_text, flattened
from traces.errors import TraceError
from traces.layouts import LAYOUTS, REQUIRED
from traces.lengths import Lengths, Reading
from traces.readers import read_table
from traces.sharegpt_text import CountTokens, first_pair, load_tokenizer
from traces.tabular import Tabular

HUB = "hf:"
_CHATS = ("conversations", "conversation", "messages")  # columns that hold the turns of a chat
_FORMAT = "use hf:OWNER/NAME, or hf:OWNER/NAME:SPLIT"


def read_data_set(name: str, reading: Reading) -> tuple[Lengths, str]:
    """Its rows, and the SHA-256 of what was read: lengths, and times where it has them.

    Texts are counted by the tokenizer of `reading`; of a chat the first question and its answer count. TraceError
    where the data set cannot be had, its columns are unknown, texts have no tokenizer, or a row is wrong.
    """
    rows = _streamed(name)
    first = next(iter(rows), None)
    if first is None:
        raise TraceError(f"{name} has no rows; give another split (hf:OWNER/NAME:SPLIT)")
    counted = _counted(name, rows, flattened(first), reading)
    wanted = KNOWN_COLUMNS | {column.lower() for column in reading.columns.values()}
    kept = [{column: row[column] for column in row if column.lower() in wanted} for row in counted]
    names = tuple(dict.fromkeys(column for row in kept for column in row))
    table = Tabular(Path(name), names, lambda wanted: as_text(kept, wanted), lambda at: [i + 1 for i in at], "row")
    if not names:
        raise TraceError(f"{name} has the columns {', '.join(flattened(first))}; say --columns prompt=NAME,output=NAME")
    columns = dict(zip(REQUIRED, _CHAT_COUNTS, strict=True)) if names == _CHAT_COUNTS else reading.columns
    lengths = read_table(table, Reading(columns, reading.time_unit))
    digest = hashlib.sha256()
    for array in (lengths.prompt_tokens, lengths.output_tokens, lengths.arrival_s):
        digest.update(b"" if array is None else array.tobytes())
    return lengths, digest.hexdigest()


#: Columns of any layout, in lower case: the others, texts among them, are not kept.
KNOWN_COLUMNS = {name.lower() for layout in LAYOUTS for name in (*layout.columns.values(), *layout.optional.values())}
KNOWN_COLUMNS |= {"question_tokens", "answer_tokens"}
_CHAT_COUNTS = ("question_tokens", "answer_tokens")


def _streamed(name: str) -> Iterable[Mapping[str, Any]]:
    import datasets  # seconds, and needed here only

    try:
        saved = any((Path(name) / file).is_file() for file in ("state.json", "dataset_dict.json"))
        if not name.startswith(HUB) and not saved:  # a folder of files
            return datasets.load_dataset(name, split="train", streaming=True)
        if not name.startswith(HUB):
            found = datasets.load_from_disk(name)
            if isinstance(found, datasets.DatasetDict):
                found = found[_the_split(name, list(found))]
            return found
        path, _, split = name.removeprefix(HUB).partition(":")
        if path.count("/") != 1:
            raise TraceError(f"trace is {name!r}; {_FORMAT}")
        return datasets.load_dataset(path, split=split or "train", streaming=True)
    except TraceError:
        raise
    except Exception as error:  # whatever the hub, the network or a damaged file makes it raise
        why = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise TraceError(f"{name} cannot be read: {why}; {_FORMAT}, a folder of `save_to_disk`, or a file") from None


def _the_split(name: str, splits: list[str]) -> str:
    if len(splits) > 1 and "train" not in splits:
        raise TraceError(f"{name} has the splits {', '.join(splits)}; name the folder of one of them")
    return "train" if "train" in splits else splits[0]


def _counted(
    name: str, rows: Iterable[Mapping[str, Any]], first: Mapping[str, Any], reading: Reading
) -> Iterator[Mapping[str, Any]]:
    """Rows whose texts are counted."""
    chat = next((column for column in _CHATS if isinstance(first.get(column), list)), None)
    texts = [c for role, c in reading.columns.items() if role in REQUIRED and isinstance(first.get(c), str)]
    texts = [column for column in texts if not str(first[column]).strip().isdigit()]
    if not texts and (chat is None or reading.columns):
        if reading.tokenizer is not None:
            raise TraceError(f"--tokenizer is given, and {name} has no texts under --columns prompt=NAME,output=NAME")
        return (flattened(row) for row in rows)
    if reading.tokenizer is None:
        raise TraceError(f"{name} holds texts in {', '.join(texts) or chat}; give --tokenizer FOLDER to count them")
    count = load_tokenizer(reading.tokenizer)
    if texts:
        return ({**flattened(row), **{c: count(row[c] or "") for c in texts}} for row in rows)
    return _chats(rows, str(chat), count)


def _chats(rows: Iterable[Mapping[str, Any]], column: str, count: CountTokens) -> Iterator[Mapping[str, Any]]:
    for row in rows:
        pair = first_pair(row[column] or (), count) or (0, 0)
        yield dict(zip(_CHAT_COUNTS, pair, strict=True))
