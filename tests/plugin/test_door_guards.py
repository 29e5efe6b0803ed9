"""What the door does before it works for anybody: keys first, and no body that makes others wait."""

import asyncio
import hashlib
import itertools
import json
import threading
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

from niyama.vllm.serving import bodies, endpoints
from niyama.vllm.serving.bodies import LONG_BODY_BYTES, MOST_CONTAINERS, has_too_many_parts
from niyama.vllm.serving.middleware import QoSMiddleware
from tests.helpers.asgi_app import COMPLETIONS, Echo, configured, knock

HASH = hashlib.sha256(b"sk-night").hexdigest()
CLOSED = {"identities": [{"name": "night", "key_sha256": HASH, "classes": ["Q3"]}], "anonymous": []}
WRONG = [
    [],
    [(b"authorization", b"Bearer no")],
    [(b"authorization", b"Basic sk-night")],
    [(b"authorization", b"Bearer ")],
]


def knock_unread(config, headers, *, api_key=None, path=COMPLETIONS, kind="http"):
    """What is sent to a client whose body would be an error to read."""
    sent = []

    async def receive():
        raise AssertionError("the body is read")

    async def send(message):
        sent.append(message)

    state = SimpleNamespace(engine_client=None, args=SimpleNamespace(api_key=api_key))
    scope = {"type": kind, "method": "POST", "path": path, "app": SimpleNamespace(state=state)}
    scope["headers"] = [(b"content-type", b"application/json"), (b"x-niyama-class", b"Q9"), *headers]
    asyncio.run(QoSMiddleware(Echo(), config)(scope, receive, send))
    return sent


@pytest.mark.parametrize("headers", WRONG)
@pytest.mark.parametrize("how", ["--api-key", "VLLM_API_KEY", "identities"])
def test_without_a_key_nothing_is_read_and_no_class_is_named(headers, how, monkeypatch):
    if how == "VLLM_API_KEY":
        monkeypatch.setenv("VLLM_API_KEY", "sk-night")
    config = configured(**(CLOSED if how == "identities" else {}))
    start, end = knock_unread(config, headers, api_key=["a", "sk-night"] if how == "--api-key" else None)
    assert start["status"] == 401 and b"Q1" not in end["body"] and b"Authorization: Bearer" in end["body"]


def test_with_a_key_the_request_goes_on(monkeypatch):
    key = {"authorization": "Bearer sk-night"}
    monkeypatch.setenv("VLLM_API_KEY", "sk-night")
    assert knock({"prompt": "x"}, key).headers["x-niyama-class"] == "Q2"
    assert knock({"prompt": "x"}, key, config=configured(**CLOSED)).headers["x-niyama-class"] == "Q3"
    assert knock({"prompt": "x"}).status_code == 401


def test_vllms_key_is_asked_for_where_vllm_asks_and_a_closed_list_everywhere(monkeypatch):
    monkeypatch.setenv("VLLM_API_KEY", "sk-night")
    assert knock({}, path="/invocations").status_code == 200  # which vLLM leaves open
    assert knock({}, path="/invocations", config=configured(**CLOSED)).status_code == 401
    assert knock(b"", path="/health", method="GET", config=configured(**CLOSED)).status_code == 200


def test_a_websocket_without_a_key_is_closed():
    sent = knock_unread(configured(**CLOSED), [], path="/v1/realtime", kind="websocket")
    assert sent == [{"type": "websocket.close", "code": 1008}]


LONG = json.dumps({"prompt": "x" * LONG_BODY_BYTES}).encode()


def test_while_a_long_body_is_parsed_everybody_else_is_served(monkeypatch):
    """The parser waits until another request has been answered, which it is only if the event loop goes on."""
    answered, parsers = threading.Event(), []
    whole = endpoints.json.loads

    def slow(body):
        if len(body) > LONG_BODY_BYTES:
            parsers.append(threading.get_ident())
            assert answered.wait(60), "nobody else was served meanwhile"
        return whole(body)

    monkeypatch.setattr(endpoints, "json", SimpleNamespace(loads=slow, dumps=json.dumps))
    door = QoSMiddleware(Echo(reply={}), configured())

    async def one(method, path, body):
        sent, messages = [], [{"type": "http.request", "body": body, "more_body": False}]

        async def receive():
            return messages.pop(0)

        async def send(message):
            sent.append(message)

        headers = [(b"content-type", b"application/json")]
        await door({"type": "http", "method": method, "path": path, "headers": headers}, receive, send)
        return sent[0]["status"]

    async def both():
        long = asyncio.create_task(one("POST", COMPLETIONS, LONG))
        while not parsers:
            await asyncio.sleep(0)
        statuses = [await one("GET", "/health", b""), await one("POST", COMPLETIONS, b'{"prompt": "x"}')]
        answered.set()
        return [*statuses, await long], threading.get_ident()

    statuses, loop_thread = asyncio.run(both())
    assert statuses == [200] * 3 and loop_thread not in parsers


@pytest.mark.parametrize("path", [COMPLETIONS, "/tokenize"])
@pytest.mark.parametrize("one", [b"[],", b"{},", b'{"a":[]},'])
def test_a_body_of_too_many_parts_is_refused(path, one):
    echo, body = Echo(reply={}), b'{"x":[' + one * MOST_CONTAINERS + b"0]}"
    response = knock(body, echo=echo, path=path)
    assert (response.status_code, echo.got) == (400, [])
    assert str(MOST_CONTAINERS) in response.json()["error"]["message"]


