"""The door: three ways to ask become one, nonsense and spoofing get 4xx, everything else passes as it came."""

import asyncio
import gzip
import hashlib
import json
import subprocess
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

from prometheus_client import REGISTRY

from niyama.vllm.config import EngineConfig
from niyama.vllm.qos import serve
from niyama.vllm.serving.answer import note_outcomes, told_in_chunk
from niyama.vllm.serving.endpoints import PATHS
from niyama.vllm.serving.middleware import QoSMiddleware
from tests.helpers.asgi_app import COMPLETIONS, Echo, configured, knock

PROMPT = {"model": "m", "prompt": "hello"}
NIYAMA = {"class": "Q1", "relegated": True}


def xargs_after(body, headers=None, **fields):
    """The vllm_xargs that vLLM gets."""
    echo = Echo()
    response = knock({**PROMPT, **body}, headers, echo=echo, config=configured(**fields))
    assert response.status_code == 200, response.text
    return echo.body["vllm_xargs"]


def refusal(body, headers=None, status=400, **fields):
    """The error that the client gets; nothing reaches vLLM."""
    echo = Echo()
    response = knock({**PROMPT, **body}, headers, echo=echo, config=configured(**fields))
    assert response.status_code == status, response.text
    assert echo.got == []
    error = response.json()["error"]
    assert error["code"] == status
    assert set(error) == {"message", "type", "param", "code"}
    return error


@pytest.mark.parametrize("path", sorted(PATHS))
def test_headers_become_xargs_and_the_response_names_the_class(path):
    echo = Echo()
    headers = {"X-Niyama-Class": "Q1", "X-LLM-D-SLO-TTFT-MS": "9000", "x-llm-d-slo-tpot-ms": " 80 "}
    response = knock(PROMPT, headers, echo=echo, path=path)
    assert echo.body == {**PROMPT, "vllm_xargs": {"niyama_class": "Q1", "niyama_ttft_ms": 9000, "niyama_tbt_ms": 80}}
    assert response.headers["x-niyama-class"] == "Q1"
    assert dict(echo.headers)[b"content-length"] == str(len(echo.got[-1][1])).encode()


@pytest.mark.parametrize(
    ("headers", "xargs"),
    [
        ({}, {"niyama_class": "Q2"}),
        ({"x-niyama-slo-ttlt-ms": "700000"}, {"niyama_class": "Q2", "niyama_ttlt_ms": 700000}),
        ({"x-niyama-importance": "low"}, {"niyama_class": "Q2", "niyama_importance": "low"}),
        (
            {"x-niyama-class": "Q1", "x-slo-ttft-ms": "8000", "x-slo-tpot-ms": "060"},
            {"niyama_class": "Q1", "niyama_ttft_ms": 8000, "niyama_tbt_ms": 60},
        ),
    ],
)
def test_every_header_has_its_field(headers, xargs):
    assert xargs_after({}, headers) == xargs


@pytest.mark.parametrize(
    ("body", "headers", "name"),
    [
        ({"service_tier": "priority"}, {}, "Q1"),
        ({"service_tier": "flex"}, {}, "Q3"),
        ({"service_tier": "auto"}, {}, "Q2"),
        ({"service_tier": None}, {}, "Q2"),
        ({"service_tier": "flex"}, {"x-niyama-class": "Q1"}, "Q1"),
        ({"service_tier": "flex", "vllm_xargs": {"niyama_class": "Q1"}}, {}, "Q1"),
        ({"vllm_xargs": {"niyama_class": "Q3"}}, {"x-niyama-class": "Q3"}, "Q3"),
        ({"vllm_xargs": None}, {}, "Q2"),
    ],
)
def test_the_most_specific_word_counts(body, headers, name):
    assert xargs_after(body, headers)["niyama_class"] == name


def test_what_is_not_ours_stays():
    xargs = {"niyama_app": "agent", "top_n": 3, "list": ["a", 1.5]}
    assert xargs_after({"vllm_xargs": xargs}) == {**xargs, "niyama_class": "Q2"}


def test_what_goes_on_is_served_by_the_engine_as_the_door_said():
    echo = Echo()
    response = knock({**PROMPT, "service_tier": "priority"}, {"x-slo-ttft-ms": "7000"}, echo=echo)
    served = serve(EngineConfig(), echo.body["vllm_xargs"])
    assert (served.class_name, served.deadline_slo_s, served.fault) == (response.headers["x-niyama-class"], 7.0, None)


