"""Data sets of the Hugging Face hub and on disk: lengths as they are, texts counted, and one line where that fails."""

from __future__ import annotations

import json

import datasets
import pytest

from traces import Reading, TraceError, huggingface, load_trace

CHATS = [
    {"conversations": [{"from": "human", "value": "one two"}, {"from": "gpt", "value": "three"}]},
    {"conversations": [{"from": "gpt", "value": "unasked"}]},
    {"conversations": [{"from": "human", "value": "a b c"}, {"from": "gpt", "value": "d e"}]},
]
LENGTHS = [{"prompt_tokens": 5, "output_tokens": 2}, {"prompt_tokens": 6, "output_tokens": 3}]
TEXTS = [{"question": "one two three", "answer": "four", "tier": "gold"}]


@pytest.fixture(autouse=True)
def words(monkeypatch):
    """A tokenizer of one token a word."""
    monkeypatch.setattr(huggingface, "load_tokenizer", lambda folder: lambda text: len(text.split()))


def saved(tmp_path, rows) -> str:
    datasets.Dataset.from_list(rows).save_to_disk(str(tmp_path / "set"))
    return str(tmp_path / "set")


def pairs(trace):
    return list(zip(trace.prompt_tokens.tolist(), trace.output_tokens.tolist(), strict=True))


def test_lengths_of_a_saved_data_set(tmp_path):
    trace = load_trace(saved(tmp_path, LENGTHS))
    assert pairs(trace) == [(5, 2), (6, 3)] and trace.name.startswith("set@") and len(trace.sha256) == 64


def test_first_questions_of_chats_are_counted(tmp_path):
    trace = load_trace(saved(tmp_path, CHATS), reading=Reading(tokenizer=tmp_path))
    assert pairs(trace) == [(2, 1), (3, 2)] and trace.notes == ("1 rows with 0 output tokens dropped (row 2)",)


def test_texts_of_named_columns_are_counted(tmp_path):
    columns = {"prompt": "question", "output": "answer", "class": "tier"}
    trace = load_trace(saved(tmp_path, TEXTS), reading=Reading(columns, tokenizer=tmp_path))
    assert pairs(trace) == [(3, 1)] and trace.extras.qos_class.names == ("gold",)


def test_a_folder_of_files_and_the_hub_are_streamed(tmp_path, monkeypatch):
    (tmp_path / "files").mkdir()
    (tmp_path / "files" / "train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in LENGTHS))
    assert pairs(load_trace(str(tmp_path / "files"))) == [(5, 2), (6, 3)]
    asked = []

    def hub(path, **options):
        asked.append((path, options))
        return iter_twice(LENGTHS)

    monkeypatch.setattr(datasets, "load_dataset", hub)
    trace = load_trace("hf:owner/name:test")
    assert asked == [("owner/name", {"split": "test", "streaming": True})]
    assert pairs(trace) == [(5, 2), (6, 3)] and trace.name.startswith("owner-name-test@")


def iter_twice(rows):
    return list(rows)


@pytest.mark.parametrize(
    ("rows", "reading", "words"),
    [
        (CHATS, Reading(), "holds texts in conversations; give --tokenizer FOLDER"),
        (
            TEXTS,
            Reading({"prompt": "question", "output": "answer"}),
            "holds texts in question, answer; give --tok",
        ),
        (TEXTS, Reading(), "say --columns prompt=NAME"),
    ],
)
def test_what_cannot_be_counted_is_one_line(tmp_path, rows, reading, words):
    with pytest.raises(TraceError, match=words) as caught:
        load_trace(saved(tmp_path, rows), reading=reading)
    assert "\n" not in str(caught.value)


def test_what_the_hub_does_not_have_is_one_line(monkeypatch):
    def offline(*_, **__):
        raise ConnectionError("no network\nat all")

    monkeypatch.setattr(datasets, "load_dataset", offline)
    with pytest.raises(TraceError, match="hf:owner/name cannot be read: no network; use hf:OWNER/NAME"):
        load_trace("hf:owner/name")
    with pytest.raises(TraceError, match="trace is 'hf:name'; use hf:OWNER/NAME"):
        load_trace("hf:name")
