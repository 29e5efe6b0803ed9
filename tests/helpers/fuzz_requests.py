"""What clients of all kinds send to a running server: well-formed requests, nonsense, spoofing; all from one seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

from niyama.vllm.qos import APP, CLASS, FIELDS, IMPORTANCE, KEY, MAX_MS, TBT_MS, TTFT_MS, TTLT_MS
from niyama.vllm.serving.endpoints import BATCH, INVOCATIONS, MESSAGES
from niyama.vllm.serving.endpoints import PATHS as QOS_PATHS
from tests.helpers.raw_http import Knock, request

COMPLETIONS, CHAT, RESPONSES = "/v1/completions", "/v1/chat/completions", "/v1/responses"
GENERATE = "/inference/v1/generate"  # vLLM serves it with --enable-scale-out alone
ALL, NIGHT = b"sk-all", b"sk-night"
CONFIG = {
    "classes": [
        {"name": "Q1", "ttft_s": 0.5, "tbt_s": 0.05, "ttft_s_range": [0.1, 60.0]},
        {"name": "Q2", "ttlt_s": 2.0},
        {"name": "Q3", "ttlt_s": 1800.0, "importance": "low"},
    ],
    "default_class": "Q2",
    "service_tiers": {"priority": "Q1", "default": "Q2", "flex": "Q3"},
    "identities": [
        {"name": "all", "key_sha256": hashlib.sha256(ALL).hexdigest(), "classes": ["Q1", "Q2", "Q3"]},
        {"name": "night", "key_sha256": hashlib.sha256(NIGHT).hexdigest(), "classes": ["Q3"]},
    ],
    "anonymous": ["Q2", "Q3"],
    "max_body_bytes": 60_000,
}
#: Prompt and output together, at most; the KV cache holds little more, so that requests also lose it to each other.
MODEL_TOKENS = 1024
KV_BLOCKS = 256

_SLO_HEADERS = {TTFT_MS: b"x-llm-d-slo-ttft-ms", TBT_MS: b"x-slo-tpot-ms", TTLT_MS: b"x-niyama-slo-ttlt-ms"}
_HEADERS = {**_SLO_HEADERS, CLASS: b"x-niyama-class", IMPORTANCE: b"x-niyama-importance"}
_NAN, _HUGE, _LONE = float("nan"), 10**40, "\ud800"
_TEXTS = ["", " ", "Q9", "q1", "Ω≈ç", _LONE, "\x00", "Q1\n", "a" * 300, "__proto__", "${jndi:x}", "1e3"]
_SCALARS = [None, True, -1, 0, 1.5, _NAN, float("inf"), -float("inf"), _HUGE, -_HUGE, *_TEXTS]
_VALUES = [*_SCALARS, [], {}, ["Q1"], {"a": [None]}, [[[]]]]
_HEADER_VALUES = [b"", b"-1", b"1.5", b"nan", b"inf", b"1e9", b"0x10", b"9" * 400, b"\xff\xfe", b"\xc2\xb2", b"7, 7"]
#: vLLM's own fields, and values that it must refuse.
_VLLM = {
    "max_tokens": [-1, "x", 1.5, _HUGE, []],
    "n": [0, -1, "x", 10**9],
    "temperature": [-1, "hot", []],
    "top_p": [0, 2, "x"],
    "prompt": [[], {}, 5, [-1], [[]], ["a", 1]],
    "stream": ["perhaps", 5],
    "logit_bias": [{"x": 1}, 5],
    "stop": [5, {}],
    "vllm_xargs": [5, "x", [1]],
}


def _bearer(key: bytes) -> tuple[bytes, bytes]:
    return b"Authorization", b"Bearer " + key


def _body(rng: random.Random, path: str, **fields: Any) -> dict[str, Any]:
    text = "".join(rng.choices("abc ü語", k=rng.choice([1, 20, 200, 450])))
    prompt = {COMPLETIONS: {"prompt": text}, RESPONSES: {"input": text}}
    said = prompt.get(path) or {"messages": [{"role": "user", "content": text}]}
    limit = "max_output_tokens" if path == RESPONSES else "max_tokens"
    return {limit: rng.choice([1, 4, 16]), **said, **fields}


def well_formed(rng: random.Random) -> Knock:
    """A class named in one of three ways, or none; n, streams, every path."""
    name, path = rng.choice(["Q1", "Q2", "Q3"]), rng.choice([COMPLETIONS, COMPLETIONS, CHAT, RESPONSES])
    headers, body = [_bearer(ALL)], _body(rng, path, stream=rng.random() < 0.4)
    if path != RESPONSES:
        body["n"] = rng.choice([1, 1, 1, 3])
    how = rng.choice(["header", "xargs", "tier", "both", "none"])
    if how in ("header", "both"):
        headers.append((b"X-NIYAMA-class", name.encode()))
    if how in ("xargs", "both"):
        body["vllm_xargs"] = {CLASS: name, APP: rng.choice(["a", "Ω", "\x00"])}
    if how == "tier":
        body["service_tier"] = {"Q1": "priority", "Q2": "default", "Q3": "flex"}[name]
    if name == "Q1" and how in ("header", "xargs"):
        headers.append((b"x-slo-ttft-ms", b"%d" % rng.choice([1, 7000, MAX_MS])))
    served = "Q2" if how == "none" else name
    return Knock(f"well-formed, class by {how}", request(path, body, headers), None, (200,), None, served)


def _elsewhere(rng: random.Random, model: str) -> tuple[str, dict[str, Any]]:
    """A request to one of the endpoints that agents, batches and gateways use."""
    said, limit = [{"role": "user", "content": rng.choice("abc")}], {"max_tokens": rng.choice([1, 4, 16])}
    bodies = {
        MESSAGES: {"model": model, "messages": said, "stream": rng.random() < 0.5, **limit},
        BATCH: {"messages": [said] * rng.choice([1, 3]), **limit},
        INVOCATIONS: {"messages": said, "stream": rng.random() < 0.5, **limit},
    }
    return rng.choice(list(bodies.items()))


def elsewhere(rng: random.Random, model: str) -> Knock:
    """A class by header on any endpoint, or none."""
    (path, body), name = _elsewhere(rng, model), rng.choice(["Q1", "Q2", "Q3", None])
    headers = [_bearer(ALL)] + ([(b"x-niyama-class", name.encode())] if name else [])
    return Knock(f"{name} on {path}", request(path, body, headers), None, (200,), None, name or "Q2")


def confined_elsewhere(rng: random.Random, model: str) -> Knock:
    """A key of one class on any endpoint, which asks for another, or for none."""
    (path, body), name = _elsewhere(rng, model), rng.choice(["Q1", None])
    headers = [_bearer(NIGHT)] + ([(b"x-niyama-class", name.encode())] if name else [])
    served = None if name else "Q3"
    return Knock(f"confined on {path}", request(path, body, headers), None, (403 if name else 200,), None, served)


def twins(rng: random.Random) -> Knock:
    """Well-formed, with a request id that others have too."""
    headers = [_bearer(NIGHT), (b"X-Request-Id", rng.choice([b"same", b"0", b"\xff"]))]
    return Knock("twin", request(COMPLETIONS, _body(rng, COMPLETIONS), headers), None, (200,), None, "Q3")


def leaver(rng: random.Random) -> Knock:
    """A long answer, whole or streamed, one or several; the client does not wait for its end."""
    path = rng.choice([COMPLETIONS, CHAT])
    body = _body(rng, path, stream=rng.random() < 0.7, n=rng.choice([1, 1, 4]), max_tokens=rng.choice([50, 300]))
    headers = [_bearer(ALL), (b"x-niyama-class", rng.choice([b"Q1", b"Q2", b"Q3"]))]
    return Knock("leaver", request(path, body, headers), rng.choice([0.0, 0.02, 0.3, 1.5]) * rng.random())


def cut(rng: random.Random) -> Knock:
    """The client leaves, or says nothing more, in the middle of its request."""
    whole = request(COMPLETIONS, _body(rng, COMPLETIONS), [_bearer(ALL)])
    return Knock("cut", whole[: rng.randrange(1, len(whole))], 0.2 * rng.random())


def wrong_value(rng: random.Random) -> Knock:
    """A QoS field with a value that it cannot have, in a header or in the body."""
    field = rng.choice(FIELDS)
    own = "Q1" if field in (TTFT_MS, TBT_MS) else "Q2"
    headers, xargs = [_bearer(ALL)], {} if field == CLASS else {CLASS: own}
    if field in _HEADERS and rng.random() < 0.5:
        name, value = _HEADERS[field], rng.choice(_HEADER_VALUES)
        headers.append((name, value))
        label = name.decode()
    else:
        values = [v for v in _VALUES if not (field == APP and isinstance(v, str) and 1 <= len(v) <= 128 and v != _LONE)]
        xargs[field], label = rng.choice(values), field
    body = _body(rng, COMPLETIONS, vllm_xargs=xargs)
    return Knock(f"wrong {label}", request(COMPLETIONS, body, headers), None, (400,), label)


def wrong_tier(rng: random.Random) -> Knock:
    """A service_tier that is none."""
    body = _body(rng, CHAT, service_tier=rng.choice([v for v in _VALUES if v is not None]))
    return Knock("wrong tier", request(CHAT, body, [_bearer(ALL)]), None, (400,), "service_tier")


def unknown_field(rng: random.Random) -> Knock:
    """A field of our prefix that there is not."""
    body = _body(rng, COMPLETIONS, vllm_xargs={"niyama_" + rng.choice(["", "x", "Ω", "y" * 90]): rng.choice(_VALUES)})
    return Knock("unknown field", request(COMPLETIONS, body, [_bearer(ALL)]), None, (400,), "niyama_")


def conflict(rng: random.Random) -> Knock:
    """Header and body, or two headers, that disagree."""
    headers, body = [_bearer(ALL), (b"x-niyama-class", b"Q1")], _body(rng, COMPLETIONS)
    if rng.random() < 0.5:
        body["vllm_xargs"] = {CLASS: rng.choice(["Q2", "Q3", 1, None])}
    else:
        headers.append((b"X-Niyama-Class", b"Q3"))
    return Knock("conflict", request(COMPLETIONS, body, headers), None, (400,), "x-niyama-class")


def spoofed_class(rng: random.Random) -> Knock:
    """A class that the key, or no key, does not grant."""
    keys = [[], [_bearer(NIGHT)], [_bearer(b"wrong")], [_bearer(ALL), _bearer(NIGHT)], [(b"Authorization", b"\xff")]]
    headers, body = list(rng.choice(keys)), _body(rng, COMPLETIONS)
    how = rng.choice(["x-niyama-class", CLASS, "service_tier"])
    if how == CLASS:
        body["vllm_xargs"] = {CLASS: "Q1"}
    elif how == "service_tier":
        body["service_tier"] = "priority"
    else:
        headers.append((b"x-niyama-class", b"Q1"))
    return Knock("spoofed class", request(COMPLETIONS, body, headers), None, (403,), how)


def spoofed_key(rng: random.Random) -> Knock:
    """Another client's hash."""
    body = _body(rng, COMPLETIONS, vllm_xargs={KEY: hashlib.sha256(ALL).hexdigest(), CLASS: "Q1"})
    return Knock("spoofed key", request(COMPLETIONS, body, [_bearer(NIGHT)]), None, (400,), KEY)


