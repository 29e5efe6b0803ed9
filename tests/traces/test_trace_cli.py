"""The command line, the text reader, and the rule that this package stands alone."""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

import pytest

import traces
from traces import TraceError
from traces.__main__ import main
from traces.sharegpt_text import load_tokenizer, read_sharegpt_text, sharegpt_trace

PACKAGE = Path(traces.__file__).parent


def words(text):
    return len(text.split())


def test_list_names_every_data_set(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("NIYAMA_TRACES", raising=False)
    assert main(["list", "--cache", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    for name in traces.load_catalog():
        assert re.search(rf"^{re.escape(name)} ", out, re.M)
    assert "in the package" in out and "not here" in out


def test_list_and_describe_use_the_local_folder(real_dir, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("NIYAMA_TRACES", str(real_dir))
    assert main(["list", "--cache", str(tmp_path)]) == 0
    assert "local folder" in capsys.readouterr().out
    assert main(["describe", "azure-code-2023", "--no-download", "--cache", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "8,819 rows, source local" in out and "p50 1469.0" in out and "CC-BY-4.0" in out


def test_fetch_imports_a_file(real_dir, tmp_path, capsys):
    source = real_dir / traces.find_entry("azure-code-2023").local
    assert main(["fetch", "azure-code-2023", "--from-file", str(source), "--cache", str(tmp_path)]) == 0
    assert Path(capsys.readouterr().out.strip()).read_bytes() == source.read_bytes()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["fetch", "azure-code-2032"], "did you mean 'azure-code-2023'"),
        (["fetch", "azure-code-2023", "--from-file", "absent.csv"], "absent.csv is not a file"),
        (["fetch", "azure-code-2023", "--url", "http://127.0.0.1:9/x"], "http://127.0.0.1:9/x: "),
        (["describe", "azure-2024-hourly"], "hour-of-week"),
        (["describe", "azure-code-2023", "--local", "no-such-folder"], "'no-such-folder' does not exist"),
    ],
)
def test_errors_are_one_line_and_status_2(arguments, message, tmp_path, capsys):
    assert main([*arguments, "--cache", str(tmp_path)]) == 2
    captured = capsys.readouterr()
    assert captured.out == "" and captured.err.startswith("error: ")
    assert message in captured.err and captured.err.count("\n") == 1


CONVERSATIONS = [
    {
        "id": "a",
        "conversations": [
            {"from": "human", "value": "one two three"},
            {"from": "gpt", "value": "four five"},
            {"from": "human", "value": "six"},
            {"from": "gpt", "value": "seven eight nine ten"},
        ],
    },
    {"id": "b", "conversations": [{"from": "gpt", "value": "unasked"}, {"from": "human", "value": "why"}]},
    {"id": "c", "conversations": [{"from": "human", "value": ""}, {"from": "gpt", "value": "x"}]},
    {"id": "d", "conversations": []},
]


@pytest.fixture
def text_file(tmp_path):
    path = tmp_path / "text.json"
    path.write_text(json.dumps(CONVERSATIONS))
    return path


def pairs(lengths):
    return list(zip(lengths.prompt_tokens.tolist(), lengths.output_tokens.tolist(), strict=True))


def test_text_becomes_pairs(text_file, tmp_path):
    cache = tmp_path / "cache"
    first = read_sharegpt_text(text_file, words, cache_dir=cache)
    assert pairs(first) == [(3, 2)] and first.arrival_s is None
    assert first.notes == ("1 pairs with an empty side dropped",)
    every = read_sharegpt_text(text_file, words, pairing="cumulative", cache_dir=cache)
    assert pairs(every) == [(3, 2), (6, 4)]
    short = read_sharegpt_text(text_file, words, pairing="cumulative", max_total_tokens=9, cache_dir=cache)
    assert pairs(short) == [(3, 2)]
    assert "1 pairs longer than 9 tokens dropped" in short.notes
    with pytest.raises(TraceError, match="no usable pair"):
        read_sharegpt_text(text_file, words, max_total_tokens=2, cache_dir=cache)


def test_text_needs_the_right_file_and_a_tokenizer(text_file, tmp_path, monkeypatch):
    with pytest.raises(TraceError, match="does not exist; run `python -m traces fetch sharegpt-v3-text`"):
        read_sharegpt_text(tmp_path / "absent", words)
    other = tmp_path / "other.json"
    other.write_text(json.dumps([{"a": 1}]))
    with pytest.raises(TraceError, match="no 'conversations' column"):
        read_sharegpt_text(other, words, cache_dir=tmp_path / "cache")
    with pytest.raises(TraceError, match="expected 35f0e213"):
        sharegpt_trace(text_file, tmp_path)
    with pytest.raises(TraceError, match="tokenizer folder"):
        load_tokenizer(tmp_path / "absent")
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(TraceError, match="pip install transformers"):
        load_tokenizer(tmp_path)


def test_the_package_stands_alone_and_stays_small():
    for path in PACKAGE.glob("*.py"):
        source = path.read_text()
        assert len(source.splitlines()) <= 250, path.name
        for node in ast.walk(ast.parse(source)):
            names = [node.module] if isinstance(node, ast.ImportFrom) else []
            names += [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            assert not {str(name).split(".")[0] for name in names} & {"niyama", "artifact", "figures"}, path.name
            if isinstance(node, ast.FunctionDef):
                assert node.end_lineno - node.lineno < 40, f"{path.name}: {node.name}"