@pytest.mark.parametrize(
    ("body", "headers", "param", "words"),
    [
        ({}, {"x-niyama-class": "Q9"}, "x-niyama-class", ("'Q9'", "use one of")),
        ({}, {"x-niyama-class": ""}, "x-niyama-class", ("''",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "6e3"}, "x-slo-ttft-ms", ("'6e3'", "integer")),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "-1"}, "x-slo-ttft-ms", ("'-1'",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "nan"}, "x-slo-ttft-ms", ("'nan'",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "\u00b2"}, "x-slo-ttft-ms", ("integer",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "9" * 18}, "x-slo-ttft-ms", ("to 604800000",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "9" * 5000}, "x-slo-ttft-ms", ("integer",)),
        ({}, {"x-niyama-class": "Q1", "x-slo-ttft-ms": "6000, 6000"}, "x-slo-ttft-ms", ("'6000, 6000'",)),
        ({}, {"x-llm-d-slo-tpot-ms": "50"}, "x-llm-d-slo-tpot-ms", ("class Q2 is batch", "niyama_ttlt_ms")),
        ({}, {"x-niyama-importance": "HIGH"}, "x-niyama-importance", ("'HIGH'", "'high' or 'low'")),
        ({"service_tier": "gold"}, {}, "service_tier", ("'gold'", "auto, priority, default, flex")),
        ({"service_tier": ["flex"]}, {}, "service_tier", ("a list",)),
        ({"vllm_xargs": {"niyama_class": "Q9"}}, {}, "niyama_class", ("'Q9'",)),
        ({"vllm_xargs": {"niyama_ttlt_ms": 1.5}}, {}, "niyama_ttlt_ms", ("1.5",)),
        ({"vllm_xargs": {"niyama_ttlt_ms": True}}, {}, "niyama_ttlt_ms", ("True",)),
        ({"vllm_xargs": {"niyama_typo": 1}}, {}, "'niyama_typo'", ("not a QoS field",)),
        ({"vllm_xargs": {"niyama_class": "Q1"}}, {"x-niyama-class": "Q2"}, "x-niyama-class", ("vllm_xargs says 'Q1'",)),
        ({"vllm_xargs": {"niyama_ttlt_ms": "9"}}, {"x-niyama-slo-ttlt-ms": "9"}, "x-niyama-slo-ttlt-ms", ("says '9'",)),
        (
            {"vllm_xargs": {"niyama_ttlt_ms": True}},
            {"x-niyama-slo-ttlt-ms": "1"},
            "x-niyama-slo-ttlt-ms",
            ("says True",),
        ),
        ({}, [("x-niyama-class", "Q1"), ("X-Niyama-Class", "Q2")], "x-niyama-class", ("x-niyama-class says 'Q1'",)),
        (
            {},
            [("x-niyama-class", "Q1"), ("x-slo-ttft-ms", "1"), ("x-llm-d-slo-ttft-ms", "2")],
            "x-llm-d-slo-ttft-ms",
            ("x-slo-ttft-ms says 1", "send one of the two"),
        ),
    ],
)
def test_nonsense_is_refused_in_openais_format_and_the_clients_words(body, headers, param, words):
    if any("\u00b2" in value for value in dict(headers).values()):
        headers = {name.encode(): value.encode("latin-1") for name, value in headers.items()}
    error = refusal(body, headers)
    assert error["param"] == param
    assert error["message"].startswith(param)
    for word in words:
        assert word in error["message"]


def test_saying_the_same_twice_is_fine():
    headers = [
        ("x-niyama-class", "Q1"),
        ("x-niyama-class", "Q1"),
        ("x-slo-ttft-ms", "7000"),
        ("x-llm-d-slo-ttft-ms", "07000"),
    ]
    assert xargs_after({}, headers) == {"niyama_class": "Q1", "niyama_ttft_ms": 7000}


def test_names_in_any_case_are_the_same_header():
    """Some servers do not make them lower case; httpx does, so this one goes in by hand."""
    sent = run_raw(
        QoSMiddleware(Echo(), EngineConfig()),
        [(b"Content-Type", b"Application/JSON; charset=utf-8"), (b"X-Niyama-CLASS", b"Q3"), (b"X-VLLM-Priority", b"1")],
    )
    assert sent[0]["status"] == 200
    assert (b"x-niyama-class", b"Q3") in sent[0]["headers"]


