"""The configuration of a running server: what its file says now, as far as that can change without a restart.

The API server and each engine core watch the file by themselves. They agree on each request all the same: the
middleware says in the request which version it was promised by (`qos.VERSION`), and the engine keeps the last few. It
reads a changed file sooner than the middleware does, so that it knows a version before a request can name it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self
from weakref import ref

from niyama.vllm.config import AT_START, EngineConfig, file_values, validated
from niyama.vllm.loading import ConfigError, short
from niyama.vllm.qos import VERSION

logger = logging.getLogger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only

POLL_S = 1.0
#: How often in a row a changed file must look the same before it is read: an editor may still be writing it.
ENGINE_LOOKS, API_SERVER_LOOKS = 1, 3
APPLIED, INVALID, NEEDS_RESTART = RESULTS = ("applied", "invalid", "needs_restart")
#: Versions that requests on their way to the engine may still name: the last ones, and the one that was named last.
KEPT = 8

#: Called with one of RESULTS, or None at the start, and the configuration in force.
Report = Callable[[str | None, EngineConfig], None]


class NeedsRestart(ConfigError):
    """The file changes what a running engine cannot."""


def read_again(path: Path, running: EngineConfig) -> EngineConfig:
    """What the file says now. Raises ConfigError, and NeedsRestart if a server that runs by `running` cannot do it.

    The parts that need a restart are compared and not built: a policy's file is code, and may take seconds.
    """
    values = file_values(path, "configuration")
    if isinstance(values, Mapping):
        later = {field: value for field, value in values.items() if field not in AT_START}
        given = {field: values.get(field, EngineConfig.model_fields[field].default) for field in AT_START}
    else:
        later, given = values, {}
    found = validated(later, str(path))
    fixed = {field: getattr(running, field) for field in AT_START}
    given |= _of_classes(found)
    changed = [
        f"{field} is {short(given[field])} and was {short(old)}"
        for field, old in {**fixed, **_of_classes(running)}.items()
        if given[field] != old
    ]
    if changed:
        raise NeedsRestart(f"{path}: {', '.join(changed)}; nothing of the file is applied, restart for that")
    return found.model_copy(update=fixed)


def _of_classes(config: EngineConfig) -> dict[str, tuple[str, ...]]:
    """What a running engine cannot change of its classes: metrics have labels for each, and for the SLOs it has."""
    kinds = tuple("batch" if served.ttft_s is None else "interactive" for served in config.classes)
    return {"classes": config.names, "kinds of classes": kinds}


class LiveConfig:
    """The configuration in force. `now` is what a request that arrives gets; requests keep what they got.

    path: the file to watch; None: `now` never changes. looks: how often in a row it must look the same.
    """

    def __init__(self, config: EngineConfig, path: Path | None, report: Report, looks: int) -> None:
        self.now, self._path = config, path
        self._report, self._looks = report, looks
        self._versions, self._named = {config.version: config}, config.version
        # States of the file: at the last look, and for how many looks before; when it was read; when a request asked.
        self._seen, self._same_looks = "", 0
        self._read = self._asked = ""
        self._refused = False
        self._reading = threading.Lock()
        self._tell(None)

    def watch(self) -> Self:
        """Look at the file once a second, in a thread, as long as this object lives."""
        if self._path is not None:
            threading.Thread(target=_watch, args=(ref(self),), name="niyama-config", daemon=True).start()
        return self

    def version_of(self, config: EngineConfig) -> str | None:
        """What requests that are promised by it tell the engine; None where there can be no other."""
        return config.version if self._path is not None else None

    def of(self, extra_args: Any) -> EngineConfig:
        """The configuration that a request with these arguments was promised by; `now` if it does not say."""
        version = extra_args.get(VERSION) if isinstance(extra_args, Mapping) else None
        if not isinstance(version, str):
            return self.now
        if version not in self._versions and self._path is not None:
            self._catch_up(self._path, version)
        found = self._versions.get(version)
        if found is None:
            return self.now
        self._named = version
        return found

    def look(self) -> None:
        """Read the file if it has changed and stays the same. Raises nothing."""
        if self._path is None:
            return
        state = _state(self._path)
        self._same_looks = self._same_looks + 1 if state == self._seen else 0
        self._seen = state
        if self._same_looks < self._looks or state == self._read:
            return
        with self._reading:
            self._read = state
            try:
                found = read_again(self._path, self.now)
            except Exception as error:  # whatever it is, the configuration of before is good
                self._refuse(error)
            else:
                self._apply(found)

    def _catch_up(self, path: Path, version: str) -> None:
        """A request names a version that this process has not got round to read, or that another file has."""
        with self._reading:
            state = _state(path)
            if version in self._versions or state in (self._read, self._asked):
                return
            self._asked = state
            try:
                found = read_again(path, self.now)
            except Exception:  # `look` will say so
                return
            if found.version == version:
                self._read = state
                self._apply(found)

    def _apply(self, found: EngineConfig) -> None:
        if found.version == self.now.version and not self._refused:
            return
        self._refused = False
        others = {version: config for version, config in self._versions.items() if version != found.version}
        kept = {self._named, *list(others)[1 - KEPT :]}  # the middleware waits while a file changes all the time
        self._versions = {version: others[version] for version in others if version in kept} | {found.version: found}
        self.now = found
        logger.info("Niyama: %s was read again; requests that arrive from now on are served by it", self._path)
        self._tell(APPLIED)

    def _refuse(self, error: Exception) -> None:
        self._refused = True
        logger.error("Niyama: the configuration stays as it was: %s", "; ".join(str(error).splitlines()))
        self._tell(NEEDS_RESTART if isinstance(error, NeedsRestart) else INVALID)

    def _tell(self, result: str | None) -> None:
        try:
            self._report(result, self.now)
        except Exception:  # the configuration is in force all the same
            logger.exception("Niyama: the metrics do not say what is in force")


def _watch(live: ref[LiveConfig]) -> None:
    never = threading.Event()  # not `time`, which may be virtual
    while not never.wait(POLL_S):
        found = live()
        if found is None:
            return
        found.look()
        del found


def _state(path: Path) -> str:
    """What changes when the file does, also where a link to it is turned to another, as Kubernetes does."""
    try:
        found = path.stat()
    except OSError as error:
        return str(error)
    return f"{found.st_dev} {found.st_ino} {found.st_size} {found.st_mtime_ns}"
