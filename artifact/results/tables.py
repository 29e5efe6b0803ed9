"""Results on disk: Parquet tables with their provenance, written whole or not at all."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from artifact.errors import CommandError
from artifact.results.digest import content_sha256
from artifact.results.schema import check_table

if TYPE_CHECKING:
    import pyarrow as pa  # a tenth of a second, which commands without tables do without

SCHEMA_VERSION = 1
KEY = b"niyama"
DIGEST = b"niyama-sha256"  # of content and provenance, so that an edited table is noticed wherever it is read


class ResultError(CommandError):
    """A results file is missing or is not what it should be; says which and what to run."""


def write_table(
    path: Path, rows: Iterable[Mapping[str, Any]] | pa.Table, *, listed: bool = True, **provenance: Any
) -> None:
    """Write rows to `path` atomically. `provenance` (JSON values) joins the schema version in the metadata.

    Nothing in it changes from run to run: the same inputs give the same bytes. SchemaError, and nothing written, when
    it has columns other than docs/TABLES.md lists for it. listed: False for raw times and step times, which the page
    does not list, whatever their files are called.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pylist([dict(row) for row in rows])
    if listed:
        check_table(path, table)
    about = json.dumps({"schema_version": SCHEMA_VERSION, **provenance}, sort_keys=True).encode()
    table = table.replace_schema_metadata({KEY: about, DIGEST: content_sha256(table, about).encode()})
    with _whole(path) as part:
        pq.write_table(table, part, compression="zstd")


def write_text(path: Path, text: str) -> None:
    """Write a text file atomically."""
    with _whole(path) as part:
        part.write_text(text)


@contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """A place beside `path` to write to; it takes the place of `path` when that is done. A killed write leaves it to
    the next one, which is why it has always the same name: one job writes a file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    try:
        yield part
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def read_table(path: Path, give: str | None = None) -> pa.Table:
    """The table at `path`; ResultError when it is missing, damaged, edited or of another schema version.

    give: what a user should name instead, where the path is the user's; none: the pipeline makes it again.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    make, again = ("run `snakemake --cores all` to make it", "delete it and run again")
    if give is not None:
        make = again = f"give {give}"
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        raise ResultError(f"{path}: is missing; {make}") from None
    except (pa.ArrowInvalid, OSError) as error:
        raise ResultError(f"{path}: cannot be read ({error}); {again}") from None
    version = provenance(table).get("schema_version")
    if version != SCHEMA_VERSION:
        raise ResultError(f"{path}: has schema version {version}, not {SCHEMA_VERSION}; {again}")
    metadata = table.schema.metadata
    if metadata.get(DIGEST, b"").decode() != content_sha256(table, metadata[KEY]):
        raise ResultError(f"{path}: is not as it was written (sha256 missing or different); {again}")
    return table


def joined(parts: Sequence[pa.Table]) -> pa.Table:
    """Tables of one kind as one; a column that a part lacks is null there. ResultError for a row that stands twice."""
    import pyarrow as pa

    whole = pa.concat_tables(parts, promote_options="permissive")
    plain = [column.name for column in whole.schema if not pa.types.is_nested(column.type)]
    if plain and (twice := whole.num_rows - whole.group_by(plain).aggregate([]).num_rows):
        raise ResultError(f"{twice} of the {whole.num_rows} rows to join are there twice; give each table once")
    return whole


def provenance(table: pa.Table) -> dict[str, Any]:
    """The provenance that `write_table` stored in the table."""
    return json.loads((table.schema.metadata or {}).get(KEY, b"{}"))
