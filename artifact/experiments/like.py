"""Configuration files that are another file with other numbers of seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from artifact.config import Count, Strict, parse, read_mapping


class MoreSeeds(Strict):
    """A configuration file that is another one with as many seeds everywhere."""

    like: Annotated[str, Field(min_length=1)] = Field(description="the other file, relative to this one")
    seeds: Count = Field(description="seeds 0 .. N-1 of every experiment")


def read_values(path: Path) -> dict[str, Any]:
    """What a file, or the one that it is like, says. Raises ConfigError."""
    values = read_mapping(path)
    if "like" not in values:
        return values
    other = parse(MoreSeeds, values, str(path))
    return _with_seeds(read_mapping(path.parent / other.like), other.seeds)


def _with_seeds(values: Any, seeds: int) -> Any:
    """The same with every `seeds` replaced; `run` and `variants`, which are RunSpec fields, have none."""
    if not isinstance(values, dict):
        return values
    return {key: seeds if key == "seeds" else _with_seeds(value, seeds) for key, value in values.items()}
