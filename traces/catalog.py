"""The catalog: what each public data set is, where it lives, and how its bytes are recognised."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from functools import lru_cache
from importlib import resources
from pathlib import Path, PurePosixPath
from types import MappingProxyType
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, model_validator

from traces.errors import TraceError

SYNTHETIC_SUFFIX = "-synth"

Reader = Literal["azure-csv", "sharegpt-csv", "mooncake-jsonl", "burstgpt-csv", "azure-hourly", "sharegpt-text"]
HttpUrl = Annotated[str, Field(pattern=r"^https?://\S+$")]
Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]*$")]


class Entry(BaseModel):
    """One data set. Optional facts are null when nobody has published them."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: Name = Field(description="the name used everywhere else")
    url: HttpUrl = Field(description="the first address to try")
    mirrors: tuple[HttpUrl, ...] = Field(description="further addresses of the same bytes, in order")
    local: str = Field(description="path of the file inside a local folder and inside the cache")
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    bytes: Annotated[int, Field(gt=0)] | None
    rows: Annotated[int, Field(gt=0)] = Field(description="records in the file, failed requests included")
    prompt_p50: float | None = Field(description="median prompt length of the real file, tokens")
    output_p50: float | None = Field(description="median output length of the real file, tokens")
    licence: str
    citation: str
    reader: Reader
    sketch: Name | None = Field(description="the sketch that a synthetic trace is drawn from")
    embedded: str | None = Field(description="file of this package that holds the bytes, if they ship with it")
    note: str

    @property
    def filename(self) -> str:
        """The file name the reader expects."""
        return PurePosixPath(self.local).name

    @property
    def urls(self) -> tuple[str, ...]:
        """Every address, best first."""
        return (self.url, *self.mirrors)

    @property
    def synthetic_name(self) -> str | None:
        """Name of the synthetic trace, or None if the data set has no sketch."""
        return None if self.sketch is None else self.name + SYNTHETIC_SUFFIX

    @model_validator(mode="after")
    def _local_stays_inside(self) -> Entry:
        path = PurePosixPath(self.local)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"local: {self.local!r} leaves the folder; give a relative path without '..'")
        return self


class Catalog(BaseModel):
    """The whole of catalog.yaml."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    datasets: tuple[Entry, ...]

    @model_validator(mode="after")
    def _names_are_unique(self) -> Catalog:
        names = [entry.name for entry in self.datasets]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"datasets: {', '.join(twice)} appears twice; names must be unique")
        return self


@lru_cache(maxsize=1)
def load_catalog() -> Mapping[str, Entry]:
    """Read-only map from data set name to its entry, in the order of catalog.yaml."""
    text = (resources.files("traces") / "catalog.yaml").read_text(encoding="utf-8")
    catalog = Catalog.model_validate(yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return MappingProxyType({entry.name: entry for entry in catalog.datasets})


def find_entry(name: str) -> Entry:
    """The entry called `name`.

    Raises TraceError for an unknown name, with the nearest known name and the whole list.
    """
    catalog = load_catalog()
    if name in catalog:
        return catalog[name]
    near = difflib.get_close_matches(name, catalog, n=1, cutoff=0.5)
    hint = f"did you mean {near[0]!r}? " if near else ""
    raise TraceError(f"unknown trace {name!r}: {hint}known names: {', '.join(catalog)}")


def embedded_path(entry: Entry) -> Path | None:
    """Path of the bytes that ship with this package, or None for a data set that does not."""
    return None if entry.embedded is None else Path(str(resources.files("traces") / entry.embedded))
