"""Compile decision code with numba, cached on disk under a hash of the package's sources.

numba's own cache notices a change only in the file of the cached function, not in the functions it calls,
so a `git pull` could run yesterday's decisions. Here the cache folder is named after a hash of every source file
of the package but the engine plug-in, whose one compiled function calls no other: any change starts a fresh cache.
With NUMBA_DISABLE_JIT=1 the decorators return the plain function.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numba
from numba import config


@cache
def _cache_folder() -> str:
    """The folder for this version of the sources; NUMBA_CACHE_DIR or the user's cache folder holds it."""
    digest = hashlib.sha256(numba.__version__.encode())
    package = Path(__file__).parent
    for source in sorted(package.rglob("*.py")):
        if package / "vllm" not in source.parents:
            digest.update(source.read_bytes())
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return str(Path(os.environ.get("NUMBA_CACHE_DIR") or home) / "niyama" / digest.hexdigest()[:16])


def _cached(decorator: Callable, function: Callable) -> Callable:
    # numba reads the folder from its config when a function is decorated; put the user's value back after.
    before, config.CACHE_DIR = config.CACHE_DIR, _cache_folder()
    try:
        return decorator(function)
    finally:
        config.CACHE_DIR = before


def compiled(function: Callable) -> Callable:
    """Compile `function` on first call, for the argument types it is given. It must not create arrays.

    Two options make the kernel 20 times faster: without `_nrt` no array passed on is reference-counted, and
    `forceinline` spares every call the copying of all arrays' descriptors.
    """
    return function if config.DISABLE_JIT else _cached(numba.njit(cache=True, _nrt=False, forceinline=True), function)


def compiled_apart(function: Callable) -> Callable:
    """As `compiled`, but called, not copied into every caller: for loops whose own time hides that of the call."""
    return function if config.DISABLE_JIT else _cached(numba.njit(cache=True, _nrt=False), function)


def function_pointer(signature: object) -> Callable[[Callable], Callable]:
    """Compile now, for one signature, to a function pointer: a kernel taking it is compiled once for all of them.

    Cached on disk when the function stands in a file; one typed at a prompt or in a notebook is compiled every time.
    """

    def decorate(function: Callable) -> Callable:
        """`function` as a pointer, or as it is with NUMBA_DISABLE_JIT=1."""
        if config.DISABLE_JIT:
            return function
        if Path(function.__code__.co_filename).is_file():
            return _cached(numba.cfunc(signature, cache=True), function)
        return numba.cfunc(signature)(function)

    return decorate
