"""From an HTTP request to the QoS that goes on to vLLM: headers, `service_tier` and `vllm_xargs` become one.

Nothing here touches a socket: headers and parsed body in, body and promise out.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from niyama.vllm.config import EngineConfig
from niyama.vllm.qos import (
    CLASS,
    IMPORTANCE,
    KEY,
    PREFIX,
    TBT_MS,
    TTFT_MS,
    TTLT_MS,
    UNKNOWN,
    VERSION,
    QoSError,
    Served,
    fall_back,
    parse,
    show,
)
from niyama.vllm.serving.keys import Headers, key_sha256

#: Header -> field; llm-d's names, its older ones, and ours for what it lacks.
HEADERS = {
    "x-niyama-class": CLASS,
    "x-llm-d-slo-ttft-ms": TTFT_MS,
    "x-slo-ttft-ms": TTFT_MS,
    "x-llm-d-slo-tpot-ms": TBT_MS,
    "x-slo-tpot-ms": TBT_MS,
    "x-niyama-slo-ttlt-ms": TTLT_MS,
    "x-niyama-importance": IMPORTANCE,
}
XARGS, TIER, PRIORITY = "vllm_xargs", "service_tier", "priority"
#: OpenAI's "let the server choose", and Anthropic's "not by priority": no class named.
AUTO, STANDARD_ONLY = "auto", "standard_only"
_DIGITS = re.compile(r"[0-9]{1,18}")


@dataclass(frozen=True)
class Asked:
    """body: what vLLM gets. tier: the client's service_tier, to be echoed. fault: why the default class was taken."""

    body: dict[str, Any]
    served: Served
    tier: str | None = None
    fault: QoSError | None = None


def ask(config: EngineConfig, headers: Headers, body: Mapping[str, Any], version: str | None = None) -> Asked | None:
    """The one QoS that headers and body ask for; None if vLLM must refuse the body (its `vllm_xargs` is no object).

    version: what the engine is told that this was promised by. Raises QoSError when the configuration is strict; else
    bad QoS gets the client's default class.
    """
    xargs = {} if body.get(XARGS) is None else body[XARGS]
    if not isinstance(xargs, Mapping):
        return None
    pairs = [(name.decode("latin-1").lower(), value.decode("latin-1").strip()) for name, value in headers]
    ours = {KEY: key_sha256(headers) if config.identities else None, VERSION: version}
    ours = {name: value for name, value in ours.items() if value is not None}
    try:
        fields, tier = _merge(config, pairs, xargs, body.get(TIER))
        fields |= ours
        served = _parse(config, fields, _labels(pairs, xargs))
    except QoSError as error:
        if config.strict:
            raise
        served = fall_back(config, ours.get(KEY))
        return Asked(_body(config, body, xargs, {CLASS: served.class_name, **ours}), served, None, error)
    return Asked(_body(config, body, xargs, {**fields, CLASS: served.class_name}), served, tier)


def ask_by_headers(config: EngineConfig, headers: Headers) -> Asked:
    """What the headers alone ask for, where the body is not ours to read. Raises QoSError as `ask` does."""
    asked = ask(config, headers, {})
    assert asked is not None  # only a body's vllm_xargs make it None
    return asked


def names_qos(headers: Headers) -> bool:
    """Whether one of the headers speaks of QoS."""
    return any(name.decode("latin-1").lower() in HEADERS for name, _ in headers)


def _labels(pairs: list[tuple[str, str]], xargs: Mapping[str, Any]) -> dict[str, str]:
    """Field -> what the client called it, where that is not the field's own name; the class may come from the tier."""
    by_header = {HEADERS[name]: name for name, _ in pairs if name in HEADERS}
    return by_header if CLASS in xargs else {CLASS: TIER, **by_header}


def _parse(config: EngineConfig, fields: Mapping[str, Any], labels: Mapping[str, str]) -> Served:
    """`qos.parse`, with errors in the client's words."""
    try:
        return parse(config, fields)
    except QoSError as error:
        label = labels.get(error.field, error.label)
        problem = f"means class {error.problem.removeprefix('is ')}" if label == TIER else error.problem
        raise QoSError(error.field, problem, label=label, forbidden=error.forbidden) from None


def _merge(
    config: EngineConfig, pairs: list[tuple[str, str]], xargs: Mapping[str, Any], tier: Any
) -> tuple[dict[str, Any], str | None]:
    """Fields from all three places, and the tier. Raises QoSError when two places disagree."""
    fields = {key: value for key, value in xargs.items() if isinstance(key, str) and key.startswith(PREFIX)}
    for ours, instead in ((KEY, "send the API key"), (VERSION, "leave it out")):
        if ours in fields:
            raise QoSError(UNKNOWN, f"is not for clients to set; {instead}", label=ours)
    said_in = dict.fromkeys(fields, XARGS)
    for name, text in pairs:
        if name in HEADERS:
            field, value = HEADERS[name], _value(name, text)
            if field in fields and (type(fields[field]), fields[field]) != (type(value), value):
                problem = f"is {show(value)}, and {said_in[field]} says {show(fields[field])}; send one of the two"
                raise QoSError(field, problem, label=name)
            fields[field], said_in[field] = value, name
    by_tier = _class_of_tier(config, tier)
    if by_tier is not None:
        fields.setdefault(CLASS, by_tier)
    return fields, tier


def _value(name: str, text: str) -> int | str:
    """A header's value as `vllm_xargs` would have it."""
    if HEADERS[name] in (CLASS, IMPORTANCE):
        return text
    if not _DIGITS.fullmatch(text):
        raise QoSError(HEADERS[name], f"is {show(text)}; make it an integer of milliseconds", label=name)
    return int(text)


def _class_of_tier(config: EngineConfig, tier: Any) -> str | None:
    if tier is None or (tier in (AUTO, STANDARD_ONLY) and tier not in config.service_tiers):
        return None
    if not isinstance(tier, str) or tier not in config.service_tiers:
        known = ", ".join(dict.fromkeys((AUTO, *config.service_tiers)))
        raise QoSError(CLASS, f"is {show(tier)}; use one of {known}", label=TIER)
    return config.service_tiers[tier]


def _body(
    config: EngineConfig, body: Mapping[str, Any], xargs: Mapping[str, Any], fields: Mapping[str, Any]
) -> dict[str, Any]:
    """The body for vLLM: other xargs as they were, our fields in place of what the client said."""
    dropped = {TIER, PRIORITY} if config.client_priority == "strip" else {TIER}
    others = {key: value for key, value in xargs.items() if not (isinstance(key, str) and key.startswith(PREFIX))}
    kept = {key: value for key, value in body.items() if key not in dropped}
    return {**kept, XARGS: {**others, **fields}}