def lone_surrogate(rng: random.Random) -> Knock:
    """No Unicode, in a field that vLLM would take."""
    field = rng.choice(["stop", "user", "prompt", "bad_words"])
    body = _body(rng, COMPLETIONS) | {field: [_LONE] if field == "bad_words" else f"a{_LONE}"}
    return Knock("lone surrogate", request(COMPLETIONS, body, [_bearer(ALL)]), None, (400,), field)


def spoofed_priority(rng: random.Random) -> Knock:
    """vLLM's own priority, whatever it is: no client's to set, so it is not even read."""
    headers = [_bearer(ALL), (b"X-Vllm-Priority", rng.choice([b"-9", b"nan", b"9" * 50, b"\xff"]))]
    body = _body(rng, COMPLETIONS, priority=rng.choice(_VALUES))
    return Knock("spoofed priority", request(COMPLETIONS, body, headers), None, (200,), None, "Q2")


def vllms_to_refuse(rng: random.Random) -> Knock:
    """One of vLLM's own fields with nonsense in it."""
    field = rng.choice(list(_VLLM))
    value = rng.choice(_VLLM[field])
    body = _body(rng, COMPLETIONS) | {field: value}
    return Knock(f"{field}={value!r}", request(COMPLETIONS, body, [_bearer(ALL)]), None, (400, 422), field)


