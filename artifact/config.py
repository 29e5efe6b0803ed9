"""How any configuration is read and refused: strict models, and one line for each mistake."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: The most that a machine's memory and a double's digits leave room for.
MOST_REQUESTS, MOST_REPLICAS, MOST_QPS, MOST_SEED = 100_000_000, 10_000, 1e6, 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST_REQUESTS)]
Load = Annotated[float, Field(gt=0, le=MOST_QPS, allow_inf_nan=False)]
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
    return ConfigError(text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))


def parse(model: type[Strict], values: Mapping[str, Any], what: str) -> Any:
    """`model` from a mapping; ConfigError on the first problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, what) from None


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
