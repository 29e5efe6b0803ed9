"""What an operator promises to whom: one strict, frozen model of the configuration file, for engine and API server.

Comes from `--additional-config '{"niyama": PATH or {...}}'`, else from the file that NIYAMA_CONFIG names, else the
paper's classes. Seconds everywhere; requests speak milliseconds (`niyama.vllm.qos`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationError, field_validator, model_validator

from niyama import PAPER_CLASSES, Policy
from niyama.latency import ModelCard, is_card_file, load_card
from niyama.vllm.identities import ApiKey, Identity, Names, holder, refuse_shared_keys
from niyama.vllm.loading import ConfigError, explain, read_file, refuse_unwritable, short
from niyama.vllm.parts import build_policy
from niyama.vllm.served_class import Name, ServedClass, Strict

ENV_VARIABLE = "NIYAMA_CONFIG"
#: Each class is a label of every metric.
MAX_CLASSES = 32

#: Fields that a running engine cannot change; nor can it the number, names, order and kind of the classes.
AT_START = frozenset(("policy", "latency", "correct_predictor", "encoder_s_per_embed", "delivery_s", "app_histories"))
AT_START |= {"decision_log", "decision_log_max_mb"}

#: Table 3 of the paper.
PAPER_SERVED = tuple(ServedClass(name=c.name, ttft_s=c.ttft_s, tbt_s=c.tbt_s, ttlt_s=c.ttlt_s) for c in PAPER_CLASSES)


class EngineConfig(Strict):
    """All that Niyama reads when a server starts. The order of `classes` is their index everywhere."""

    policy: str | dict[str, Any] = Field(default="niyama", description="built-in name, or {name: ..., field: value}")
    latency: Annotated[str, Field(min_length=1)] = Field(
        default="a100-llama3-8b-linear", description="predictor: a card's name, or the path of a card's JSON file"
    )
    correct_predictor: bool = Field(default=True, description="correct the predictor by measured step times")
    encoder_s_per_embed: Annotated[float, Field(ge=0, allow_inf_nan=False)] | None = Field(
        default=None, description="seconds that an embedding takes in a multimodal encoder; none: learned from steps"
    )
    classes: Annotated[tuple[ServedClass, ...], Field(strict=False)] = Field(
        default=PAPER_SERVED, description="the QoS classes, at most MAX_CLASSES"
    )
    default_class: Name = Field(default="Q2", description="class of requests that name none")
    service_tiers: dict[str, Name] = Field(
        default={"priority": "Q1", "default": "Q2", "flex": "Q3"}, description="OpenAI's service_tier -> class"
    )
    strict: bool = Field(default=True, description="refuse bad QoS with 4xx; else serve the default class and count")
    identities: Annotated[tuple[Identity, ...], Field(strict=False)] = Field(
        default=(), description="who may use which classes; empty: everyone all"
    )
    anonymous: Names | None = Field(
        default=None, description="classes of requests without a known key; []: none, 401; none: default_class"
    )
    client_priority: Literal["strip", "keep"] = Field(
        default="strip", description="vLLM's own priority (header and body field) as sent by clients"
    )
    max_body_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=4 << 20, description="longest request body, uploads aside; 413 beyond"
    )
    max_upload_bytes: Annotated[int, Field(ge=1024)] = Field(
        default=26 << 20, description="longest form with audio; 413 beyond. vLLM takes 25 MiB of audio"
    )
    app_histories: Annotated[int, Field(ge=1, le=4096)] = Field(
        default=256, description="output-length histories for niyama_app names, beside one for each class"
    )
    delivery_s: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.01, description="engine to client, in seconds: every deadline is met that much earlier"
    )
    decision_log: Annotated[str, Field(min_length=1)] | None = Field(
        default=None, description="file that gets a JSON line for each decision; one per engine core"
    )
    decision_log_max_mb: Annotated[int, Field(ge=1)] = Field(
        default=1024, description="MiB at which the decision log ends: about two days at 4 requests/s"
    )

    @field_validator("policy", mode="before")
    @classmethod
    def _policy_can_be_built(cls, value: Any) -> Any:
        build_policy(value)
        return value

    @field_validator("latency")
    @classmethod
    def _card_can_be_read(cls, value: str) -> str:
        load_card(value)
        return value

    @field_validator("decision_log")
    @classmethod
    def _log_can_be_written(cls, value: str | None) -> str | None:
        if value is not None:
            refuse_unwritable("decision_log", value)
        return value

    @model_validator(mode="after")
    def _lists_are_sound(self) -> EngineConfig:
        if not 1 <= len(self.classes) <= MAX_CLASSES:
            raise ValueError(f"classes has {len(self.classes)} entries; give it 1 to {MAX_CLASSES}")
        if self.anonymous is not None and not self.identities:
            raise ValueError("anonymous is set and identities is empty; list identities, or remove anonymous")
        for field, names in self._named_classes():
            if not names and field != "anonymous":
                raise ValueError(f"{field} is empty; name at least one class")
        _refuse_repeats("classes", [c.name for c in self.classes])
        _refuse_repeats("identities", [i.name for i in self.identities])
        refuse_shared_keys(self.identities)
        return self

    @model_validator(mode="after")
    def _names_are_classes(self) -> EngineConfig:
        known = self.names
        for field, names in self._named_classes():
            for name in names:
                if name not in known:
                    raise ValueError(f"{field} is {name!r}, which is no class; use one of {', '.join(known)}")
        return self

    def _named_classes(self) -> Iterator[tuple[str, tuple[str, ...]]]:
        """Every place that names classes, with the names."""
        yield "default_class", (self.default_class,)
        for tier, name in self.service_tiers.items():
            yield f"service_tiers.{tier}", (name,)
        for identity in self.identities:
            yield f"identity {identity.name!r}: classes", identity.classes
        if self.anonymous is not None:
            yield "anonymous", self.anonymous

    @property
    def names(self) -> tuple[str, ...]:
        """Of the classes, in their order."""
        return tuple(c.name for c in self.classes)

    @cached_property
    def version(self) -> str:
        """A hash of what can change while a server runs: the same in every process that has read the same."""
        return hashlib.sha256(self.model_dump_json(exclude=AT_START).encode()).hexdigest()[:32]

    @property
    def number(self) -> int:
        """The start of `version`, as much of it as a metric's float holds."""
        return int(self.version[:12], 16)

    def build_policy(self) -> Policy:
        """The scheduling policy, with the file's numbers in place of its own."""
        return build_policy(self.policy)

    def build_card(self) -> ModelCard:
        """The predictor's card."""
        return load_card(self.latency)

    def class_index(self, name: str) -> int:
        """Index of the class called `name`. Raises ValueError listing the known names."""
        for index, served in enumerate(self.classes):
            if served.name == name:
                return index
        raise ValueError(f"class {name!r} is unknown; use one of {', '.join(self.names)}")

    def allowed_classes(self, key_sha256: Any) -> tuple[str, ...]:
        """Classes that the client with this key's hash may use, its default class first; any value is understood.

        Whether the key has expired is asked once, before a request is let in: what it is promised then, it keeps.
        """
        if not self.identities:
            names = self.names
        else:
            found = holder(self.identities, key_sha256)
            names = found[0].classes if found is not None else self.anonymous or (self.default_class,)
        first = (self.default_class,) if self.default_class in names else ()
        return (*first, *(name for name in names if name not in first))

    def key(self, key_sha256: Any) -> ApiKey | None:
        """The known key with this hash, which may have expired."""
        found = holder(self.identities, key_sha256)
        return found[1] if found is not None else None

    @property
    def is_closed(self) -> bool:
        """Whether requests without a known key are refused."""
        return bool(self.identities) and self.anonymous == ()

    @property
    def app_count(self) -> int:
        """Number of output-length histories: `Served.app` is below it."""
        return len(self.classes) + self.app_histories


