"""Numbers by name in compiled code: tuples that stay as they are, and records that are changed in place."""

from __future__ import annotations

from dataclasses import astuple, fields
from typing import Any, get_type_hints

import numpy as np
from numba import config, types


class Numbers:
    """Base of dataclasses of numbers (int, float, bool). Python reads them as `numbers["name"]`, which records have."""

    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name)

    def __setitem__(self, name: str, value: Any) -> None:
        setattr(self, name, value)


def record(numbers: Numbers) -> Any:
    """What holds the same numbers in the kernel: compiled code reads and writes them as attributes, too."""
    if config.DISABLE_JIT:
        return numbers
    kinds = get_type_hints(type(numbers))
    layout = np.dtype([(field.name, kinds[field.name]) for field in fields(numbers)], align=True)
    return np.array([astuple(numbers)], layout)[0]


_TYPES = {int: types.int64, float: types.float64, bool: types.boolean, np.ndarray: types.float64[::1]}


def tuple_type(kind: type) -> types.Type:
    """numba's type of a NamedTuple of numbers, and of float64 arrays, as its annotations say."""
    return types.NamedTuple([_TYPES[of] for of in get_type_hints(kind).values()], kind)
