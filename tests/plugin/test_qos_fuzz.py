"""Whatever a client sends: never an exception, never a 5xx of ours, never more than its key grants."""

import asyncio
import hashlib
import json
import math

import pytest

pytest.importorskip("prometheus_client", reason="prometheus_client comes with vLLM")
pytest.importorskip("httpx", reason="httpx comes with vLLM")

from hypothesis import given, settings
from hypothesis import strategies as st

from niyama.vllm.config import ConfigError, EngineConfig, load_config
from niyama.vllm.qos import FIELDS, KEY, MAX_MS, UNKNOWN, QoSError, parse, serve
from niyama.vllm.served_class import MAX_SLO_S
from niyama.vllm.serving.answer import told_in_chunk
from niyama.vllm.serving.http_qos import HEADERS
from niyama.vllm.serving.middleware import QoSMiddleware
from tests.helpers.asgi_app import COMPLETIONS, Echo, configured

KEYS = {"sk-all": ("Q1", "Q2", "Q3"), "sk-night": ("Q3",)}
IDENTITIES = [
    {"name": key, "key_sha256": hashlib.sha256(key.encode()).hexdigest(), "classes": list(classes)}
    for key, classes in KEYS.items()
]
CONFIGS = [
    EngineConfig(),
    configured(strict=False),
    configured(identities=IDENTITIES, anonymous=["Q2"]),
    configured(identities=IDENTITIES, strict=False),
    configured(
        classes=[
            {"name": "Q1", "ttft_s": 2, "tbt_s": 0.1, "ttft_s_range": [0.5, 9], "tbt_s_range": [0.1, 0.1]},
            {"name": "Q2", "ttlt_s": 60, "importance": "low"},
            {"name": "Q3", "ttlt_s": 1e-3, "ttlt_s_range": [1e-3, MAX_SLO_S]},
        ]
    ),
]

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-2, 10)
    | st.integers(MAX_MS - 2, MAX_MS + 2)
    | st.floats()
    | st.text(max_size=8)
    | st.sampled_from(["Q1", "Q2", "Q3", "high", "low", "auto", "flex", "priority", "6000"])
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner), max_leaves=5
)
fields = st.sampled_from([*FIELDS, KEY, "niyama_", "niyama_else", "other"]) | st.text(max_size=8)
xargs = st.dictionaries(fields, scalars | values, max_size=6)
bodies = st.fixed_dictionaries(
    {"model": st.just("m")},
    optional={"vllm_xargs": xargs | values, "service_tier": scalars | values, "priority": values, "prompt": values},
)
header_values = (
    st.integers(-5, MAX_MS + 5).map(lambda n: str(n).encode())
    | st.sampled_from([b"Q1", b"Q2", b"Q3", b"high", b"low", b"", b" ", b"1e3", b"0x10", b"\xb2", b"\xff\x00"])
    | st.binary(max_size=12)
)
header_names = st.sampled_from([name.encode() for name in HEADERS]).flatmap(
    lambda n: st.sampled_from([n, n.upper(), n.title()])
)
credentials = st.sampled_from([b"Bearer sk-all", b"Bearer sk-night", b"Bearer no", b"bearer ", b"Basic x", b"\xff"])
headers = st.lists(
    st.tuples(header_names, header_values)
    | st.tuples(st.sampled_from([b"authorization", b"Authorization"]), credentials)
    | st.tuples(st.binary(max_size=6), st.binary(max_size=6)),
    max_size=5,
)


def enter(config, pairs, body):
    """Status, response headers and body, and what vLLM got, for a request made of bytes."""
    echo, sent = Echo(reply={}), []
    messages = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive():
        return messages.pop(0)

    async def send(message):
        sent.append(message)

    all_pairs = [(b"content-type", b"application/json"), *pairs]
    scope = {"type": "http", "method": "POST", "path": COMPLETIONS, "headers": all_pairs}
    asyncio.run(QoSMiddleware(echo, config)(scope, receive, send))
    answer = b"".join(message.get("body", b"") for message in sent[1:])
    return sent[0]["status"], dict(sent[0]["headers"]), answer, echo


def granted(pairs):
    """The classes that the key in the headers grants, under IDENTITIES; None when there is no single known key."""
    given = [value for name, value in pairs if name.lower() == b"authorization"]
    return KEYS.get(given[0].removeprefix(b"Bearer ").decode("latin-1")) if len(given) == 1 else None


