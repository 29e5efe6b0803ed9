"""The digest of a table's content, stored in the file: a value that is edited by accident is noticed."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import pyarrow as pa


def content_sha256(table: pa.Table, about: bytes) -> str:
    """SHA-256 over `about` and every column's name and values, in hex.

    Values count, not their layout: chunks, compression and the version of Parquet's writer make no difference.
    """
    digest = hashlib.sha256(about)
    for name in table.column_names:
        digest.update(f"\n{name}\n".encode())
        _add(digest, table[name].combine_chunks())
    return digest.hexdigest()


def _add(digest: Any, array: pa.Array) -> None:
    """Feed one array: its length, which values are null, then the values, lists from the outside in."""
    import pyarrow as pa
    import pyarrow.compute as pc

    digest.update(f"{len(array)} ".encode())
    digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
    kind = array.type
    if pa.types.is_dictionary(kind):
        _add(digest, array.dictionary_decode())
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind):
        lengths = pc.fill_null(pc.list_value_length(array), 0)
        digest.update(lengths.to_numpy(zero_copy_only=False).astype(np.int64).tobytes())
        _add(digest, array.flatten())
    elif pa.types.is_boolean(kind) or pa.types.is_integer(kind) or pa.types.is_floating(kind):
        digest.update(str(kind).encode())
        filled = array.fill_null(False if pa.types.is_boolean(kind) else 0)
        digest.update(filled.to_numpy(zero_copy_only=False).tobytes())
    elif not pa.types.is_null(kind):  # text, and whatever else has a fixed way of being written down
        digest.update("\0".join(map(repr, array.to_pylist())).encode())