def run_raw(app, headers, messages=None, **scope):
    """What the client is sent, without an HTTP library between."""
    sent, todo = (
        [],
        list(messages or [{"type": "http.request", "body": json.dumps(PROMPT).encode(), "more_body": False}]),
    )

    async def receive():
        return todo.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": headers, **scope}
    asyncio.run(app(scope, receive, send))
    return sent


def counted(field, action):
    labels = {"field": field, "action": action}
    return REGISTRY.get_sample_value("niyama_http_qos_faults_total", labels) or 0.0


def test_a_lenient_server_serves_the_default_class_and_counts():
    before = counted("niyama_ttft_ms", "defaulted")
    headers = {"x-niyama-class": "Q1", "x-slo-ttft-ms": "soon"}
    body = {"vllm_xargs": {"other": 1}, "service_tier": "flex"}
    assert xargs_after(body, headers, strict=False) == {"other": 1, "niyama_class": "Q2"}
    assert counted("niyama_ttft_ms", "defaulted") == before + 1


def test_a_strict_server_counts_refusals():
    before = counted("niyama_class", "refused")
    refusal({}, {"x-niyama-class": "Q9"})
    assert counted("niyama_class", "refused") == before + 1


@pytest.mark.parametrize("path", [COMPLETIONS, "/v1/models", "/v1/audio/transcriptions"])
def test_a_clients_word_on_vllms_priority_is_dropped(path):
    echo = Echo()
    knock({**PROMPT, "priority": -100}, {"X-Vllm-Priority": "-100"}, echo=echo, path=path)
    assert b"x-vllm-priority" not in dict(echo.headers)
    assert ("priority" in echo.body) is (path != COMPLETIONS)


def test_or_kept_where_the_operator_says_so():
    echo = Echo()
    config = configured(client_priority="keep")
    knock({**PROMPT, "priority": 5}, {"X-Vllm-Priority": "5"}, echo=echo, config=config)
    assert dict(echo.headers)[b"x-vllm-priority"] == b"5"
    assert echo.body["priority"] == 5


IDENTITIES = {
    "identities": [
        {"name": "chat", "key_sha256": hashlib.sha256(b"sk-chat").hexdigest(), "classes": ["Q1", "Q2"]},
        {"name": "night", "key_sha256": hashlib.sha256(b"sk-night").hexdigest(), "classes": ["Q3"]},
    ],
    "anonymous": ["Q3"],
}


@pytest.mark.parametrize(
    ("authorization", "asked", "granted"),
    [
        ("Bearer sk-chat", "Q1", "Q1"),
        ("bearer  sk-chat", "Q1", "Q1"),
        ("Bearer sk-chat", None, "Q2"),
        ("Bearer sk-night", None, "Q3"),
        (None, None, "Q3"),
        ("Bearer wrong", None, "Q3"),
    ],
)
def test_a_key_opens_its_classes(authorization, asked, granted):
    headers = {"authorization": authorization} if authorization else {}
    xargs = xargs_after({}, headers | ({"x-niyama-class": asked} if asked else {}), **IDENTITIES)
    assert xargs["niyama_class"] == granted
    assert serve(configured(**IDENTITIES), xargs).class_name == granted


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"authorization": "Bearer wrong"},
        {"authorization": "Bearer sk-night"},
        {"authorization": "Basic sk-chat"},
        {"authorization": "sk-chat"},
        {"authorization": "Bearer " + IDENTITIES["identities"][0]["key_sha256"]},
        [("authorization", "Bearer sk-chat"), ("authorization", "Bearer sk-night")],
    ],
)
@pytest.mark.parametrize("how", ["header", "xargs", "tier"])
def test_and_no_other_however_it_is_asked_for(headers, how):
    pairs = list(headers.items()) if isinstance(headers, dict) else headers
    body = {"xargs": {"vllm_xargs": {"niyama_class": "Q1"}}, "tier": {"service_tier": "priority"}}.get(how, {})
    pairs = pairs + ([("x-niyama-class", "Q1")] if how == "header" else [])
    error = refusal(body, pairs, status=403, **IDENTITIES)
    assert error["type"] == "PermissionDeniedError"
    assert "'Q1', which this API key may not use; use one of Q3" in error["message"]
    lenient = xargs_after(body, pairs, strict=False, **IDENTITIES)
    assert lenient["niyama_class"] == "Q3"


