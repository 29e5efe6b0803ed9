"""Compile decision code with numba, cached on disk (`niyama.kernel_cache`).

With NUMBA_DISABLE_JIT=1 the decorators return the plain function.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
from numba import config
from numba.core.ccallback import CFunc
from numba.core.sigutils import normalize_signature

from niyama.kernel_cache import cache_of


def _compiled(function: Callable, **options: Any) -> Callable:
    if config.DISABLE_JIT:
        return function
    dispatcher = numba.njit(_nrt=False, **options)(function)
    dispatcher._cache = cache_of(function)  # where njit(cache=True) puts numba's own
    return dispatcher


def compiled(function: Callable) -> Callable:
    """Compile `function` on first call, for the argument types it is given. It must not create arrays.

    Two options make the kernel 20 times faster: without `_nrt` no array passed on is reference-counted, and
    `forceinline` spares every call the copying of all arrays' descriptors.
    """
    return _compiled(function, forceinline=True)


def compiled_apart(function: Callable) -> Callable:
    """As `compiled`, but called, not copied into every caller: for loops whose own time hides that of the call."""
    return _compiled(function)


def function_pointer(signature: object) -> Callable[[Callable], Callable]:
    """Compile now, for one signature, to a function pointer: a kernel taking it is compiled once for all of them.

    Cached on disk when the function is the package's own. One of a user's is compiled in every process, which takes a
    fraction of a second: it may call functions and read constants of other files, whose edits no cache would notice.
    """

    def decorate(function: Callable) -> Callable:
        """`function` as a pointer, or as it is with NUMBA_DISABLE_JIT=1."""
        if config.DISABLE_JIT:
            return function
        if Path(__file__).parent not in Path(function.__code__.co_filename).parents:
            return numba.cfunc(signature)(function)
        pointer = CFunc(function, normalize_signature(signature), locals={}, options={})  # as numba.cfunc makes it
        pointer._cache = cache_of(function)
        pointer.compile()
        return pointer

    return decorate