def test_what_stands_in_strings_is_no_part():
    text = '[{"\\' * MOST_CONTAINERS
    assert not has_too_many_parts(json.dumps({"prompt": text, "other": [[1]] * 9}).encode())
    assert not has_too_many_parts(b"[" * MOST_CONTAINERS) and has_too_many_parts(b"[" * (MOST_CONTAINERS + 1))


def parts_of(body):
    """Lists and objects outside strings, told a byte at a time; a string that does not end is one to the end."""
    count, inside, escaped = 0, False, False
    for byte in body:
        if escaped:
            escaped = False
        elif inside:
            inside, escaped = byte != ord('"'), byte == ord("\\")
        else:
            inside, count = byte == ord('"'), count + (byte in b"[{")
    return count


def test_parts_are_counted_as_a_byte_by_byte_reader_does(monkeypatch):
    """Every body of up to six of these bytes. And no quote is looked at in vain: that is what makes it linear."""
    for size in range(7):
        for letters in itertools.product(b'"\\[\n', repeat=size):
            body = bytes(letters)
            count = parts_of(body)
            for most in range(max(0, count - 1), count + 1):
                monkeypatch.setattr(bodies, "MOST_CONTAINERS", most)
                assert has_too_many_parts(body) == (count > most), body
            assert b'"' not in body or bodies._STRING_OR_CONTAINER.match(body, body.index(b'"')), body


def test_a_string_that_does_not_end_is_read_once():
    """A search from each of its quotes would be ten billion steps."""
    body = b'"' + b'\\"' * 1_000_000 + b"[" * (MOST_CONTAINERS + 1)
    assert sum(1 for _ in bodies._STRING_OR_CONTAINER.finditer(body)) == 1
    assert not has_too_many_parts(body)


FORM = (b"content-type", b"multipart/form-data; boundary=x")
UPLOADS = sorted(endpoints.AUDIO)


def test_the_limit_holds_for_bodies_that_are_not_ours_too():
    assert knock(b" " * 2000, path="/tokenize", config=configured(max_body_bytes=1024)).status_code == 413


@pytest.mark.parametrize("kind", endpoints.FORMS)
@pytest.mark.parametrize("path", [*sorted(endpoints.PATHS), "/tokenize"])
def test_a_form_is_no_way_round_the_limit_where_none_is_taken(path, kind):
    """And what nobody would parse is not passed on either: vLLM reads a body before it sees that it is no JSON."""
    echo = Echo(reply={})
    form, limited = {"content-type": kind.decode()}, configured(max_body_bytes=1024)
    assert knock(b" " * 2000, form, path=path, config=limited, echo=echo).status_code == 413
    assert echo.got == []


@pytest.mark.parametrize("path", UPLOADS)
def test_an_upload_has_a_limit_of_its_own(path):
    limited = configured(max_body_bytes=1024, max_upload_bytes=3000)
    echo, form = Echo(reply={}), [FORM]
    assert knock(b"[" * 3000, form, path=path, config=limited, echo=echo).status_code == 200
    assert echo.got[0][1] == b"[" * 3000
    response = knock(b" " * 3001, form, path=path, config=limited, echo=echo)
    assert (response.status_code, len(echo.got)) == (413, 1)
    assert "3000 bytes" in response.json()["error"]["message"] and "max_upload_bytes" in response.text


async def answers_400(receive, send):
    """As FastAPI does when a form does not come to its end."""
    while (await receive())["type"] != "http.disconnect":
        pass
    await send({"type": "http.response.start", "status": 400, "headers": []})
    await send({"type": "http.response.body", "body": b"", "more_body": False})


async def gives_up(receive, send):
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ConnectionError


async def has_answered(receive, send):
    """Before it reads."""
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await gives_up(receive, send)


def uploaded(app, pieces):
    """Statuses that are sent for an upload in pieces of 600 bytes where 1024 are the limit; how many are read."""
    sent, read = [], []

    async def receive():
        read.append(len(sent))
        return {"type": "http.request", "body": b"x" * 600, "more_body": len(read) < pieces}

    async def send(message):
        sent.append(message)

    async def inner(scope, receive, send):
        await app(receive, send)

    scope = {"type": "http", "method": "POST", "path": UPLOADS[0], "headers": [FORM]}
    try:
        asyncio.run(QoSMiddleware(inner, configured(max_upload_bytes=1024))(scope, receive, send))
    except ConnectionError:
        sent.append({"status": "raised"})
    return [message["status"] for message in sent if "status" in message], len(read)


@pytest.mark.parametrize("app", [answers_400, gives_up])
def test_an_upload_without_end_is_cut_off_whatever_the_application_makes_of_it(app):
    assert uploaded(app, pieces=10**9) == ([413], 2 + 4)  # and as many again, twice, are thrown away
    assert uploaded(app, pieces=2) == ([413], 2)


def test_an_answer_that_has_begun_stays_the_only_one():
    assert uploaded(has_answered, pieces=10**9) == ([404, "raised"], 2)