def load_config(additional_config: Mapping[str, Any] | None, environ: Mapping[str, str]) -> EngineConfig:
    """The configuration of this server, or the defaults. Raises ConfigError.

    The paths of a card's and of a policy's file are relative to the configuration's folder.
    """
    value, what = _source(additional_config, environ)
    return validated(file_values(Path(value), what), value) if isinstance(value, str) else validated(value, what)


def config_path(additional_config: Mapping[str, Any] | None, environ: Mapping[str, str]) -> Path | None:
    """The file that `load_config` reads; None if it reads none."""
    value, _ = _source(additional_config, environ)
    return Path(value) if isinstance(value, str) else None


def _source(additional_config: Mapping[str, Any] | None, environ: Mapping[str, str]) -> tuple[Any, str]:
    """A file's path or the values themselves, and what says so."""
    value = (additional_config or {}).get("niyama")
    if value is None:
        return environ.get(ENV_VARIABLE) or {}, ENV_VARIABLE
    return value, "additional_config niyama"


def file_values(path: Path, what: str) -> Any:
    """The values of the file that `what` names. Raises ConfigError."""
    return _beside(path.parent, read_file(path, what))


def _beside(folder: Path, values: Any) -> Any:
    """The values with the files that they name looked for in `folder`."""
    if not isinstance(values, dict):
        return values
    latency, policy = values.get("latency"), values.get("policy")
    if isinstance(latency, str) and is_card_file(latency):
        values = {**values, "latency": str(folder / latency)}
    if isinstance(policy, str) and ":" in policy:
        values = {**values, "policy": str(folder / policy)}
    elif isinstance(policy, dict) and isinstance(policy.get("name"), str) and ":" in policy["name"]:
        values = {**values, "policy": {**policy, "name": str(folder / policy["name"])}}
    return values


def validated(values: Any, what: str) -> EngineConfig:
    """The configuration of these values, which `what` gave. Raises ConfigError."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what}: is {short(values)}; make it a mapping of fields, such as 'policy: niyama'")
    try:
        return EngineConfig.model_validate(dict(values))
    except ValidationError as error:
        known = {field for model in (EngineConfig, ServedClass, Identity, ApiKey) for field in model.model_fields}
        raise explain(error, what, known) from None


def _refuse_repeats(field: str, names: Sequence[str]) -> None:
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise ValueError(f"{field} has {twice!r} twice; give each its own")
