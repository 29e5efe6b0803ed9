"""Which data a table was made from: hashes of the files that its makers read, beside those of the code (`code_hash`).

A card counts by itself, and so do an entry of the catalog of traces and a sketch: an edit of one makes no table of
another stale. What a module reads whatever it is asked for stands in READ_BY. A card or a policy of one's own counts by
the path that it was given by.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel

from niyama.latency import is_card_file
from traces.catalog import SYNTHETIC_SUFFIX
from traces.own import is_own


def _folder(package: str) -> Path:
    spec = find_spec(package)
    assert spec is not None and spec.origin is not None, f"package {package} is not on the path"
    return Path(spec.origin).parent


PACKAGES = {name: _folder(name) for name in ("artifact", "benchmarks", "figures", "niyama", "traces")}
Code = dict[str, str]  # module or data -> hash

CARDS, CATALOG, SKETCHES = "niyama/latency/cards", "traces/catalog.yaml", "traces/sketches.json"
LATENCY = "artifact/reference/latency"
KERNELS = ("all_reduce", "attention", "experts", "gemm", "latent_attention")
#: Module -> the files that it reads, whatever it is asked for.
READ_BY: Mapping[str, tuple[str, ...]] = {
    "benchmarks.vllm_steps": (f"{CARDS}/a100-llama3-8b-roofline.json",),  # by niyama.vllm.profiling
    "artifact.engine.fidelity": ("artifact/reference/tables/capacity.parquet",),
    "artifact.latency.accuracy": (f"{LATENCY}/a100-llama3-8b-linear-grid.csv", f"{CARDS}/a100-llama3-8b-linear.json"),
    "artifact.latency.kernels": tuple(f"{LATENCY}/kernels/{name}.csv" for name in KERNELS),
    "traces.arrivals": ("traces/azure_llm_2024_hour_of_week.csv",),
}


def data_of(modules: Iterable[str], names: Iterable[str], settings: Any) -> Code:
    """The hash of everything that these modules read for latency models, traces and systems of these names, by data.

    settings: an experiment's; of it count the predictors and the files of one's own.
    """
    found = {file for module in modules for file in READ_BY.get(module, ())}
    for name in (*names, *_named_in(settings)):
        found.update(_called(name))
    return {data: data_hash(data) or "missing" for data in sorted(found)}


def data_hash(data: str) -> str | None:
    """Hash of a file, or of an entry as FILE:ENTRY; None when there is none. Paths start at a package, or from here."""
    content = contents().get(data)
    if content is None and Path(data).is_file():
        content = Path(data).read_bytes()
    return None if content is None else hashlib.sha256(content).hexdigest()[:12]


@cache
def contents() -> dict[str, bytes]:
    """What the packages' data files hold, read once: an edit while a command runs is none of its table's."""
    files = {file for own in READ_BY.values() for file in own}
    files |= {f"{CARDS}/{path.name}" for path in _place(CARDS).glob("*.json")}
    found = {file: _place(file).read_bytes() for file in files if _place(file).is_file()}
    catalog = yaml.load(_place(CATALOG).read_bytes(), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    sketches = json.loads(_place(SKETCHES).read_bytes())
    entries: dict[str, Any] = {f"{CATALOG}:{row['name']}": row for row in catalog["datasets"]}
    for name, row in sketches["sketches"].items():
        entries[f"{SKETCHES}:{name}"] = [sketches["quantile_probs"], row]
    return found | {name: json.dumps(entry, sort_keys=True).encode() for name, entry in entries.items()}


def _place(data: str) -> Path:
    package, _, below = data.partition("/")
    return PACKAGES[package] / below


def _called(name: str) -> Iterator[str]:
    """The data that a name stands for: a latency card, a trace's entry, a synthetic trace's sketch, one's own file."""
    trace = name.removesuffix(SYNTHETIC_SUFFIX)
    if is_card_file(name):
        yield name
    elif is_own(name) and Path(name).is_file():  # a trace
        yield name
    elif ":" in name:
        yield name.rpartition(":")[0]
    elif f"{CARDS}/{name}.json" in contents():
        yield f"{CARDS}/{name}.json"
    elif (entry := contents().get(f"{CATALOG}:{trace}")) is not None:
        yield f"{CATALOG}:{trace}"
        if name != trace and (sketch := json.loads(entry)["sketch"]):
            yield f"{SKETCHES}:{sketch}"


def _named_in(settings: Any) -> Iterator[str]:
    """Names in an experiment's settings of what it reads in addition to its trace and its latency model."""
    if isinstance(settings, BaseModel):
        yield from _named_in(settings.model_dump())
    elif isinstance(settings, Mapping):
        for key, value in settings.items():
            yield from [value] if key == "predictor" and value else _named_in((key, value))
    elif isinstance(settings, list | tuple):
        for item in settings:
            yield from _named_in(item)
    elif isinstance(settings, str) and (is_card_file(settings) or ":" in settings):
        yield from [settings] if Path(next(_called(settings))).is_file() else []
