"""QoS and keys hold on every endpoint: also where vLLM drops `vllm_xargs`, and where the body is not ours to read."""

import asyncio
import hashlib
import json
from types import SimpleNamespace

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

from niyama.vllm.qos import KEY, QoSError, serve
from niyama.vllm.serving.endpoints import BATCH, INVOCATIONS, MESSAGES, OTHERS, PATHS
from niyama.vllm.serving.middleware import QoSMiddleware
from tests.helpers.asgi_app import Echo, configured, knock

GENERATE, TRANSCRIPTIONS = "/inference/v1/generate", "/v1/audio/transcriptions"
NIGHT = {"authorization": "Bearer sk-night"}
HASH = hashlib.sha256(b"sk-night").hexdigest()
CONFINED = {"identities": [{"name": "night", "key_sha256": HASH, "classes": ["Q3"]}], "anonymous": ["Q2"]}


class Generating:
    """A stand-in for vLLM: gives the engine the arguments in the body's `extra`, as some endpoint might."""

    def __init__(self, starts_first=False):
        self.asked, self.starts_first = [], starts_first
        self.client = SimpleNamespace(generate=self._generate)

    async def _generate(self, prompt, sampling_params, request_id):
        self.asked.append(sampling_params.extra_args)
        yield SimpleNamespace(kv_transfer_params=None)

    async def __call__(self, scope, receive, send):
        body = json.loads((await receive())["body"] or b"{}")
        kind = b"text/event-stream" if self.starts_first else b"application/json"
        start = {"type": "http.response.start", "status": 200, "headers": [(b"content-type", kind)]}
        if self.starts_first:  # as streams do
            await send(start)
        parameters = SimpleNamespace(extra_args=body.get("extra"))
        for _ in range(body.get("times", 1)):  # beam search and batches reuse theirs
            async for _ in scope["app"].state.engine_client.generate("p", parameters, request_id="r"):
                pass
        if not self.starts_first:
            await send(start)
        await send({"type": "http.response.body", "body": b"{}"})


def generated(path, body, headers=None, *, starts_first=False, kind="application/json", **fields):
    """The response, and the arguments that the engine got."""
    app = Generating(starts_first)

    class Door(Echo):
        async def __call__(self, scope, receive, send):
            await app(scope, receive, send)

    echo = Door(engine=app.client)
    response = knock(body, {"content-type": kind, **(headers or {})}, echo=echo, path=path, config=configured(**fields))
    return response, app.asked


@pytest.mark.parametrize("path", sorted(PATHS | OTHERS))
@pytest.mark.parametrize("starts_first", [False, True])
def test_headers_are_obeyed_and_answered_wherever_tokens_are_generated(path, starts_first):
    headers = {"x-niyama-class": "Q1", "x-slo-ttft-ms": "9000"}
    response, asked = generated(path, {"extra": {"top_n": 3}}, headers, starts_first=starts_first)
    assert asked == [{"top_n": 3, "niyama_class": "Q1", "niyama_ttft_ms": 9000}]
    told = {name: response.headers.get(f"x-niyama-{name}") for name in ("class", "slo-ttft-ms", "slo-tbt-ms")}
    assert told == {"class": "Q1", "slo-ttft-ms": "9000", "slo-tbt-ms": "50"}


@pytest.mark.parametrize("path", sorted(PATHS | OTHERS))
@pytest.mark.parametrize("name", ["Q9", "Q2"])
def test_or_refused_wherever_tokens_are_generated(path, name):
    """Q9 is no class, and Q2 is not this key's."""
    response, asked = generated(path, {}, {**NIGHT, "x-niyama-class": name}, **CONFINED)
    assert (response.status_code, asked) == (400 if name == "Q9" else 403, [])


@pytest.mark.parametrize("path", [*sorted(PATHS | OTHERS), "/v9/of-tomorrow"])
@pytest.mark.parametrize("headers", [NIGHT, {}])
def test_a_key_is_confined_wherever_tokens_are_generated(path, headers):
    _, (got,) = generated(path, {}, headers, **CONFINED)
    assert serve(configured(**CONFINED), got).class_name == ("Q3" if headers else "Q2")
    assert got.get(KEY) == (HASH if headers else None)


def test_an_endpoint_that_nobody_knows_of_is_held_to_the_key_when_it_asks_the_engine():
    for extra in ({"niyama_class": "Q2"}, {KEY: "0" * 64, "niyama_class": "Q2"}):
        with pytest.raises(QoSError):  # a ValueError, which vLLM answers with 400
            generated("/v9/of-tomorrow", {"extra": extra}, NIGHT, **CONFINED)
    _, (got,) = generated("/v9/of-tomorrow", {"extra": {"niyama_class": "Q2"}}, NIGHT, strict=False, **CONFINED)
    assert serve(configured(**CONFINED), got).class_name == "Q3"


def test_a_form_is_held_too():
    response, (got,) = generated(TRANSCRIPTIONS, {}, NIGHT, kind="multipart/form-data; boundary=x", **CONFINED)
    assert got == {KEY: HASH, "niyama_class": "Q3"}
    assert response.headers["x-niyama-class"] == "Q3"


@pytest.mark.parametrize("path", [BATCH, GENERATE])
def test_arguments_that_are_used_for_several_calls_stay_the_same(path):
    _, asked = generated(path, {"times": 3}, NIGHT, **CONFINED)
    assert asked == [{KEY: HASH, "niyama_class": "Q3"}] * 3


def test_anthropics_tier_is_no_class_and_invocations_may_name_one():
    assert generated(MESSAGES, {"service_tier": "standard_only"})[1] == [{"niyama_class": "Q2"}]
    assert generated(INVOCATIONS, {"vllm_xargs": {"niyama_class": "Q3"}})[1] == [{"niyama_class": "Q3"}]


@pytest.mark.parametrize("path", [MESSAGES, BATCH, GENERATE])
def test_where_it_cannot_be_imposed_no_key_is_let_in(path):
    response = knock({}, NIGHT, path=path, config=configured(**CONFINED))
    assert response.status_code == 403 and "cannot hold this endpoint" in response.json()["error"]["message"]
    assert knock({}, path=path).status_code == 200  # without identities there is nothing to hold


def test_a_preprocessed_prompt_is_given_the_qos_too():
    seen = []

    async def generate(prompt, sampling_params):
        seen.append((prompt.sampling_params.extra_args, sampling_params.extra_args))
        yield None

    client = SimpleNamespace(generate=generate)

    async def app(scope, receive, send):
        one, other = SimpleNamespace(extra_args=None), SimpleNamespace(extra_args={"a": 1})
        async for _ in client.generate(prompt=SimpleNamespace(sampling_params=one), sampling_params=other):
            pass

    scope = {"type": "websocket", "path": "/v1/realtime", "headers": [(b"x-niyama-class", b"Q3")]}
    scope["app"] = SimpleNamespace(state=SimpleNamespace(engine_client=client))
    asyncio.run(QoSMiddleware(app, configured())(scope, None, None))
    assert seen == [({"a": 1, "niyama_class": "Q3"},) * 2]