def no_request(rng: random.Random) -> Knock:
    """A body that is no JSON, or JSON that is no object."""
    bodies = [b"", b"{", b"\xff\xfe", b"[]", b"null", b"NaN", b'"x"', b"{}" * 9, b"[" * 50_000, b'{"a":' * 9_000]
    return Knock("no request", request(rng.choice([COMPLETIONS, CHAT]), rng.choice(bodies)), None, (400, 422))


def too_large(rng: random.Random) -> Knock:
    """A body beyond the limit, with its length told, told wrong, or not told."""
    body = json.dumps(_body(rng, COMPLETIONS) | {"prompt": "a" * 70_000}).encode()
    if rng.random() < 0.5:
        return Knock("too large", request(COMPLETIONS, body), None, (413,), "max_body_bytes")
    chunked = b"%x\r\n" % len(body) + body + b"\r\n0\r\n\r\n"
    sent = request(COMPLETIONS, chunked, [(b"Transfer-Encoding", b"chunked")], length=False)
    return Knock("too large in chunks", sent, None, (413,), "max_body_bytes")


def malformed(rng: random.Random) -> Knock:
    """HTTP that is none."""
    headers = [(b"x-niyama-class", b"Q1\x00"), (b"bad name", b"1"), (b"", b"1"), (b"Content-Length", b"9")]
    header = rng.choice([*headers, (b"X", b"a" * 200_000)])
    return Knock("malformed", request(COMPLETIONS, _body(rng, COMPLETIONS), [header]))


