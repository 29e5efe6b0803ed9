"""Readers: right values from right files, and the place of the first fault in wrong ones."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.helpers.trace_server import AZURE_BODY, make_entry
from traces.errors import TraceError
from traces.parsed import read_through_cache
from traces.readers import read

AZURE = make_entry()
BURST = make_entry(reader="burstgpt-csv")
MOONCAKE = make_entry(reader="mooncake-jsonl")
SHAREGPT = make_entry(reader="sharegpt-csv")
HEAD = "TIMESTAMP,ContextTokens,GeneratedTokens\n"
BURST_HEADS = {
    "plain": (
        "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "{t},GPT-4,{p},{o},0,x",
    ),
    "sessions": (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type",
        "{t},17,2.5,GPT-4,{p},{o},0,x",
    ),
}


@pytest.fixture
def put(tmp_path):
    def write(content):
        path = tmp_path / "file"
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return write


def test_azure_2023_with_crlf_and_no_final_newline(put):
    lengths = read(AZURE, put(AZURE_BODY))
    assert lengths.prompt_tokens.tolist() == [4808, 110, 3180]
    assert lengths.output_tokens.tolist() == [10, 27, 8]
    np.testing.assert_allclose(lengths.arrival_s, [0, 0.02004, 0.052], atol=1e-9)
    assert lengths.prompt_tokens.dtype == np.int32 and lengths.arrival_s.dtype == np.float64
    assert "1 rows came before" in lengths.notes[0]
    assert not lengths.arrival_s.flags.writeable


def test_azure_2024_with_a_zone_and_whole_seconds(put):
    text = HEAD + "2024-05-10 00:00:00.009930+00:00,2162,5\n2024-05-10 00:00:01+00:00,2399,6\n"
    lengths = read(AZURE, put(text))
    np.testing.assert_allclose(lengths.arrival_s, [0, 0.99007], atol=1e-9)
    assert lengths.notes == ()


@pytest.mark.parametrize("layout", BURST_HEADS)
def test_burstgpt_drops_and_counts_failures(put, layout):
    head, row = BURST_HEADS[layout]
    rows = [row.format(t=t, p=p, o=o) for t, p, o in [(5, 472, 18), (45, 1087, 0), (118.5, 417, 276)]]
    lengths = read(BURST, put("\n".join([head, *rows]) + "\n"))
    assert lengths.prompt_tokens.tolist() == [472, 417]
    assert lengths.arrival_s.tolist() == [0, 113.5]
    assert lengths.notes == ("1 failed requests (0 output tokens) dropped",)


def test_mooncake_times_are_milliseconds(put):
    rows = [{"timestamp": 3000, "input_length": 7, "output_length": 2, "hash_ids": [1]}] * 2
    rows[1] = rows[1] | {"timestamp": 6500}
    lengths = read(MOONCAKE, put("\n".join(map(json.dumps, rows))))
    assert lengths.arrival_s.tolist() == [0, 3.5]


def test_sharegpt_has_no_times(put):
    lengths = read(SHAREGPT, put("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n74,9,83,8.2\n"))
    assert (lengths.prompt_tokens.tolist(), lengths.output_tokens.tolist()) == ([74], [9])
    assert lengths.arrival_s is None


GOOD = "2024-05-10 00:00:00,5,6\n"


@pytest.mark.parametrize(
    ("rows", "line", "column", "value"),
    [
        (GOOD + "2024-05-10 00:00:00,abc,6\n", 3, "ContextTokens", "'abc'"),
        ("2024-05-10 00:00:00,-3,6\n" + GOOD, 2, "ContextTokens", "'-3'"),
        (GOOD + "2024-05-10 00:00:00,5.5,6\n", 3, "ContextTokens", "'5.5'"),
        (GOOD + "2024-05-10 00:00:00,NaN,6\n", 3, "ContextTokens", "'NaN'"),
        (GOOD + "2024-05-10 00:00:00,,6\n", 3, "ContextTokens", "''"),
        (GOOD + "2024-05-10 00:00:00,5,9999999999\n", 3, "GeneratedTokens", "'9999999999'"),
        (
            GOOD + "2024-05-10 00:00:00,5,99999999999999999999\n",
            3,
            "GeneratedTokens",
            "'99999999999999999999'",
        ),
        (GOOD + "yesterday,5,6\n", 3, "TIMESTAMP", "'yesterday'"),
        (GOOD + ",5,6\n", 3, "TIMESTAMP", "''"),
        (GOOD + "2024-05-10 00:00:00,5\n" + GOOD, 3, "row of 2 cells", "'2024-05-10 00:00:00,5'"),
    ],
)
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
def test_azure_faults_are_located(put, rows, line, column, value, newline):
    path = put((HEAD + rows).replace("\n", newline))
    with pytest.raises(TraceError) as caught:
        read(AZURE, path)
    assert str(caught.value).startswith(f"{path}, line {line}: {column} is {value}; write ")


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("inf,GPT-4,5,6,0,x", "line 4: Timestamp is 'inf'"),
        ("7,GPT-4,5,-1,0,x", "line 4: Response tokens is '-1'"),
    ],
)
def test_burstgpt_faults_are_located_behind_a_dropped_row(put, row, fault):
    path = put("\n".join([BURST_HEADS["plain"][0], "5,GPT-4,5,6,0,x", "6,GPT-4,0,0,0,x", row, ""]))
    with pytest.raises(TraceError, match=fault):
        read(BURST, path)


@pytest.mark.parametrize(
    ("row", "fault"),
    [
        ("not json", "line 2: row is 'not json'"),
        ("[1, 2]", r"line 2: row is \[1, 2\]"),
        ('{"timestamp": 1, "input_length": 5}', "line 2: output_length is missing"),
        ('{"timestamp": 1, "input_length": 5.5, "output_length": 5}', "line 2: input_length is 5.5"),
        ('{"timestamp": 1, "input_length": true, "output_length": 5}', "line 2: input_length is 'true'"),
        ('{"timestamp": NaN, "input_length": 5, "output_length": 5}', "line 2: timestamp is nan"),
    ],
)
def test_mooncake_faults_are_located(put, row, fault):
    good = '{"timestamp": 1, "input_length": 5, "output_length": 5}'
    with pytest.raises(TraceError, match=fault):
        read(MOONCAKE, put(f"{good}\n{row}\n{good}\n"))


def test_a_file_of_another_kind_or_without_rows(put):
    with pytest.raises(TraceError, match=r"has \['a', 'b'\], and lacks"):
        read(AZURE, put("a,b\n1,2\n"))
    for entry, text in [(AZURE, ""), (AZURE, HEAD), (MOONCAKE, "")]:
        with pytest.raises(TraceError):
            read(entry, put(text))
    with pytest.raises(TraceError, match="hour-of-week"):
        read(make_entry(reader="azure-hourly"), put(""))
    with pytest.raises(TraceError, match="needs a tokenizer"):
        read(make_entry(reader="sharegpt-text"), put(""))


def test_the_parquet_copy_is_used_only_for_the_same_bytes(put, caplog):
    path = put(AZURE_BODY)
    copy = path.with_name("file.parquet")
    first = read_through_cache(AZURE, path, "digest-1", min_bytes=1)
    assert copy.is_file()
    path.write_bytes(AZURE_BODY.replace(b"4808", b"4809"))
    same = read_through_cache(AZURE, path, "digest-1", min_bytes=1)  # served from the copy
    other = read_through_cache(AZURE, path, "digest-2", min_bytes=1)  # read again
    for field in ("prompt_tokens", "output_tokens", "arrival_s"):
        np.testing.assert_array_equal(getattr(first, field), getattr(same, field))
        assert not getattr(same, field).flags.writeable
    assert same.notes == first.notes
    assert other.prompt_tokens[0] == 4809
    copy.write_bytes(b"damaged")
    assert read_through_cache(AZURE, path, "digest-2", min_bytes=1).prompt_tokens[0] == 4809
    assert "not readable" in caplog.text


def test_small_files_get_no_parquet_copy(put):
    path = put(AZURE_BODY)
    read_through_cache(AZURE, path, "digest")
    assert list(path.parent.iterdir()) == [path]
