"""Numbers by name in compiled code: tuples that stay as they are, and records that are changed in place."""

from __future__ import annotations

from dataclasses import astuple, fields
from functools import cache
from typing import Any, get_type_hints

import numpy as np
from numba import config, types


class Numbers:
    """Base of dataclasses of numbers (int, float, bool) that become a `record`."""

    __slots__ = ()


def record(numbers: Numbers) -> Any:
    """The same numbers as the kernel holds them, read and written as attributes; Python reads `record["name"]` faster.

    64 bits each, in plain Python too: int32 ids and tokens that are added to them do not make them int32.
    """
    one = np.array([astuple(numbers)], _layout(type(numbers)))
    return one.view(np.recarray)[0] if config.DISABLE_JIT else one[0]


@cache
def _layout(kind: type[Numbers]) -> np.dtype:
    types_of = get_type_hints(kind)
    return np.dtype([(field.name, types_of[field.name]) for field in fields(kind)], align=True)


_TYPES = {int: types.int64, float: types.float64, bool: types.boolean, np.ndarray: types.float64[::1]}


def tuple_type(kind: type) -> types.Type:
    """numba's type of a NamedTuple of numbers, and of float64 arrays, as its annotations say."""
    return types.NamedTuple([_TYPES[of] for of in get_type_hints(kind).values()], kind)