def anything(rng: random.Random) -> Knock:
    """Random values in random fields, ours and vLLM's, on any path: no more is asked than an answer."""
    path = rng.choice([COMPLETIONS, CHAT, RESPONSES, MESSAGES, GENERATE, INVOCATIONS])
    body, values = _body(rng, path), _VALUES
    if path not in QOS_PATHS:  # whose bodies nobody but vLLM reads
        values = [value for value in _VALUES if value != _LONE]
    others = ["service_tier", "priority", "seed", "min_tokens", "kv_transfer_params", "user"]
    for field in rng.sample([*_VLLM, *others], 3):
        body[field] = rng.choice(values)
    if rng.random() < 0.5:
        body["vllm_xargs"] = {rng.choice([*FIELDS, "x"]): rng.choice(values) for _ in range(2)}
    names = rng.sample(list(_HEADERS.values()), rng.choice([0, 0, 1, 2]))
    headers = [(name, rng.choice(_HEADER_VALUES)) for name in names]
    leaves_s = 2.0 * rng.random() if rng.random() < 0.3 else None
    return Knock(f"anything on {path}: {body!r}"[:400], request(path, body, headers), leaves_s)


def cancelled(rng: random.Random) -> Knock:
    """A long response in the background, and on the same connection the word to cancel it."""
    name, key = rng.choice(["Q1", "Q2", "Q3"]), f"resp_{rng.getrandbits(64):x}"
    body = _body(rng, RESPONSES, background=True, store=True, request_id=key) | {"max_output_tokens": 300}
    headers = [_bearer(ALL), (b"x-niyama-class", name.encode())]
    sent = request(RESPONSES, body, headers, last=False) + request(f"{RESPONSES}/{key}/cancel", b"")
    return Knock("cancelled", sent, None, (200,), '"status":"cancelled"', name)


_KINDS: dict[Callable[..., Knock], int] = {
    well_formed: 6, leaver: 8, twins: 3, cut: 3, wrong_value: 6, wrong_tier: 2, unknown_field: 1, conflict: 2,
    spoofed_class: 2, spoofed_key: 1, spoofed_priority: 2, vllms_to_refuse: 3, no_request: 2, too_large: 1,
    lone_surrogate: 1, malformed: 2, anything: 6, cancelled: 3, elsewhere: 4, confined_elsewhere: 3,
}  # fmt: skip


def knocks(seed: int, n: int, model: str) -> Iterator[Knock]:
    """n requests of all kinds, shuffled; the same for the same seed. model: as the server calls it."""
    rng = random.Random(seed)
    kinds = list(_KINDS)
    for kind in rng.choices(kinds, [_KINDS[kind] for kind in kinds], k=n):
        yield kind(rng, model) if kind in (elsewhere, confined_elsewhere) else kind(rng)
