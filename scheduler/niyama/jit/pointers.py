"""Handing a compiled function addresses instead of objects: a call from Python then costs 3 us instead of 60.

numba takes its arguments apart at every call: 11 us for a rule, for an array little more than it costs to fetch its
header from memory, some 35 times, and every number of a tuple by itself. An engine that calls once per step keeps
them where they are and hands over one array of numbers. What is rebuilt from it is the same function, the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


def layout_of(value: Any) -> np.ndarray:
    """int64: where all of `value` is, for `rebuilt`. Its arrays must be contiguous; they and its records outlive it."""
    return np.array(list(_numbers(value)), np.int64)


def _numbers(value: Any) -> Iterator[int]:
    """Of an array address and shape, of a record or a function the address, and numbers themselves."""
    if isinstance(value, tuple):
        for member in value:
            yield from _numbers(member)
    elif isinstance(value, np.ndarray):
        yield from (value.ctypes.data, *value.shape)
    elif isinstance(value, np.void):
        yield value.__array_interface__["data"][0]
    elif isinstance(value, float):
        yield int(np.float64(value).view(np.int64))
    else:
        yield int(getattr(value, "address", value))


def rebuilt(kind: types.Type) -> Callable:
    """For compiled code only: from an array made by `layout_of` to the value, of numba's type `kind`."""

    @intrinsic
    def at(typing_context, numbers):
        def generate(context, builder, signature, arguments):
            source, position = make_array(signature.args[0])(context, builder, arguments[0]).data, count()

            def number():
                return builder.load(builder.gep(source, [context.get_constant(types.intp, next(position))]))

            return _value(context, builder, kind, number)

        return kind(numbers), generate

    return at


def table_at(kind: types.Array) -> Callable:
    """For compiled code only: (address, rows, columns) -> the contiguous two-dimensional array of this type there."""

    @intrinsic
    def at(typing_context, address, rows, columns):
        def generate(context, builder, signature, arguments):
            return _array(context, builder, kind, *arguments)

        return kind(types.int64, types.intp, types.intp), generate

    return at


def _value(context, builder, kind, number):
    if isinstance(kind, types.BaseTuple):
        return context.make_tuple(builder, kind, [_value(context, builder, member, number) for member in kind])
    if isinstance(kind, types.Array):
        return _array(context, builder, kind, *[number() for _ in range(1 + kind.ndim)])
    if isinstance(kind, types.Record):
        return builder.inttoptr(number(), context.get_value_type(kind))
    if isinstance(kind, types.FunctionType):
        function = cgutils.create_struct_proxy(kind)(context, builder)
        function.c_addr = builder.inttoptr(number(), cgutils.voidptr_t)
        return function._getvalue()
    if isinstance(kind, types.Float):
        return builder.bitcast(number(), context.get_value_type(kind))
    return context.cast(builder, number(), types.int64, kind)


def _array(context, builder, kind, address, *shape):
    """A view of the memory at `address`, contiguous, owned by whoever made it."""
    array = make_array(kind)(context, builder)
    itemsize = context.get_constant(types.intp, context.get_abi_sizeof(context.get_data_type(kind.dtype)))
    strides = [itemsize]
    for length in shape[:0:-1]:
        strides.insert(0, builder.mul(strides[0], length))
    data = builder.inttoptr(address, array.data.type)
    populate_array(array, data, shape, strides, itemsize, meminfo=None)
    return array._getvalue()