def assert_promised(config, served):
    """A promise that the kernel can be given."""
    own = config.classes[served.class_index]
    assert (own.name, own.ttft_s is not None) == (served.class_name, served.interactive)
    low_s, high_s = own.bounds_s("ttft_s" if served.interactive else "ttlt_s")
    assert low_s <= served.deadline_slo_s <= high_s
    assert math.isfinite(served.deadline_slo_s)
    assert served.tbt_s > 0 if served.interactive else served.tbt_s == 0.0
    assert own.important or not served.important
    assert 0 <= served.app < config.app_count
    assert (served.fault is None) == (served.fault_field is None)
    if served.fault is not None:
        assert served.fault_field in (*FIELDS, UNKNOWN)
        assert served.fault.isprintable()
        assert len(served.fault) < 400


@settings(max_examples=200)
@given(st.sampled_from(CONFIGS), xargs | st.none() | values)
def test_the_engine_serves_everything(config, extra_args):
    assert_promised(config, serve(config, extra_args))


@settings(max_examples=150)
@given(st.sampled_from(CONFIGS), headers, bodies)
def test_the_door_lets_in_what_the_engine_will_honour_and_answers_the_rest(config, pairs, body):
    status, sent, answer, echo = enter(config, pairs, json.dumps(body).encode())
    assert status in ((200, 400, 403) if config.strict else (200,))
    if status != 200:
        error = json.loads(answer)["error"]
        assert (error["code"], echo.got) == (status, [])
        assert error["message"].startswith(error["param"])
        return
    if b"x-niyama-class" not in sent:  # vllm_xargs is no object: vLLM says so
        assert not isinstance(body["vllm_xargs"], dict)
        return
    served = serve(config, echo.body["vllm_xargs"])
    assert_promised(config, served)
    assert (served.fault, served.class_name.encode()) == (None, sent[b"x-niyama-class"])
    assert "priority" not in echo.body
    if config.identities:
        assert served.class_name in (granted(pairs) or config.anonymous or (config.default_class,))


@settings(max_examples=200)
@given(st.sampled_from(CONFIGS), headers, st.binary(max_size=60) | values.map(lambda v: json.dumps(v).encode()))
def test_bodies_that_are_no_requests_are_vllms_to_refuse(config, pairs, body):
    status, _, _, echo = enter(config, pairs, body)
    assert status in (200, 400, 403)
    if status == 200:
        assert len(echo.got) == 1


@given(
    st.sampled_from(["niyama_ttft_ms", "niyama_tbt_ms", "niyama_ttlt_ms"]),
    st.integers(max_value=0) | st.integers(min_value=MAX_MS + 1) | st.floats() | st.booleans() | st.text(max_size=5),
)
def test_an_slo_that_is_no_integer_in_range_is_refused_before_it_is_scaled(field, value):
    name = "Q2" if field == "niyama_ttlt_ms" else "Q1"
    with pytest.raises(QoSError) as refusal:
        parse(CONFIGS[0], {"niyama_class": name, field: value})
    assert refusal.value.field == field
    assert serve(CONFIGS[0], {"niyama_class": name, field: value}).class_name == "Q2"


@settings(max_examples=100)
@given(st.binary(max_size=80) | st.lists(values.map(lambda v: b"data: " + json.dumps(v).encode())).map(b"\n\n".join))
def test_any_stream_passes(chunk):
    told = told_in_chunk(chunk, {"class": "Q1", "relegated": False})
    if b"finish_reason" not in chunk:
        assert told == chunk


class_fields = dict.fromkeys(("ttft_s", "tbt_s", "ttlt_s", "importance"), scalars)
classes = st.lists(st.fixed_dictionaries({"name": scalars}, optional=class_fields), max_size=3)
config_values = values | st.sampled_from(["niyama", "a100-llama3-8b-linear", "Q1", "Q2"]) | classes


@settings(max_examples=150)
@given(
    st.dictionaries(st.sampled_from(sorted(EngineConfig.model_fields)) | st.text(max_size=5), config_values, max_size=4)
)
def test_any_configuration_is_accepted_or_refused_line_by_line(fields):
    try:
        config = load_config({"niyama": fields}, {})
    except ConfigError as error:
        assert all(line.startswith("additional_config niyama: ") for line in str(error).splitlines())
    else:
        assert_promised(config, serve(config, None))
