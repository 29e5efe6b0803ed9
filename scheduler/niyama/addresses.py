"""Handing a compiled function addresses instead of objects: a call from Python then costs 3 us instead of 60.

numba takes its arguments apart at every call: 11 us for a rule, for an array little more than it costs to fetch its
header from memory, some 35 times, and every number of a tuple by itself. A host that calls once per engine step keeps
them where they are and hands over one array of numbers. What is rebuilt from it is the same function, the same memory.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic
from numba.np.arrayobj import make_array, populate_array


def layout_of(arrays: Iterable[np.ndarray]) -> np.ndarray:
    """Address and shape of each array, as `arrays_at` reads them; the arrays must be contiguous and outlive it."""
    return np.array([number for array in arrays for number in (array.ctypes.data, *array.shape)], np.int64)


def arrays_at(kind: type, members: tuple[types.Array, ...]) -> Callable:
    """For compiled code only: (layout, first index) -> the arrays of these types as the NamedTuple `kind`."""
    result = types.NamedTuple(members, kind)

    @intrinsic
    def at(typing_context, layout, first):
        def generate(context, builder, signature, arguments):
            numbers = make_array(signature.args[0])(context, builder, arguments[0]).data
            position, arrays = arguments[1], []
            one = context.get_constant(types.intp, 1)
            for member in members:
                words = []
                for _ in range(1 + member.ndim):
                    words.append(builder.load(builder.gep(numbers, [position])))
                    position = builder.add(position, one)
                arrays.append(_array(context, builder, member, *words))
            return context.make_tuple(builder, result, arrays)

        return result(layout, types.intp), generate

    return at


def numbers_at(kind: type, members: tuple[types.Type, ...]) -> Callable:
    """For compiled code only: a float64 array -> the NamedTuple `kind` of its first numbers, each of its own type."""
    result = types.NamedTuple(members, kind)

    @intrinsic
    def at(typing_context, numbers):
        def generate(context, builder, signature, arguments):
            data = make_array(signature.args[0])(context, builder, arguments[0]).data
            values = [
                context.cast(builder, builder.load(builder.gep(data, [context.get_constant(types.intp, i)])),
                             types.float64, member)
                for i, member in enumerate(members)
            ]  # fmt: skip
            return context.make_tuple(builder, result, values)

        return result(numbers), generate

    return at


def table_at(kind: types.Array) -> Callable:
    """For compiled code only: (address, rows, columns) -> the contiguous two-dimensional array of this type there."""

    @intrinsic
    def at(typing_context, address, rows, columns):
        def generate(context, builder, signature, arguments):
            return _array(context, builder, kind, *arguments)

        return kind(types.int64, types.intp, types.intp), generate

    return at


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


def function_at(signature: object) -> Callable:
    """For compiled code only: from the address of a function compiled by `function_pointer` to that function."""
    kind = types.FunctionType(signature)

    @intrinsic
    def at(typing_context, address):
        def generate(context, builder, _signature, arguments):
            function = cgutils.create_struct_proxy(kind)(context, builder)
            function.c_addr = builder.inttoptr(arguments[0], cgutils.voidptr_t)
            return function._getvalue()

        return kind(types.int64), generate

    return at
