"""What one request asks for, read from untrusted values: strictly for the middleware, forgivingly for the engine.

A request speaks in `vllm_xargs`, which vLLM hands on as `SamplingParams.extra_args`; the keys are below. It may name a
class, relax the class's SLOs within the class's ranges and lower its importance; it can raise nothing by itself.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from niyama.vllm.config import EngineConfig
from niyama.vllm.identities import holder
from niyama.vllm.served_class import MAX_SLO_S, ServedClass

CLASS, TTFT_MS, TBT_MS, TTLT_MS = "niyama_class", "niyama_ttft_ms", "niyama_tbt_ms", "niyama_ttlt_ms"
IMPORTANCE, APP = "niyama_importance", "niyama_app"
#: Every key that a client may set.
FIELDS = (CLASS, TTFT_MS, TBT_MS, TTLT_MS, IMPORTANCE, APP)
#: SHA-256 of the client's API key, which the middleware adds. Whoever knows it has the key or the configuration, so
#: that a client who reaches the engine by a way that the middleware does not watch gets no more than its own classes.
KEY = "niyama_key_sha256"
#: `EngineConfig.version` of the configuration that the middleware promised by, which it adds as well.
VERSION = "niyama_config"
PREFIX = "niyama_"
UNKNOWN = "unknown"
MIN_MS, MAX_MS = 1, int(MAX_SLO_S * 1000)
MAX_APP_LENGTH = 128
#: Tenants that the kernel tells apart: clients without a known key, and the identities, by checksums of their names.
TENANTS = 256
_SLOS = {"ttft_s": TTFT_MS, "tbt_s": TBT_MS, "ttlt_s": TTLT_MS}


class QoSError(ValueError):
    """A request's QoS makes no sense: text is "label problem", with value and fix.

    field: one of FIELDS, or UNKNOWN: a bounded metric label. label: what the client called it. forbidden: it makes
    sense, but is not for this client.
    """

    def __init__(self, field: str, problem: str, *, label: str | None = None, forbidden: bool = False) -> None:
        self.field, self.problem, self.forbidden = field, problem, forbidden
        self.label = label or field
        super().__init__(f"{self.label} {problem}")


@dataclass(frozen=True)
class Served:
    """What a request is promised. Seconds; `fault` says why it is not what was asked for, `fault_field` in one word."""

    class_index: int
    class_name: str
    interactive: bool
    deadline_slo_s: float  # arrival to first token (interactive) or last token (batch)
    tbt_s: float  # 0.0 for batch
    important: bool
    app: int  # whose output-length history applies: below EngineConfig.app_count
    tenant: int = 0  # who is charged for it: below TENANTS, 0 for clients without a known key
    fault: str | None = None
    fault_field: str | None = None  # one of FIELDS, or UNKNOWN
    clamped: bool = False  # an SLO was asked for that is beyond the class's range


def serve(config: EngineConfig, extra_args: Mapping[str, Any] | None) -> Served:
    """What the engine gives a request; never raises: bad QoS gets the client's default class, `fault` says why."""
    values = extra_args if isinstance(extra_args, Mapping) else {}
    try:
        return parse(config, values)
    except QoSError as error:
        return replace(fall_back(config, values.get(KEY)), fault=str(error), fault_field=error.field)


def fall_back(config: EngineConfig, key_sha256: Any) -> Served:
    """The default class of the client with this key, with the class's own SLOs."""
    return _promise(config, config.class_index(config.allowed_classes(key_sha256)[0]), {KEY: key_sha256})


def parse(config: EngineConfig, values: Mapping[str, Any]) -> Served:
    """What a request asks for; keys that are not Niyama's are ignored. Raises QoSError."""
    asked = {key: value for key, value in values.items() if isinstance(key, str) and key.startswith(PREFIX)}
    unknown = next((key for key in asked if key not in (*FIELDS, KEY, VERSION)), None)
    if unknown is not None:
        raise QoSError(UNKNOWN, f"is not a QoS field; use {', '.join(FIELDS)}", label=show(unknown))
    allowed = config.allowed_classes(asked.get(KEY))
    name = asked.get(CLASS, allowed[0])
    if not isinstance(name, str) or name not in config.names:
        raise QoSError(CLASS, f"is {show(name)}, which is no class; use one of {', '.join(allowed)}")
    if name not in allowed:
        raise QoSError(
            CLASS, f"is {name!r}, which this API key may not use; use one of {', '.join(allowed)}", forbidden=True
        )
    return _promise(config, config.class_index(name), asked)


