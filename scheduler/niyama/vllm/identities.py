"""Clients, known by the hashes of their API keys, and until when each key is valid."""

from __future__ import annotations

import hmac
from collections.abc import Iterable, Iterator
from datetime import date, datetime
from functools import cached_property
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, model_validator

from niyama.vllm.served_class import Name, Strict

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Names = Annotated[tuple[Name, ...], Field(strict=False)]


def _moment(value: Any) -> Any:
    """A time as YAML reads it, or as text; with its zone, because servers and operators may live in different ones."""
    try:
        moment = datetime.fromisoformat(value) if isinstance(value, str) else value
    except ValueError:
        moment = None
    if value is None or (isinstance(moment, datetime) and moment.tzinfo is not None):
        return moment
    # Somebody will put the key itself here: only what cannot be one is shown.
    shown = str(value) if isinstance(value, date) else "hidden"
    raise ValueError(f"is {shown}; write a time with its zone, such as 2027-01-31T00:00:00Z")


class ApiKey(Strict):
    """One API key of a client: a client that changes its key has two for a while."""

    sha256: Hash = Field(description="python -m niyama.vllm hash-key", repr=False)
    expires: Annotated[datetime, BeforeValidator(_moment)] | None = Field(
        default=None, description="from then on requests with it get 401"
    )


class Identity(Strict):
    """A client, known by its API keys, and the classes it may use: without asking, default_class or else the first."""

    name: Name = Field(description="for error messages")
    key_sha256: Hash | None = Field(default=None, description="its only key, or one more than keys", repr=False)
    keys: Annotated[tuple[ApiKey, ...], Field(strict=False)] = Field(default=(), description="its keys")
    classes: Names = Field(description="classes its requests may name")

    @model_validator(mode="after")
    def _has_a_key(self) -> Identity:
        if not self.all_keys:
            raise ValueError(f"identity {self.name!r} has no key; list its keys, or set key_sha256")
        return self

    @cached_property
    def all_keys(self) -> tuple[ApiKey, ...]:
        """Those of both fields."""
        return (*((ApiKey(sha256=self.key_sha256),) if self.key_sha256 is not None else ()), *self.keys)


def holder(identities: Iterable[Identity], key_sha256: Any) -> tuple[Identity, ApiKey] | None:
    """Whose key has this hash, and which of that client's it is; takes as long whichever it is."""
    found = None
    given = key_sha256.encode("utf-8", "replace") if isinstance(key_sha256, str) else b""
    for identity, key in _every_key(identities):
        if hmac.compare_digest(given, key.sha256.encode()):
            found = identity, key
    return found


def refuse_shared_keys(identities: Iterable[Identity]) -> None:
    """ValueError when a key is listed twice."""
    seen: set[str] = set()
    for identity, key in _every_key(identities):
        if key.sha256 in seen:
            raise ValueError(
                f"identity {identity.name!r}: a key (key_sha256, or sha256 under keys) is listed before; "
                "list each key once, and give each client its own"
            )
        seen.add(key.sha256)


def _every_key(identities: Iterable[Identity]) -> Iterator[tuple[Identity, ApiKey]]:
    return ((identity, key) for identity in identities for key in identity.all_keys)