def test_a_client_cannot_bring_another_clients_hash():
    hashed = IDENTITIES["identities"][0]["key_sha256"]
    body = {"vllm_xargs": {"niyama_key_sha256": hashed, "niyama_class": "Q1"}}
    assert refusal(body, {"authorization": "Bearer sk-night"}, **IDENTITIES)["param"] == "niyama_key_sha256"
    lenient = xargs_after(body, {"authorization": "Bearer sk-night"}, strict=False, **IDENTITIES)
    assert lenient["niyama_key_sha256"] == hashlib.sha256(b"sk-night").hexdigest()
    assert lenient["niyama_class"] == "Q3"


@pytest.mark.parametrize(
    ("path", "method", "kind"),
    [
        ("/v1/models", "GET", "application/json"),
        ("/v1/embeddings", "POST", "application/json"),
        ("/v1/completions/", "POST", "application/json"),
        (COMPLETIONS, "GET", "application/json"),
        (COMPLETIONS, "POST", "text/plain"),
        (COMPLETIONS, "POST", "multipart/form-data; boundary=x"),
    ],
)
def test_other_requests_pass_as_they_came(path, method, kind):
    echo, body = Echo(), b'{"vllm_xargs": {"niyama_class": "Q9"}}'
    headers = {"content-type": kind, "x-niyama-class": "Q9"}
    response = knock(body, headers, echo=echo, path=path, method=method)
    assert (response.status_code, echo.got[-1][1]) == (200, body)
    assert "x-niyama-class" not in response.headers


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"\xff",
        b"[1]",
        b"3",
        b'{"vllm_xargs": [1]}',
        b'{"vllm_xargs": "x"}',
        b'{"vllm_xargs": false}',
        b'{"a": ' + b"9" * 5000 + b"}",
        gzip.compress(b'{"vllm_xargs": {"niyama_class": "Q9"}}', mtime=0),  # it is part of the test's name
    ],
)
def test_what_vllm_must_refuse_reaches_it_byte_by_byte(body):
    echo = Echo(reply={})
    assert knock(body, echo=echo).status_code == 200
    assert echo.got[-1][1] == body


def test_a_path_behind_a_root_path_is_the_same_endpoint():
    sent = run_raw(
        QoSMiddleware(Echo(), EngineConfig()),
        [(b"content-type", b"application/json")],
        path="/api/v1/completions",
        root_path="/api",
    )
    assert (b"x-niyama-class", b"Q2") in sent[0]["headers"]


def test_lifespans_pass_and_websockets_lose_the_priority_header():
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)

    door = QoSMiddleware(app, EngineConfig())
    asyncio.run(door({"type": "lifespan"}, None, None))
    asyncio.run(door({"type": "websocket", "headers": [(b"x-vllm-priority", b"1"), (b"a", b"b")]}, None, None))
    assert seen == [{"type": "lifespan"}, {"type": "websocket", "headers": [(b"a", b"b")]}]


async def pieces(*parts):
    for part in parts:
        yield part


def test_a_chunked_body_is_put_together_and_gets_a_length():
    echo = Echo()
    response = knock(pieces(b'{"model": "m",', b"", b'"prompt": "hello"}'), echo=echo)
    assert (response.status_code, echo.body["prompt"]) == (200, "hello")
    assert b"transfer-encoding" not in dict(echo.headers)
    assert dict(echo.headers)[b"content-length"] == str(len(echo.got[-1][1])).encode()


PIECE = {"type": "http.request", "body": b"x" * 600, "more_body": True}
LAST = {"type": "http.request", "body": b"x", "more_body": False}


def limited(headers, messages):
    """What comes back of these messages where 1024 bytes are the limit; how much had when each of them was read."""
    todo, read, sent = list(messages), [], []

    async def receive():
        read.append(len(sent))
        return todo.pop(0)

    async def send(message):
        sent.append(message)

    scope = {"type": "http", "method": "POST", "path": COMPLETIONS}
    scope["headers"] = [(b"content-type", b"application/json"), *headers]
    asyncio.run(QoSMiddleware(Echo(), configured(max_body_bytes=1024))(scope, receive, send))
    return sent, read


