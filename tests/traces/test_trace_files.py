"""Files of users: what each is taken for, what is dropped, and one clear line where it cannot be taken."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from traces import Reading, Trace, TraceError, load_trace
from traces.__main__ import main
from traces.layouts import LAYOUTS
from traces.own_format import write_trace

DATA = Path(__file__).parent / "data"
MOONCAKE = {"timestamp": 2000, "input_length": 7, "output_length": 3}
#: File -> lengths, and seconds after the first request; None without times.
RIGHT = {
    "azure.csv.gz": ([396, 879, 374], [109, 55, 44], [0, 2, 4]),
    "blank-last-line.csv": ([374], [44], [0]),
    "burst-datetime.csv": ([472], [18], [0]),
    "burst-sample.csv": ([472, 1087], [18, 230], [0, 40]),
    "duplicates.csv": ([374] * 3, [44] * 3, [0, 0, 0]),
    "epoch-ms.csv": ([374, 396], [44, 109], [0, 0.45]),
    "extra-columns.csv": ([374], [44], [0]),
    "lower-case.csv": ([374], [44], [0]),
    "mooncake-blank.jsonl": ([10], [4], [0]),
    "mooncake-float.jsonl": ([10], [4], [0]),
    "mooncake-notimes.jsonl": ([10], [4], None),
    "own-names.csv": ([374, 396, 879], [44, 109, 55], [0, 4.31, 4.54]),
    "semicolon.csv": ([374], [44], [0]),
    "single-row.csv": ([374], [44], [0]),
    "spaces-after-comma.csv": ([2048, 2048], [1, 1], None),
    "tz-offset.csv": ([374, 396, 879], [44, 109, 55], [0, 1.5, 1802]),
    "unsorted.csv": ([396, 879, 374], [109, 55, 44], [0, 2, 4]),
    "zero-output.csv": ([396], [109], [0]),
    "zero-prompt.csv": ([396], [109], [0]),
}
SAID = {
    "azure.csv.gz": "1 rows came before their predecessor in time: sorted by timestamp",
    "burst-sample.csv": "1 failed requests (0 output tokens) dropped (line 4)",
    "zero-output.csv": "1 rows with 0 output tokens dropped (line 2)",
    "zero-prompt.csv": "1 rows with 0 prompt tokens dropped (line 2)",
    "unsorted.csv": "1 rows came before their predecessor in time: sorted by timestamp",
}


def check(trace: Trace, prompt, output, time_s) -> None:
    assert (trace.prompt_tokens.tolist(), trace.output_tokens.tolist()) == (prompt, output)
    assert (trace.arrival_s is None) == (time_s is None)
    if time_s is not None:
        np.testing.assert_allclose(trace.arrival_s, time_s, atol=1e-9)


@pytest.mark.parametrize("name", RIGHT)
def test_files_as_users_have_them_give_the_right_table(name):
    trace = load_trace(str(DATA / name))
    check(trace, *RIGHT[name])
    assert trace.notes == ((SAID[name],) if name in SAID else ())


@pytest.mark.parametrize(
    ("name", "words"), [("empty.csv", "is empty; give a file"), ("header-only.csv", "has no usable rows")]
)
def test_files_without_rows_are_one_line(name, words, capsys):
    assert main(["describe", str(DATA / name)]) == 2
    out, err = capsys.readouterr()
    assert out == "" and len(err.splitlines()) == 1 and words in err and name in err


BENCH = {"input_lens": [5, 6, 7], "output_lens": [2, 0, 4], "start_times": [50.5, 51, 52], "errors": ["", "lost", ""]}
SPAN = {
    "startTimeUnixNano": "1700000000000000000",
    "attributes": [
        {"key": "gen_ai.usage.input_tokens", "value": {"intValue": "5"}},
        {"key": "gen_ai.usage.output_tokens", "value": {"intValue": "2"}},
        {"key": "gen_ai.conversation.id", "value": {"stringValue": "c1"}},
    ],
}
OTEL = {"resourceSpans": [{"scopeSpans": [{"spans": [SPAN, {"startTimeUnixNano": "1", "attributes": []}]}]}]}
DYNAMO = {
    "schema": "dynamo.request.trace.v1",
    "event_type": "request_end",
    "agent_context": {"session_id": "s"},
    "request": {
        "output_tokens": 2,
        "request_received_ms": 1_700_000_000_000,
        "replay": {"input_length": 5, "input_sequence_hashes": [1, 2]},
    },
}
AIPERF = {
    "metadata": {"request_start_ns": 1_700_000_000_000_000_000, "conversation_id": "a"},
    "metrics": {
        "input_sequence_length": {"value": 5, "unit": "tokens"},
        "output_sequence_length": {"value": 2, "unit": "tokens"},
    },
    "error": None,
}


def lines(*rows: dict) -> str:
    return "".join(json.dumps(row) + "\n" for row in rows)


#: Layout -> a file in it, and what it says.
LAYOUT_SAMPLES = {
    "niyama": (lines({"arrival_s": 1.5, "prompt_tokens": 5, "output_tokens": 2}), [5], [2], [1.5]),
    "niyama-lengths": ("prompt_tokens,output_tokens\n5,2\n", [5], [2], None),
    "niyama-ms": (lines({**MOONCAKE, "qos_class": "a", "important": True}), [7], [3], [2]),
    "apex": (lines({"StartTimeOffset": 2_000_000_000, "ContextTokens": 5, "GeneratedTokens": 2}), [5], [2], [0]),
    "azure": ("TIMESTAMP,ContextTokens,GeneratedTokens\n2024-05-10 00:00:01.5+00:00,5,2\n", [5], [2], [0]),
    "burstgpt": (
        "Timestamp,Session ID,Elapsed time,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
        "5,17,2.5,GPT-4,5,2,7,x\n7.5,17,2.5,GPT-4,6,2,8,x\n",
        [5, 6],
        [2, 2],
        [0, 2.5],
    ),
    "vidur": ("arrived_at,num_prefill_tokens,num_decode_tokens\n1,5,2\n1.25,6,2\n", [5, 6], [2, 2], [0, 0.25]),
    "sharegpt": ("num_prefill_tokens,num_decode_tokens,num_total_tokens,pd_ratio\n5, 2, 7, 2.5\n", [5], [2], None),
    "bailian": (
        lines(*({**MOONCAKE, "timestamp": t, "chat_id": 1, "parent_chat_id": -1, "turn": 1} for t in (0, 61.114))),
        [7, 7],
        [3, 3],
        [0, 61.114],
    ),
    "mooncake": (lines({**MOONCAKE, "hash_ids": [4, 5]}, {**MOONCAKE, "timestamp": 5500}), [7, 7], [3, 3], [0, 3.5]),
    "mooncake-lengths": (lines({"input_length": 5, "output_length": 2, "duration": 9}), [5], [2], None),
    "splitwise-sim": (
        "request_id,request_type,application_id,arrival_timestamp,batch_size,prompt_size,token_size\n0,0,3,1.5,1,5,2\n",
        [5],
        [2],
        [0],
    ),
    "inference-perf": (
        json.dumps(
            [
                {"start_time": 10.5, "info": {"input_tokens": 5, "output_tokens": 2}, "error": None},
                {"start_time": 11, "info": {"input_tokens": 5, "output_tokens": 0}, "error": {"error_type": "x"}},
                {"start_time": 12, "info": {"input_tokens": 6, "output_tokens": 2}, "error": None},
            ],
            indent=1,
        ),
        [5, 6],
        [2, 2],
        [0, 1.5],
    ),
    "aiperf": (lines(AIPERF), [5], [2], [0]),
    "vllm-bench": (json.dumps(BENCH), [5, 7], [2, 4], [0, 1.5]),
    "dynamo": (lines(DYNAMO, {**DYNAMO, "event_type": "tool"}), [5], [2], [0]),
    "dynamo-metrics": (
        lines({**DYNAMO, "request": {"input_tokens": 5, "output_tokens": 2, "request_received_ms": 17}}),
        [5],
        [2],
        [0],
    ),
    "otel": (lines(OTEL, OTEL), [5, 5], [2, 2], [0, 0]),
    "otel-sdk": (
        json.dumps(
            [
                {
                    "start_time": "2026-03-01T09:00:00.5Z",
                    "attributes": {"gen_ai.usage.input_tokens": 5, "gen_ai.usage.output_tokens": 2},
                }
            ]
        ),
        [5],
        [2],
        [0],
    ),
    "servegen": ("request_id,timestamp,input_tokens,output_tokens\n0,1,5,2\n1,3.5,6,2\n", [5, 6], [2, 2], [0, 2.5]),
}


LAYOUT_SAMPLES |= {
    f"{name}-event": ("".join(f'{{"timestamp": 1, "event": {row}}}\n' for row in text.splitlines()), *table)
    for name, (text, *table) in LAYOUT_SAMPLES.items()
    if name.startswith("dynamo")
}


def test_every_layout_has_a_sample():
    assert set(LAYOUT_SAMPLES) == {layout.name for layout in LAYOUTS}


@pytest.mark.parametrize("compressed", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize("layout", LAYOUT_SAMPLES)
def test_layouts_are_told_by_their_columns_and_compression_by_its_bytes(tmp_path, layout, compressed):
    text, *table = LAYOUT_SAMPLES[layout]
    path = tmp_path / "trace"  # no suffix says anything
    with pa.output_stream(str(path), compression=None if compressed == "plain" else compressed) as stream:
        stream.write(text.encode())
    trace = load_trace(str(path))
    check(trace, *table)
    assert trace.understood.layout == layout and trace.source == "file"


def test_classes_tenants_sessions_and_hash_ids_come_along(tmp_path):
    path, rows = tmp_path / "t.jsonl", ((9, [3]), (4, [1, 2]))
    path.write_text(lines(*({**MOONCAKE, "timestamp": time_ms, "hash_ids": ids} for time_ms, ids in rows)))
    trace = load_trace(str(path))
    assert trace.extras.hash_ids.ids.tolist() == [1, 2, 3] and trace.extras.hash_ids.ends.tolist() == [0, 2, 3]
    table = load_trace(str(DATA / "extra-columns.csv"), reading=Reading({"tenant": "tenant"}))
    assert table.extras.tenant.by_row().tolist() == ["a"] and table.understood.unused == ("model",)


HEAD = "when,in,out\n"


@pytest.mark.parametrize(
    ("times", "unit", "seconds"),
    [
        (("1", "2500"), "ms", [0, 2.499]),
        (("1000000000", "3000000000"), "ns", [0, 2]),
        (("1767225600", "1767225602"), None, [0, 2]),
        (("1767225600000000", "1767225600500000"), None, [0, 0.5]),
        (("2026-03-01T09:00:00", "2026-03-01T09:00:01.25"), None, [0, 1.25]),
    ],
)
def test_columns_and_units_that_a_user_names(tmp_path, times, unit, seconds):
    (path := tmp_path / "x.csv").write_text(HEAD + "".join(f"{t},5,2\n" for t in times))
    reading = Reading({"time": "when", "prompt": "in", "output": "out"}, unit)
    check(load_trace(str(path), reading=reading), [5, 5], [2, 2], seconds)


@pytest.mark.parametrize(
    ("text", "columns", "unit", "words"),
    [
        (HEAD + "1,5,2\n", {}, None, "are those of no known layout"),
        (HEAD + "1,5,2\n", {"time": "when", "prompt": "in", "output": "out"}, None, "say their unit: --time-unit"),
        (HEAD + "1,5,2\n", {"prompt": "inn", "output": "out"}, None, "has no column 'inn'"),
        (HEAD + "1,5,2\n", {"cost": "in"}, None, "--columns has 'cost'; use time, prompt"),
        (HEAD + "1,5,2\n", {"prompt": "in", "output": "out"}, "h", "--time-unit is 'h'"),
        (HEAD + "1,5,2\n", {"prompt": "in", "output": "out"}, "s", "no column has times; leave it out"),
        (HEAD + "\n1,5,2\n2,-5,2\n", {"prompt": "in", "output": "out"}, None, "line 4: in is '-5'"),
        (HEAD + "1,5,374.5\n", {"prompt": "in", "output": "out"}, None, "line 2: out is '374.5'"),
        (HEAD + "1,NaN,2\n", {"prompt": "in", "output": "out"}, None, "line 2: in is 'NaN'"),
        (HEAD + "1,5,0\n-1,5,2\n", {"time": "when", "prompt": "in", "output": "out"}, "s", "line 3: when is '-1'"),
        (HEAD + "x,5,2\n", {"time": "when", "prompt": "in", "output": "out"}, None, "line 2: when is 'x'"),
        ("2048, 0, 2\n2032, 0, x\n", {"prompt": "1", "output": "3"}, None, "line 2: 3 is 'x'"),
        ("num_prefill_tokens,num_decode_tokens\n2032, 1\n2032, x\n", {}, None, "line 3: num_decode_tokens is 'x'"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2026-03-01 09:00,5,2\n2026-03-01T09:00Z,5,2\n", {}, None, "line 2"),
        (lines({**MOONCAKE, "timestamp": 1767225600}), {}, None, "say their unit: --time-unit"),
        (HEAD + "1,0x1F,2\n", {"prompt": "in", "output": "out"}, None, "line 2: in is '0x1F'"),
        (HEAD + '1,"1,374",2\n', {"prompt": "in", "output": "out"}, None, "line 2: in is '1,374'"),
        (HEAD + "1,5\n", {"prompt": "in", "output": "out"}, None, "line 2: row of 2 cells is '1,5'"),
        (HEAD + "2026-02-30,5,2\n", {"time": "when", "prompt": "in", "output": "out"}, None, "line 2: when is '2026"),
        (HEAD + "2026-02-03,5,2\n", {"time": "when", "prompt": "in", "output": "out"}, "ms", "is for numbers"),
        ("\x00\xff", {}, None, "no known layout"),
        ("{}\n", {}, None, "no known layout"),
        ('{"a": [1, 2]', {}, None, "is not JSON"),
    ],
)
def test_what_is_wrong_is_one_line_with_the_line_of_the_file(tmp_path, text, columns, unit, words):
    (path := tmp_path / "x.csv").write_text(text)
    with pytest.raises(TraceError) as caught:
        load_trace(str(path), reading=Reading(columns, unit))
    assert words in str(caught.value).replace(": ('", ": '") and "\n" not in str(caught.value)


def test_epoch_milliseconds_in_a_layout_of_seconds_are_seen(tmp_path):
    head = "Timestamp,Model,Request tokens,Response tokens,Total tokens,Log Type\n"
    (path := tmp_path / "x.csv").write_text(head + "1767225600000,x,5,2,7,x\n1767225601500,x,6,2,8,x\n")
    trace = load_trace(str(path))
    check(trace, [5, 6], [2, 2], [0, 1.5])
    assert trace.understood.time == "ms since 1970, by their size"


def test_nested_columns_of_parquet(tmp_path):
    pq.write_table(pa.table({"request": [{"in": 5, "out": 6}], "hash_ids": [["a"]]}), path := tmp_path / "x.parquet")
    columns = {"prompt": "request.in", "output": "request.out", "hash_ids": "hash_ids"}
    trace = load_trace(str(path), reading=Reading(columns))
    check(trace, [5], [6], None)
    assert trace.notes == ("hash_ids are no lists of whole numbers, and not used",)
    (path := tmp_path / "x.csv").write_text("input_length,output_length,hash_ids\n5,6,1;2\n")
    assert load_trace(str(path)).notes == ("hash_ids are no lists of whole numbers, and not used",)
    path.write_text('input_length,output_length,hash_ids\n5,6,"[1, 2]"\n')
    assert load_trace(str(path)).extras.hash_ids.ids.tolist() == [1, 2]


def test_two_files_of_one_name_have_two_names_in_results(tmp_path):
    names = set()
    for folder, tokens in (("a", 5), ("b", 6)):
        (path := tmp_path / folder / "day.csv").parent.mkdir()
        path.write_text(f"prompt_tokens,output_tokens\n{tokens},2\n")
        names.add(load_trace(str(path)).name)
    names.add(load_trace(str(path), reading=Reading({"prompt": "output_tokens", "output": "prompt_tokens"})).name)
    assert len(names) == 3 and all(name.startswith("day.csv@") for name in names)


REQUESTS = st.lists(
    st.tuples(
        st.floats(0, 1e6, allow_nan=False).map(lambda s: s + 0.0),
        st.integers(1, 2**31 - 1),
        st.integers(1, 2**31 - 1),
        st.sampled_from(["chat", "code ü", "a,b", 'q"']),
        st.booleans(),
    ),
    min_size=1,
    max_size=20,
).map(sorted)
COLUMNS = ("arrival_s", "prompt_tokens", "output_tokens", "qos_class", "important")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(REQUESTS)
def test_a_table_survives_every_format(tmp_path, rows):
    """CSV of pandas, then JSON lines and parquet of our own, each read again."""
    import pandas as pd

    frame = pd.DataFrame(rows, columns=COLUMNS)
    frame.to_csv(path := tmp_path / "t.csv", index=False)
    for name in ("t.jsonl", "t.jsonl.gz", "t.jsonl.zst", "t.parquet"):
        trace = load_trace(str(path))
        assert trace.arrival_s.tolist() == frame["arrival_s"].tolist()
        assert trace.prompt_tokens.tolist() == frame["prompt_tokens"].tolist()
        assert trace.output_tokens.tolist() == frame["output_tokens"].tolist()
        assert trace.extras.qos_class.by_row().tolist() == frame["qos_class"].tolist()
        assert trace.extras.important.tolist() == frame["important"].tolist()
        write_trace(trace, path := tmp_path / name)


def test_convert_writes_what_describe_reads(tmp_path, capsys):
    out = tmp_path / "o.parquet"
    assert main(["convert", str(DATA / "own-names.csv"), str(out)]) == 0
    assert pq.read_table(out).column_names == ["arrival_s", "prompt_tokens", "output_tokens"]
    assert main(["describe", str(out)]) == 0
    said = capsys.readouterr().out
    assert "layout niyama: time = arrival_s (s)" in said and "3 rows in the file, 3 of them requests" in said
    assert main(["convert", str(DATA / "own-names.csv"), str(tmp_path / "o.xls")]) == 2
    assert "end it in .parquet, .jsonl" in capsys.readouterr().err


def test_a_compressed_file_cut_short_is_one_line(tmp_path):
    text = "prompt_tokens,output_tokens\n" + "".join(f"{i},{i * 7919 % 977 + 1}\n" for i in range(1, 50_000))
    (path := tmp_path / "cut.gz").write_bytes(gzip.compress(text.encode())[:20_000])
    with pytest.raises(TraceError, match=r"cut\.gz"):
        load_trace(str(path))


FAILED = {**AIPERF, "metrics": {"error_isl": {"value": 5}}, "error": {"code": 500, "message": "lost"}}


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ((AIPERF, FAILED), "1 failed requests (error) dropped (line 2)"),
        ((OTEL, {"resourceSpans": [{"scopeSpans": [{"spans": [{**SPAN, "attributes": SPAN["attributes"][:1]}]}]}]}),
         "1 rows with 0 output tokens dropped (request 2)"),
    ],
)  # fmt: skip
def test_a_request_that_failed_is_dropped_whatever_it_lacks(tmp_path, rows, said):
    (tmp_path / "t").write_text(lines(*rows))
    trace = load_trace(str(tmp_path / "t"))
    assert len(trace) == 1 and trace.notes == (said,)


def test_a_conversation_is_one_session_however_its_requests_are_linked(tmp_path):
    chats = ((1, -1), (2, 1), (7, -1), (3, 2), (4, 3))
    rows = [{**MOONCAKE, "timestamp": t, "chat_id": own, "parent_chat_id": p} for t, (own, p) in enumerate(chats)]
    (tmp_path / "t").write_text(lines(*rows))
    assert list(load_trace(str(tmp_path / "t")).extras.session.by_row()) == ["1", "1", "7", "1", "1"]


def test_a_column_that_first_stands_in_the_last_line_counts(tmp_path):
    rows = [{**MOONCAKE, "timestamp": t} for t in range(300)] + [{**MOONCAKE, "timestamp": 300, "session_id": "late"}]
    (tmp_path / "t").write_text(lines(*rows))
    assert load_trace(str(tmp_path / "t")).extras.session.by_row()[-1] == "late"
    tools = [{"schema": DYNAMO["schema"], "event_type": "tool_end"}] * 60
    (tmp_path / "t").write_text(lines(*tools, DYNAMO))
    assert load_trace(str(tmp_path / "t")).notes[0].startswith("60 event_type is not request_end dropped")
