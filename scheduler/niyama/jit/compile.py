"""Compile decision code with numba, cached on disk (`niyama.jit.cache`).

With NUMBA_DISABLE_JIT=1 the decorators return the plain function.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numba.experimental.function_type  # numba knows the type of a pointer from here on
from numba import config
from numba.core.ccallback import CFunc
from numba.core.errors import NumbaError
from numba.core.sigutils import normalize_signature

from niyama.jit.cache import PACKAGE, cache_of


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


class _AtFirstUse(CFunc):
    """A pointer that is compiled, or read from disk, when numba or `layout_of` asks for its address: a run needs three
    of the package's rules, and reading them all was a fifth of the time that a command took to start."""

    def __init__(self, function: Callable, signature: object) -> None:
        super().__init__(function, normalize_signature(signature), locals={}, options={})  # as numba.cfunc makes it
        self._cache = cache_of(function)
        del self._wrapper_name, self._wrapper_address  # None would be taken for an address

    def __getattr__(self, name: str) -> Any:
        if name not in ("_library", "_wrapper_name", "_wrapper_address"):
            raise AttributeError(f"{self!r} has no {name!r}")
        self.compile()
        return self.__dict__[name]


def function_pointer(signature: object) -> Callable[[Callable], Callable]:
    """Compile, for one signature, to a function pointer: a kernel taking it is compiled once for all of them.

    Cached on disk when the function is the package's own. One of a user's is compiled now, so that an error names its
    line, and in every process, which takes a fraction of a second: it may call functions and read constants of other
    files, whose edits no cache would notice.
    """

    def decorate(function: Callable) -> Callable:
        """`function` as a pointer, or as it is with NUMBA_DISABLE_JIT=1."""
        if config.DISABLE_JIT:
            return function
        if PACKAGE not in Path(function.__code__.co_filename).parents:
            return numba.cfunc(signature)(function)
        return _AtFirstUse(function, signature)

    return decorate


def guarded_pointer(
    signature: object, names: tuple[str, ...], convert: str, fault: float
) -> Callable[[Callable], Callable]:
    """As `function_pointer`, for code that may raise: it then answers `fault`; a plain pointer prints and answers 0.

    names: the arguments; convert: an expression that makes the answer of `value`, what the function returned. The guard
    counts as a function at the same place of the same file, and is compiled every time: what it calls may have changed.
    """
    source = "def guarded({a}):\n try:\n  value = rule({a})\n  return {c}\n except Exception:\n  return fault\n"

    def decorate(function: Callable) -> Callable:
        """`function`, guarded, as a pointer; its `__wrapped__` is the function."""
        code, name = function.__code__, f"{function.__name__}_or_fault"
        inner = numba.njit(boundscheck=True)(function)
        space = {"rule": inner, "fault": fault, "isfinite": math.isfinite, "__name__": function.__module__}
        text = source.format(a=", ".join(names), c=convert).replace("guarded", name)
        exec(compile("\n" * (code.co_firstlineno - 1) + text, code.co_filename, "exec"), space)
        guarded = space[name]
        try:
            pointer = numba.cfunc(signature)(guarded)
        except NumbaError:
            inner.compile(signature.args)  # says the same without the guard's frames
            raise
        pointer.__wrapped__ = function
        return pointer

    return decorate
