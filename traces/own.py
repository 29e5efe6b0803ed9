"""A user's own file as a trace: which names are files, and what a file is called in results."""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path

from traces.catalog import SYNTHETIC_SUFFIX, load_catalog
from traces.errors import TraceError
from traces.files import sha256_of
from traces.lengths import Lengths, Reading

HUB = "hf:"
_CATALOG_NAME = re.compile(r"[a-z0-9][a-z0-9-]*")


@dataclass(frozen=True, eq=False)
class Own:
    """What was read of a user's file."""

    name: str
    lengths: Lengths
    sha256: str


def is_own(name: str) -> bool:
    """Whether `name` is a file, a folder or a data set of the Hugging Face hub, and none of the catalog's."""
    if name.removesuffix(SYNTHETIC_SUFFIX) in load_catalog():
        return False
    return not _CATALOG_NAME.fullmatch(name) or Path(name).exists()


def read_own(name: str, reading: Reading) -> Own:
    """The file's rows, and its name in results, in which files that are read to other rows differ.

    TraceError where it is absent, of an unknown layout, or has a bad row.
    """
    if name.startswith(HUB) or Path(name).is_dir():
        from traces.huggingface import read_data_set

        lengths, digest = read_data_set(name, reading)
    else:
        path = Path(name)
        if not path.is_file():
            raise TraceError(f"trace {name!r} is no file and no name of the catalog; see `python -m traces list`")
        if reading.tokenizer is not None:
            raise TraceError(
                f"--tokenizer counts the texts of a data set (hf:OWNER/NAME or its folder); {name} is a file"
            )
        from traces.readers import read_file  # with pyarrow

        lengths, digest = read_file(path, reading), sha256_of(path)
    return Own(_label(name, digest, reading), lengths, digest)


def _label(name: str, digest: str, reading: Reading) -> str:
    said = f"{digest} {sorted(reading.columns.items())} {reading.time_unit}"
    short = digest if not reading else hashlib.sha256(said.encode()).hexdigest()
    kept = re.sub(r"[^A-Za-z0-9._-]+", "-", name.removeprefix(HUB) if name.startswith(HUB) else Path(name).name)
    return f"{kept}@{short[:8]}"
