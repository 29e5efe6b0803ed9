"""How the engine core's metrics reach the API server's `/metrics`: by files that both processes know, without a flag.

vLLM's scheduler runs in a process of its own, and `/metrics` shows the API server's. prometheus_client's multiprocess
files bridge that, but only where PROMETHEUS_MULTIPROC_DIR is set before anything is imported, and then every metric of
vLLM's changes its ways. So Niyama's engine metrics alone go to such files: into that directory where it is set (vLLM
sets it itself for several API servers, and reads it), else into one named after the API server's process, which
`QoSMiddleware` reads when scraped.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any
from weakref import WeakKeyDictionary

from prometheus_client import REGISTRY, CollectorRegistry, Metric, values
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

ENV_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"

# Room for MAX_CLASSES classes in the largest file, the histograms'.
_FILE_BYTES = 1 << 19

# One writer for each file of this process, however often a scheduler is made anew.
_open: dict[str, MmapedDict] = {}
# Which folder each registry shows.
_shown: WeakKeyDictionary[CollectorRegistry, Path] = WeakKeyDictionary()


def engine_folder(environ: Mapping[str, str]) -> Path:
    """Where an engine core writes its metrics; made if need be. Raises OSError when there is no such folder for us."""
    if environ.get(ENV_VARIABLE):
        return Path(environ[ENV_VARIABLE])
    sweep()
    parent = multiprocessing.parent_process()
    folder = _private_folder(parent.pid if parent is not None else os.getpid())
    folder.mkdir(mode=0o700, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid() or found.st_mode & 0o077:
        raise PermissionError(f"{folder} is not a private directory of this user; remove it")
    return folder


def _private_folder(api_pid: int) -> Path:
    """The same for engine core and API server, and for no other pair: pids come again, pids with start times do not."""
    return Path(tempfile.gettempdir()) / f"{_own_prefix()}{api_pid}-{_start_ticks(api_pid) or 0}"


def _own_prefix() -> str:
    """Of this user's folders whose pids mean something here: containers may share the temporary folder."""
    try:
        space = os.readlink("/proc/self/ns/pid").strip("pid:[]")
    except OSError:
        space = "0"
    return f"niyama-metrics-{os.getuid()}-{space}-"


def _start_ticks(pid: int) -> int | None:
    """When the process started; None where there is no such process, or no /proc."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except (OSError, IndexError):
        return None


def sweep() -> None:
    """Remove the folders of servers that are gone: one that was killed left its own, 2 MB."""
    if _start_ticks(os.getpid()) is None:
        return  # no /proc: nobody can tell
    prefix = _own_prefix()
    for folder in Path(tempfile.gettempdir()).glob(f"{prefix}*"):
        pid, _, started = folder.name.removeprefix(prefix).partition("-")
        if pid.isdecimal() and started.isdecimal() and _start_ticks(int(pid)) != int(started):
            shutil.rmtree(folder, ignore_errors=True)


class _FileValue:
    """A number of prometheus_client's in a multiprocess file. One process writes it, one thread at a time."""

    _multiprocess = True
    folder: Path

    def __init__(
        self,
        typ: str,
        metric_name: str,
        name: str,
        labelnames: Any,
        labelvalues: Any,
        help_text: str,
        multiprocess_mode: str = "",
        **_: Any,
    ) -> None:
        kind = f"{typ}_{multiprocess_mode}" if typ == "gauge" else typ
        path = str(self.folder / f"{kind}_{os.getpid()}.db")
        if path not in _open:
            _open[path] = _allocated(path)
        self._file, self._key = _open[path], mmap_key(metric_name, name, labelnames, labelvalues, help_text)
        self._value = self._file.read_value(self._key)[0]

    def inc(self, amount: float) -> None:
        self._value += amount
        self._file.write_value(self._key, self._value, 0.0)

    def set(self, value: float, timestamp: float | None = None) -> None:
        self._value = value
        self._file.write_value(self._key, value, timestamp or 0.0)

    def get(self) -> float:
        return self._value

    def set_exemplar(self, exemplar: Any) -> None:
        """Files hold none."""

    def get_exemplar(self) -> None:
        """Files hold none."""


def _allocated(path: str) -> MmapedDict:
    """A metrics file with all its blocks: a write through mmap to one that a full disk lacks would kill the process."""
    if not os.path.exists(path):
        with open(path, "xb") as file:
            file.write(bytes(_FILE_BYTES))
    return MmapedDict(path)


@contextmanager
def kept_in(folder: Path) -> Iterator[None]:
    """Metrics made inside, with all their labels, live in files in `folder`. OSError can come then, and not later."""
    usual = values.ValueClass
    values.ValueClass = type("FileValue", (_FileValue,), {"folder": folder})
    try:
        yield
    finally:
        values.ValueClass = usual


def remove_at_exit(folder: Path) -> None:
    """Remove a private folder when this process ends, as parent or as multiprocessing's child; no other folder."""
    if folder.name.startswith("niyama-metrics-"):
        Finalize(None, shutil.rmtree, (folder,), {"ignore_errors": True}, exitpriority=0)


class _EngineMetrics(Collector):
    """Reads the files anew at every scrape; none of them yet, or no longer, is no metric."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def describe(self) -> list[Metric]:
        """Nothing: what there is depends on the engine, which may not have started."""
        return []

    def collect(self) -> Iterator[Metric]:
        if self._folder.is_dir():
            yield from MultiProcessCollector(None, str(self._folder)).collect()


def show_engine_metrics(environ: Mapping[str, str], registry: CollectorRegistry = REGISTRY) -> None:
    """Called in the API server: its `/metrics` shows the engine core's as well, from now on."""
    if environ.get(ENV_VARIABLE):
        return  # vLLM reads that directory itself
    folder = _private_folder(os.getpid())
    if _shown.get(registry) != folder:
        registry.register(_EngineMetrics(folder))
        _shown[registry] = folder
        remove_at_exit(folder)