def _promise(config: EngineConfig, index: int, asked: Mapping[str, Any]) -> Served:
    served = config.classes[index]
    slo_s = {slo: _slo_s(served, slo, key, asked) for slo, key in _SLOS.items()}
    interactive = served.ttft_s is not None
    return Served(
        class_index=index,
        class_name=served.name,
        interactive=interactive,
        deadline_slo_s=slo_s["ttft_s"] if interactive else slo_s["ttlt_s"],
        tbt_s=slo_s["tbt_s"] if interactive else 0.0,
        important=_important(served, asked),
        app=_app(config, index, asked),
        tenant=_tenant(config, asked.get(KEY)),
        clamped=any(key in asked and slo_s[slo] != asked[key] / 1000 for slo, key in _SLOS.items()),
    )


def _slo_s(served: ServedClass, slo: str, key: str, asked: Mapping[str, Any]) -> float | None:
    """The SLO in seconds, clamped to the class's range; None when the class has none of this kind."""
    own_s = getattr(served, slo)
    if key not in asked:
        return own_s
    value = asked[key]
    if own_s is None:
        kind, own = ("batch", TTLT_MS) if slo != "ttlt_s" else ("interactive", f"{TTFT_MS} and {TBT_MS}")
        raise QoSError(key, f"is {show(value)}, but class {served.name} is {kind}; use {own}, or another {CLASS}")
    if type(value) is not int or not MIN_MS <= value <= MAX_MS:
        raise QoSError(key, f"is {show(value)}; make it an integer of milliseconds from {MIN_MS} to {MAX_MS}")
    low_s, high_s = served.bounds_s(slo)
    return min(max(value / 1000, low_s), high_s)


def _important(served: ServedClass, asked: Mapping[str, Any]) -> bool:
    wanted = asked.get(IMPORTANCE, served.importance)
    if not isinstance(wanted, str) or wanted not in ("high", "low"):
        raise QoSError(IMPORTANCE, f"is {show(wanted)}; use 'high' or 'low'")
    if wanted == "high" and not served.important:
        raise QoSError(IMPORTANCE, f"is 'high', but class {served.name} is of low importance; omit it, or use 'low'")
    return wanted == "high"


def _app(config: EngineConfig, index: int, asked: Mapping[str, Any]) -> int:
    """The class's own history, or one of a fixed number by a checksum of the name.

    Not first come, first served: a client that makes up names could use the places up, and indices would change with
    every restart. Two names that meet share a history, which costs accuracy alone.
    """
    if APP not in asked:
        return index
    name = asked[APP]
    if not isinstance(name, str) or not 1 <= len(name) <= MAX_APP_LENGTH:
        raise QoSError(APP, f"is {show(name)}; make it a string of 1 to {MAX_APP_LENGTH} characters")
    try:
        checksum = zlib.crc32(name.encode())
    except UnicodeEncodeError:  # nor could vLLM hand it to its engine
        raise QoSError(APP, f"is {show(name)}; leave lone surrogates out, which are no characters") from None
    return len(config.classes) + checksum % config.app_histories


def _tenant(config: EngineConfig, key_sha256: Any) -> int:
    """By the identity's name, as `_app`: numbers by place would change hands when the configuration is read anew."""
    found = holder(config.identities, key_sha256)
    return 0 if found is None else 1 + zlib.crc32(found[0].name.encode()) % (TENANTS - 1)


def show(value: Any) -> str:
    """`value` for an error message: bounded, whatever a client sent."""
    if isinstance(value, (dict, list, tuple, set)):
        return f"a {type(value).__name__}"
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 10**18:
        return "a huge integer"
    text = ascii(value[:61] if isinstance(value, str) else value)
    return text if len(text) <= 80 else f"{text[:77]}..."
