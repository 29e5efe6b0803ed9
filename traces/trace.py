"""The trace: token lengths of real requests under one name, and the one way to come by them."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from traces.catalog import SYNTHETIC_SUFFIX, Entry, find_entry
from traces.checks import MAX_TOKENS
from traces.download import fetch
from traces.errors import DownloadError, TraceError
from traces.files import sha256_of
from traces.lengths import NO_EXTRAS, Extras, Lengths, Reading, Understood, require_lengths
from traces.own import is_own, read_own
from traces.synth import SYNTHETIC_ROWS, SYNTHETIC_SEED, load_sketches, sample

log = logging.getLogger(__name__)

DEFAULT_CACHE_DIR = Path("data")
LOCAL_DIR_VARIABLE = "NIYAMA_TRACES"

FIXED_LENGTHS = re.compile(rf"fixed-([1-9]\d{{0,8}})x([1-9]\d{{0,8}}){SYNTHETIC_SUFFIX}")

Source = Literal["local", "download", "synthetic", "file"]


@dataclass(frozen=True, eq=False)
class Trace:
    """Token lengths of n >= 1 requests. Arrays are read-only; a synthetic trace has a name in -synth."""

    name: str
    prompt_tokens: np.ndarray  # int32[n], >= 1
    output_tokens: np.ndarray  # int32[n], >= 1
    arrival_s: np.ndarray | None  # float64[n], sorted, starts at 0, or after it in a file of ours; None if unknown
    source: Source
    sha256: str | None  # of the file it was read from; None for a synthetic trace
    citation: str
    licence: str
    notes: tuple[str, ...] = ()  # what reading changed: rows dropped, rows sorted
    extras: Extras = NO_EXTRAS  # classes, tenants, sessions, importance, hash ids: what the file has of them
    understood: Understood | None = None  # of a user's file
    asked: str | None = None  # the path or `hf:` name of a user's file

    def __post_init__(self) -> None:
        if (self.source == "synthetic") != self.name.endswith(SYNTHETIC_SUFFIX):
            raise TraceError(f"{self.name!r} is {self.source}; names end in -synth if and only if synthetic")
        n = len(self.prompt_tokens)
        for array in (self.prompt_tokens, self.output_tokens, self.arrival_s):
            if array is not None:
                if array.shape != (n,) or n == 0:
                    raise TraceError(f"{self.name}: an array has shape {array.shape}; all need ({max(n, 1)},)")
                array.setflags(write=False)

    def __len__(self) -> int:
        return len(self.prompt_tokens)

    @classmethod
    def of(cls, entry: Entry, lengths: Lengths, *, source: Source, sha256: str) -> Trace:
        """The trace of a catalog entry whose file has been read."""
        return cls(
            entry.name,
            lengths.prompt_tokens,
            lengths.output_tokens,
            lengths.arrival_s,
            source,
            sha256,
            entry.citation,
            entry.licence,
            lengths.notes,
        )


def local_dir_from_env(environ: Mapping[str, str] = os.environ) -> Path | None:
    """The folder of local traces that NIYAMA_TRACES names, if any.

    For the edges only, such as command lines: everything below takes the folder as an argument.
    """
    value = environ.get(LOCAL_DIR_VARIABLE, "")
    return Path(value) if value else None


def load_trace(
    name: str,
    *,
    local_dir: Path | str | None = None,
    cache_dir: Path | str = DEFAULT_CACHE_DIR,
    download: bool = True,
    reading: Reading = Reading(),  # noqa: B008 (it is frozen)
) -> Trace:
    """The trace called `name`, from the first place that has it; or that of a user's file, read as `reading` says.

    Places, in order: `local_dir`, `cache_dir`, the network (if `download`), and last the synthetic trace, with
    a warning and under its own name `<name>-synth`. A name in -synth asks for the synthetic one directly;
    `fixed-PxO-synth`, which stands for no other, is a trace whose requests all have P prompt and O output tokens.

    Raises TraceError for an unknown name, for a file on disk whose SHA-256 differs from the catalog's, for a
    bad row, and for a data set that holds no lengths; DownloadError if the data set cannot be had and has no
    synthetic trace.
    """
    if is_own(name):
        return _own_trace(name, reading)
    if reading:
        raise TraceError(f"--columns, --time-unit and --tokenizer are for a file; {name!r} is no file")
    if (fixed := FIXED_LENGTHS.fullmatch(name)) is not None:
        return fixed_trace(*(int(tokens) for tokens in fixed.groups()))
    if name.endswith(SYNTHETIC_SUFFIX):
        return synthetic_trace(find_entry(name.removesuffix(SYNTHETIC_SUFFIX)))
    return _catalog_trace(find_entry(name), local_dir, cache_dir, download)


def _catalog_trace(entry: Entry, local_dir: Path | str | None, cache_dir: Path | str, download: bool) -> Trace:
    require_lengths(entry)
    found = find_on_disk(entry, local_dir=local_dir, cache_dir=cache_dir)
    if found is not None:
        path, source = found
        digest = _require_catalog_bytes(entry, path)
        return Trace.of(entry, _read(entry, path, digest), source=source, sha256=digest)
    try:
        if not download:
            raise DownloadError(f"{entry.name} is on no local disk and downloading is off")
        path = fetch(entry, cache_dir)
    except (DownloadError, OSError) as error:
        if entry.sketch is None:
            raise
        log.warning("using the SYNTHETIC %s instead of %s: %s", entry.synthetic_name, entry.name, error)
        return synthetic_trace(entry)
    return Trace.of(entry, _read(entry, path, entry.sha256), source="download", sha256=entry.sha256)


def _own_trace(name: str, reading: Reading) -> Trace:
    own = read_own(name, reading)
    rows = own.lengths
    return Trace(
        own.name,
        rows.prompt_tokens,
        rows.output_tokens,
        rows.arrival_s,
        "file",
        own.sha256,
        "none: a user's own file",
        "the user's own",
        rows.notes,
        rows.extras,
        rows.understood,
        name,
    )


def _read(entry: Entry, path: Path, sha256: str) -> Lengths:
    from traces.parsed import read_through_cache  # with pyarrow, which a synthetic trace does without

    return read_through_cache(entry, path, sha256)


def find_on_disk(
    entry: Entry, *, local_dir: Path | str | None, cache_dir: Path | str
) -> tuple[Path, Literal["local", "download"]] | None:
    """Where the file of `entry` lies (contents unchecked), and whether it is a user's own or a past download.

    Raises TraceError if `local_dir` is given and is not a folder: a mistyped folder must not pass unnoticed.
    """
    if local_dir is not None:
        if not Path(local_dir).is_dir():
            raise TraceError(f"the folder of local traces {str(local_dir)!r} does not exist; create or correct it")
        if (path := Path(local_dir) / entry.local).is_file():
            return path, "local"
    if (path := Path(cache_dir) / entry.local).is_file():
        return path, "download"
    return None


def synthetic_trace(entry: Entry) -> Trace:
    """The synthetic trace of `entry`: 100,000 rows, always the same. Raises TraceError if it has no sketch."""
    if entry.sketch is None:
        raise TraceError(f"{entry.name} has no sketch, so there is no {entry.name}{SYNTHETIC_SUFFIX}")
    sketch = load_sketches()[entry.sketch]
    prompt_tokens, output_tokens = sample(sketch, SYNTHETIC_ROWS, SYNTHETIC_SEED)
    return Trace(
        entry.name + SYNTHETIC_SUFFIX,
        prompt_tokens,
        output_tokens,
        None,
        "synthetic",
        None,
        entry.citation,
        entry.licence,
        (f"synthetic, fidelity {sketch.fidelity}: drawn from a sketch of {entry.sketch} ({sketch.source})",),
    )


def fixed_trace(prompt_tokens: int, output_tokens: int) -> Trace:
    """The trace `fixed-PxO-synth`: one row, of which every workload repeats the lengths. Raises TraceError above
    the longest length that a trace may have."""
    for field, tokens in (("prompt_tokens", prompt_tokens), ("output_tokens", output_tokens)):
        if not 1 <= tokens <= MAX_TOKENS:
            raise TraceError(f"{field} of a fixed trace is {tokens}; give 1 to {MAX_TOKENS}")
    return Trace(
        f"fixed-{prompt_tokens}x{output_tokens}{SYNTHETIC_SUFFIX}",
        np.array([prompt_tokens], np.int32),
        np.array([output_tokens], np.int32),
        None,
        "synthetic",
        None,
        "none: made up",
        "none needed",
        (f"synthetic: every request has {prompt_tokens} prompt and {output_tokens} output tokens",),
    )


def _require_catalog_bytes(entry: Entry, path: Path) -> str:
    digest = sha256_of(path)
    if digest != entry.sha256:
        raise TraceError(
            f"{path} has sha256 {digest}, expected {entry.sha256}: it is not the published {entry.name};"
            f" delete it, then run `python -m traces fetch {entry.name}`"
        )
    return digest
