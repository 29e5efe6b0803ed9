"""Where compiled code is kept between runs: a folder that only this user can write, named after a hash of the sources.

numba's own cache notices a change only in the file of the cached function, not in the functions it calls, so a
`git pull` could run yesterday's decisions; it keeps them beside the sources where the user's cache folder cannot be
written, and stops on a damaged file. This one never does: any change of a source starts a fresh folder, what is
damaged or cannot be kept is compiled again, and one line on stderr says so.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba
from numba.core.caching import (
    CompileResultCacheImpl,
    FunctionCache,
    IndexDataCacheFile,
    NullCache,
    UserProvidedCacheLocator,
)
from numba.core.runtime import rtsys
from numba.core.sigutils import normalize_signature

PACKAGE = Path(__file__).parents[1]  # niyama
DIGEST_BYTES = hashlib.sha256().digest_size


@cache
def _note(text: str) -> None:
    """Say it on stderr, once per process."""
    print(f"niyama: {text}", file=sys.stderr, flush=True)


@cache
def sources_digest() -> str:
    """Hash of numba's version and of every source file of the package but the engine plug-in.

    The plug-in's one compiled function calls no other, so its own file's hash in the cache is enough.
    """
    digest = hashlib.sha256(numba.__version__.encode())
    for source in sorted(PACKAGE.rglob("*.py")):
        if PACKAGE / "vllm" not in source.parents:
            digest.update(source.read_bytes())
    return digest.hexdigest()[:16]


@cache
def cache_folder() -> Path | None:
    """The folder for this version of the sources, made if need be; None when no folder at all can be written.

    Under NUMBA_CACHE_DIR, XDG_CACHE_HOME or ~/.cache, the first that is set; where that cannot be written or others
    can write it (the cache is pickled: whoever writes it runs code here), a private one in the temporary folder.
    """
    usual = os.environ.get("NUMBA_CACHE_DIR") or os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    folder = Path(usual) / "niyama" / sources_digest()
    try:
        if usual.startswith("~"):
            raise FileNotFoundError(0, "there is no home folder")
        return _private(folder)
    except OSError as error:
        fix = f"cannot keep compiled code in {folder} ({error.strerror}); set NUMBA_CACHE_DIR to a folder of yours"
    try:
        temporary = _private(Path(tempfile.gettempdir()) / f"niyama-{os.geteuid()}-{sources_digest()}")
    except OSError:
        _note(f"{fix}. Every process compiles anew.")
        return None
    _note(f"{fix}. It is kept in {temporary} instead.")
    return temporary


def _private(folder: Path) -> Path:
    """`folder`, made for this user alone and tried by writing a file; OSError says what is wrong with it."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.suppress(FileExistsError):
        folder.mkdir(mode=0o700)
    about = folder.lstat()
    if not stat.S_ISDIR(about.st_mode):
        raise NotADirectoryError(0, "not a folder")
    if about.st_uid != os.geteuid():
        raise PermissionError(0, f"it belongs to user {about.st_uid}")
    if about.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
        raise PermissionError(0, "other users can write it")
    tempfile.TemporaryFile(dir=folder).close()
    return folder


def cache_of(function: Callable) -> FunctionCache | NullCache:
    """The cache of one compiled function; one that keeps nothing where no folder can be written."""
    return KernelCache(function) if cache_folder() else NullCache()


class _Locator(UserProvidedCacheLocator):
    """Files of a function in `cache_folder()`, in a folder named after the bytes of its source file.

    A stamp in the index, as numba has it, is no guard: a kill between the two writes leaves a new index of old data.
    """

    def __init__(self, function: Callable, source: str) -> None:
        self._lineno = function.__code__.co_firstlineno
        digest = hashlib.sha256(Path(source).read_bytes()).hexdigest()[:16]
        self._cache_path = str(cache_folder() / f"{Path(source).stem}-{digest}")

    @classmethod
    def from_function(cls, function: Callable, source: str) -> _Locator:
        return cls(function, source)

    def get_source_stamp(self) -> str:
        return ""

    def ensure_cache_path(self) -> None:
        _private(cache_folder())  # someone may have removed it since
        super().ensure_cache_path()


class _Kept(CompileResultCacheImpl):
    _locator_classes = (_Locator,)


class _CheckedFile(IndexDataCacheFile):
    """Index and data files that end in the SHA-256 of the rest: nothing that differs from it is unpickled or run."""

    @contextlib.contextmanager
    def _open_for_write(self, filepath: str) -> Iterator[io.BytesIO]:
        with super()._open_for_write(filepath) as file:
            content = io.BytesIO()
            yield content
            file.write(content.getvalue() + hashlib.sha256(content.getvalue()).digest())

    def _load_index(self) -> dict[Any, str]:
        _check(self._index_path)
        return super()._load_index()

    def _load_data(self, name: str) -> Any:
        _check(self._data_path(name))
        return super()._load_data(name)

    def forget(self) -> None:
        """Remove the index: all of this function is compiled anew."""
        with contextlib.suppress(OSError):
            os.unlink(self._index_path)


def _check(path: str) -> None:
    """ValueError when a file is there and is not as it was written."""
    with contextlib.suppress(FileNotFoundError):
        content = Path(path).read_bytes()
        if hashlib.sha256(content[:-DIGEST_BYTES]).digest() != content[-DIGEST_BYTES:]:
            raise ValueError(f"{path} is damaged")


class KernelCache(FunctionCache):
    """numba's cache of one function, which a damaged file or a full disk costs a compilation and nothing else."""

    _impl_class = _Kept

    def __init__(self, function: Callable) -> None:
        super().__init__(function)
        plain = self._cache_file
        self._cache_file = _CheckedFile(
            self._cache_path, plain._index_name.removesuffix(".nbi"), self._impl.locator.get_source_stamp()
        )

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        """What was kept, or None; also None when it cannot be read, and then it is removed.

        numba's own method first imports all that a compilation needs, scipy included, which takes half a second.
        """
        try:
            rtsys.initialize(target_context)  # what the code is linked with
            found = self._load_overload(sig, target_context)
            if found is not None and tuple(found.signature.args) != tuple(normalize_signature(sig)[0]):
                # two processes wrote at the same moment, each of them one of index and data
                raise ValueError("its index and its data are not of one piece")
            return found
        except Exception as error:  # whatever unpickling and linking damaged code raises
            self._cache_file.forget()
            _note(f"compiled code in {cache_folder()} cannot be used and is made anew ({_line(error)})")
            return None

    def save_overload(self, sig: Any, data: Any) -> None:
        """Keep it, if the disk takes it."""
        try:
            super().save_overload(sig, data)
        except Exception as error:
            self._cache_file.forget()
            _note(f"compiled code cannot be kept in {cache_folder()} and the next run makes it anew ({_line(error)})")


def _line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
