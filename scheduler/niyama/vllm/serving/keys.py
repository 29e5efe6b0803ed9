"""The API key of a request, and whether it may go on at all, told from its headers alone."""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from niyama.vllm.config import EngineConfig

Headers = Iterable[tuple[bytes, bytes]]

#: Where vLLM asks for its own `--api-key` (vLLM 0.32; older versions guard fewer).
GUARDED = ("/v1", "/v2", "/inference", "/cohere")


def key_sha256(headers: Headers) -> str | None:
    """The hash of the bearer token; None without one, or with two Authorization headers."""
    given = [value for name, value in headers if name.lower() == b"authorization"]
    scheme, _, token = given[0].strip().partition(b" ") if len(given) == 1 else (b"", b"", b"")
    token = token.strip()
    return hashlib.sha256(token).hexdigest() if scheme.lower() == b"bearer" and token else None


def why_kept_out(config: EngineConfig, scope: Mapping[str, Any], path: str, now: datetime) -> str | None:
    """Why the request may not go on, in words for its client; None: it may.

    It needs a key of vLLM's where vLLM asks for one, and a known one if the configuration lets nobody else in. A key
    that has expired is refused wherever it is sent: its client should learn of it, not be served as somebody unknown.
    """
    given = key_sha256(scope["headers"])
    key = config.key(given)
    if key is not None and key.expires is not None and key.expires <= now:
        return f"this API key expired at {key.expires.astimezone(UTC):%Y-%m-%dT%H:%M:%SZ}; send a newer one"
    wanted = server_keys(scope) if path.startswith(GUARDED) else []
    hashes = [hashlib.sha256(key.encode()).hexdigest() for key in wanted]
    found = [hmac.compare_digest(given or "", one) for one in hashes]
    if (config.is_closed and key is None) or (hashes and not any(found)):
        return "no valid API key; send it as Authorization: Bearer KEY"
    return None


def server_keys(scope: Mapping[str, Any]) -> list[str]:
    """vLLM's keys: `--api-key`, else VLLM_API_KEY; empty: it asks for none."""
    arguments = getattr(getattr(scope.get("app"), "state", None), "args", None)
    keys = getattr(arguments, "api_key", None) or [os.environ.get("VLLM_API_KEY")]
    return [key for key in ([keys] if isinstance(keys, str) else keys) if key]
