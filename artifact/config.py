"""How any configuration is read and refused: strict models, and one line for each mistake."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError


def each_once(values: Sequence[Any]) -> Sequence[Any]:
    """The values; ValueError for one that is there twice, and would be run and counted twice."""
    for value in values:
        if (number := values.count(value)) > 1:
            raise ValueError(f"{value!r} is there {number} times; give it once")
    return values


Once = AfterValidator(each_once)
Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False), Once]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: What a machine's memory and a double's digits leave room for: the least load has the most requests arrive within
#: 1e12 s, of which a double tells a tenth of a millisecond.
MOST_REQUESTS, MOST_REPLICAS, MOST_SEED = 100_000_000, 10_000, 2**31 - 1
LEAST_QPS, MOST_QPS, LEAST_STEP_QPS = 1e-4, 1e6, 0.001
Count = Annotated[int, Field(ge=1, le=MOST_REQUESTS)]
Load = Annotated[float, Field(ge=LEAST_QPS, le=MOST_QPS, allow_inf_nan=False)]
Loads = Annotated[tuple[Load, ...], Field(min_length=1, strict=False), Once]
LoadStep = Annotated[float, Field(ge=LEAST_STEP_QPS, le=MOST_QPS, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class ConfigError(ValueError):
    """A value in a configuration or on the command line makes no sense; one line: field, value and what to do."""


class Strict(BaseModel):
    """Frozen, strict, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


def explain(error: ValidationError, what: str) -> ConfigError:
    """The first problem of a pydantic error as one line, with the number of further ones."""
    problems = error.errors()
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or what
    if first["type"] == "extra_forbidden":
        text = f"{what}: {where} is not a known field; remove it or correct its name"
    elif first["type"] == "missing":
        text = f"{what}: {where} is missing"
    elif not first["loc"]:
        text = f"{what}: {first['msg'].removeprefix('Value error, ')}"
    else:
        text = f"{what}: {where} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
        if first["type"] in ("float_type", "int_type"):
            text += number_hint(first["input"], whole=first["type"] == "int_type")
    return ConfigError(text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))


_NUMBER = re.compile(r"([+-]?(?:\d+\.?\d*|\.\d+))(?:[eE]([+-]?\d+))?")


def number_hint(value: Any, whole: bool = False) -> str:
    """For text that is a number, `; ` and how YAML takes it for one; else nothing."""
    found = _NUMBER.fullmatch(value) if isinstance(value, str) else None
    if found is None:
        return ""
    number, exponent = found.groups()
    if exponent is None:
        return f"; write {value} without quotes"
    if whole and float(value).is_integer():
        return f"; write {float(value):.0f}"
    return f"; write {number if '.' in number else number + '.0'}e{int(exponent):+d}, for YAML takes {value} as text"


def parse(model: type[Strict], values: Any, what: str) -> Any:
    """`model` from a mapping; ConfigError on the first problem."""
    try:
        return model.model_validate(mapping(values, what))
    except ValidationError as error:
        raise explain(error, what) from None


def mapping(values: Any, what: str) -> dict[str, Any]:
    """The values; ConfigError when they are no mapping."""
    if not isinstance(values, Mapping):
        raise ConfigError(f"{what}: is {values!r:.60}, not a mapping; write its fields, each as `name: value`")
    return dict(values)


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: the last would be taken."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (own := str(key.value)) in seen:
                raise yaml.composer.ComposerError(None, None, f"key {own} is given twice", key.start_mark)
            seen.add(own)
        return node


def read_yaml(path: Path) -> Any:
    """A YAML file's contents; ConfigError when it is missing or is no YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def read_mapping(path: Path) -> dict[str, Any]:
    """The fields that a YAML file has; an empty file has none. Raises ConfigError."""
    values = read_yaml(path)
    return {} if values is None else mapping(values, str(path))