def test_a_body_beyond_the_limit_is_refused_by_its_length_before_it_is_read():
    sent, read = limited([(b"content-length", b"2000")], [PIECE, LAST])
    assert (sent[0]["status"], read) == (413, [2, 2])  # answered, then read to the end, so that the answer is seen
    assert "1024 bytes" in json.loads(sent[1]["body"])["error"]["message"]
    assert [message.get("more_body") for message in sent] == [None, True, False]
    assert int(dict(sent[0]["headers"])[b"content-length"]) == len(sent[1]["body"])


def test_no_more_than_twice_the_limit_is_read_of_what_nobody_wants():
    _, read = limited([(b"content-length", b"9" * 12)], [PIECE] * 9)
    assert len(read) == 4
    _, read = limited([(b"content-length", b"9" * 12)], [PIECE, {"type": "http.disconnect"}])
    assert len(read) == 2
    sent, read = limited([], [PIECE, {**PIECE, "more_body": False}])
    assert (sent[0]["status"], len(read), len(sent)) == (413, 2, 2)  # it was the end: nothing more is waited for


def test_and_while_it_comes_when_it_does_not_say():
    echo = Echo()
    response = knock(pieces(*[b"x" * 600] * 3), echo=echo, config=configured(max_body_bytes=1024))
    assert (response.status_code, echo.got) == (413, [])
    assert knock(pieces(b" " * 500, b" " * 524), echo=echo, config=configured(max_body_bytes=1024)).status_code == 200


def test_a_client_that_leaves_while_it_sends_costs_nothing():
    echo = Echo()
    sent = run_raw(
        QoSMiddleware(echo, EngineConfig()),
        [(b"content-type", b"application/json")],
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}],
    )
    assert (sent, echo.got) == ([], [])


def test_a_client_that_leaves_later_is_seen_by_vllm():
    seen = []

    async def app(scope, receive, send):
        seen.extend([(await receive())["type"], (await receive())["type"]])

    request = {"type": "http.request", "body": json.dumps(PROMPT).encode(), "more_body": False}
    door = QoSMiddleware(app, EngineConfig())
    run_raw(door, [(b"content-type", b"application/json")], [request, {"type": "http.disconnect"}])
    assert seen == ["http.request", "http.disconnect"]


def test_a_body_nested_beyond_reason_is_refused_here():
    body = b'{"model": "m", "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}"
    response = knock(body, echo=Echo(reply={}))
    assert response.status_code == 400
    assert "nested too deeply" in response.json()["error"]["message"]


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"stop": ["a", "\ud800"]}, "stop"),
        ({"vllm_xargs": {"other": "\udfff"}}, "vllm_xargs"),
        ({"user\ud83d": 1}, "user\\ud83d"),
    ],
)
def test_a_lone_surrogate_is_refused_wherever_it_is(body, field, strict):
    """vLLM cannot send one to its engine, and answers 500."""
    error = refusal(body, strict=strict)
    assert error["param"] == field
    assert error["message"].startswith(f"{field} holds a lone surrogate")


def test_all_other_text_passes_unchanged():
    echo = Echo()
    assert knock({**PROMPT, "prompt": "\u00fc \u8a9e \U0001f600 \x00"}, echo=echo).status_code == 200
    assert echo.body["prompt"] == "\u00fc \u8a9e \U0001f600 \x00"


def test_the_clients_tier_comes_back():
    echo = Echo(reply={"id": "cmpl-1", "service_tier": None, "text": "\u00e9"})
    response = knock({**PROMPT, "service_tier": "flex"}, echo=echo)
    assert response.json() == {"id": "cmpl-1", "service_tier": "flex", "text": "\u00e9"}
    assert int(response.headers["content-length"]) == len(response.content)
    assert "service_tier" not in echo.body


@pytest.mark.parametrize("reply", [[1], "text", 7])
def test_a_response_that_is_no_object_stays_as_it_is(reply):
    assert knock({**PROMPT, "service_tier": "flex"}, echo=Echo(reply=reply)).json() == reply


class Engine:
    """A stand-in for AsyncLLM: its outputs' last says how the request was served."""

    def __init__(self, told):
        self.told, self.closed = told, 0

    async def generate(self, prompt):
        try:
            yield SimpleNamespace(kv_transfer_params=None)
            yield SimpleNamespace(kv_transfer_params=self.told)
        finally:
            self.closed += 1


def event(finish_reason=None, **more):
    choices = [{"index": 0, "text": "\u00e9", "finish_reason": finish_reason}]
    return b"data: " + json.dumps({"id": "cmpl-1", "choices": choices, **more}, ensure_ascii=False).encode() + b"\n\n"


def test_whole_responses_say_in_a_header_whether_they_were_relegated():
    assert knock(PROMPT, echo=Echo(engine=Engine({"niyama": NIYAMA}))).headers["x-niyama-relegated"] == "true"
    served = {"niyama": {"class": "Q2", "relegated": False}}
    assert knock(PROMPT, echo=Echo(engine=Engine(served))).headers["x-niyama-relegated"] == "false"
    for silent in (None, {"remote_block_ids": [1]}, {"niyama": 3}):
        assert "x-niyama-relegated" not in knock(PROMPT, echo=Echo(engine=Engine(silent))).headers


def test_streams_say_it_where_vllm_033_does_and_change_nowhere_else():
    chunks = (event(), event(), event("length"), event(choices=[], usage={}), b"data: [DONE]\n\n")
    response = knock(PROMPT, echo=Echo(engine=Engine({"niyama": NIYAMA}), chunks=chunks))
    parts = response.content.split(b"\n\n")
    expected = b"".join(chunks).split(b"\n\n")
    assert [part for i, part in enumerate(parts) if i != 2] == [part for i, part in enumerate(expected) if i != 2]
    told = json.loads(parts[2].removeprefix(b"data: "))
    assert told == {**json.loads(expected[2].removeprefix(b"data: ")), "kv_transfer_params": {"niyama": NIYAMA}}


def test_what_vllm_told_itself_is_left_alone():
    own = event("stop", kv_transfer_params={"niyama": {"class": "Q3"}})
    assert told_in_chunk(own, NIYAMA) == own


@pytest.mark.parametrize(
    "chunk",
    [
        b"",
        b"data: [DONE]\n\n",
        b": keep-alive\n\n",
        b'data: {"finish_reason"\n\n',
        b'data: {"finish_reason": "stop"}\n\n',
        b'data: {"choices": 3, "finish_reason": 1}\n\n',
        b'data: {"choices": [3, {"finish_reason": null}]}\n\n',
        b'event: x\ndata: {"choices": [{"finish_reason": "stop"}]}\n\n',
    ],
)
def test_other_events_pass_byte_by_byte(chunk):
    assert told_in_chunk(chunk, NIYAMA) == chunk


def test_several_events_in_one_chunk_are_told_apart():
    chunk = told_in_chunk(event() + event("stop") + b"data: [DONE]\n\n", NIYAMA)
    assert chunk.count(b'"kv_transfer_params"') == 1
    assert chunk.endswith(b"\n\ndata: [DONE]\n\n")


def test_an_engine_is_watched_once_and_learns_at_once_of_a_client_that_left():
    engine = Engine({"niyama": NIYAMA})
    note_outcomes(engine)
    watched = engine.generate
    note_outcomes(engine)
    assert engine.generate is watched

    async def leave_early():
        outputs = engine.generate("prompt")
        await outputs.__anext__()
        await outputs.aclose()

    asyncio.run(leave_early())
    assert engine.closed == 1


def test_a_server_without_an_engine_client_is_served_all_the_same():
    note_outcomes(None)
    assert knock(PROMPT, echo=Echo()).status_code == 200


def test_a_bad_file_stops_the_server_when_vllm_imports_the_class(tmp_path, monkeypatch):
    """Not later: uvicorn would take an application that fails in its start-up for one without, and serve 500s."""
    bad = tmp_path / "niyama.yaml"
    bad.write_text("strikt: true\n")
    monkeypatch.setenv("NIYAMA_CONFIG", str(bad))
    done = subprocess.run(
        [sys.executable, "-c", "from niyama.vllm import QoSMiddleware"], capture_output=True, text=True, check=False
    )
    assert done.returncode != 0
    assert done.stderr.rstrip().endswith(f"{bad}: strikt is not a known field; did you mean 'strict'?")
