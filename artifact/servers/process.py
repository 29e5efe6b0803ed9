"""One server process: started in a session of its own, polled until healthy, always stopped with its whole group."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Mapping, Sequence
from http.client import HTTPException, HTTPResponse
from pathlib import Path

from artifact.errors import CommandError
from artifact.servers import guard

POLL_S = 0.25
REQUEST_TIMEOUT_S = 5.0
LOG_TAIL_LINES = 20
NOISE = re.compile(r"nanobind: |See https://nanobind|\s*- (leaked|\.\.\. skipped)")  # what every vLLM ends with
CAUSE = re.compile(r"^(\S+ pid=\d+\) ERROR .*)?\b\w*(Error|Exception): ")
HOST = "127.0.0.1"
_DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # servers here are behind no proxy


def open_url(url: str, timeout_s: float) -> HTTPResponse:
    """An answer of a server on this machine, to be used as a context manager. Raises OSError or HTTPException."""
    return _DIRECTLY.open(url, timeout=timeout_s)


class ServerError(CommandError):
    """A server did not start, is not ours, or died; names it and shows the end of its log."""


def free_port() -> int:
    """A TCP port that is free right now; who listens on it later is checked by the served model's name."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return probe.getsockname()[1]


class ServerProcess:
    """A server under its guard. Mutable: only its owner, a fleet, starts and stops it.

    name: for messages. url: where it will listen. model: the served model name, whose nonce proves that the server
    at `url` is this one. log: file with its output.
    """

    def __init__(
        self, name: str, command: Sequence[str], environment: Mapping[str, str], port: int, model: str, log: Path
    ) -> None:
        self.name, self.model, self.log = name, model, log
        self.url = f"http://{HOST}:{port}"
        self._command, self._environment = list(command), dict(environment)
        log.parent.mkdir(parents=True, exist_ok=True)
        self._guard = self._start("wb")

    def _start(self, mode: str) -> subprocess.Popen[bytes]:
        with self.log.open(mode) as output:
            return subprocess.Popen(
                [sys.executable, guard.__file__, *self._command],
                env=self._environment,
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The guard's process id, which is its group's too."""
        return self._guard.pid

    @property
    def status(self) -> int | None:
        """Its exit status; None while it runs."""
        return self._guard.poll()

    @property
    def is_healthy(self) -> bool:
        """Whether it answers 200 to a look at its health."""
        return _answers(f"{self.url}/health")

    def restart(self) -> None:
        """Stop it, should it still run, and start it anew: same command, port and name; its log goes on."""
        self.stop()
        self._guard = self._start("ab")

    def check_alive(self) -> None:
        """ServerError with the end of the log when it has ended."""
        status = self.status
        if status is not None:
            raise ServerError(f"server {self.name} ended with status {status}; {self.log_tail()}")

    def wait_until_ready(self, timeout_s: float) -> float:
        """Wait until it is healthy and proves to be ours; the seconds waited. ServerError otherwise."""
        started_s = time.monotonic()
        while not self.is_healthy:
            self.check_alive()
            if time.monotonic() - started_s > timeout_s:
                raise ServerError(f"server {self.name} is not healthy after {timeout_s:g} s; {self.log_tail()}")
            time.sleep(POLL_S)
        self._check_nonce()
        return time.monotonic() - started_s

    def _check_nonce(self) -> None:
        names = served_models(self.url)
        if self.model not in names:
            raise ServerError(
                f"server {self.name}: {self.url} serves {', '.join(names) or 'nothing'}, not {self.model}: another "
                "server has taken the port; run again"
            )

    def log_tail(self) -> str:
        """The end of its log, with the file's path; before it the first error, which is usually the cause."""
        text = self.log.read_text(errors="replace") if self.log.is_file() else ""
        lines = [line for line in text.splitlines() if line.strip() and not NOISE.match(line)]
        end = lines[-LOG_TAIL_LINES:]
        cause = next((line for line in lines[: -LOG_TAIL_LINES or None] if CAUSE.search(line)), None)
        shown = [*([cause, "..."] if cause else []), *end] or ["(empty)"]
        return "\n".join([f"the end of its log {self.log}:", *(f"  | {line[:300]}" for line in shown)])

    def stop(self) -> None:
        """End the whole process group: asked first, killed when that does not help. Does nothing the second time."""
        if self._guard.stdin is not None and not self._guard.stdin.closed:
            self._guard.stdin.close()  # what the guard waits for
        try:
            self._guard.wait(guard.GRACE_S + 4.0)
        except subprocess.TimeoutExpired:
            os.killpg(self._guard.pid, signal.SIGKILL)  # a guard that was stopped itself
            self._guard.wait()


def served_models(url: str) -> list[str]:
    """Names of the models that the server at `url` serves. ServerError when it does not say."""
    try:
        with open_url(f"{url}/v1/models", REQUEST_TIMEOUT_S) as answer:
            return [row["id"] for row in json.load(answer)["data"]]
    except (OSError, HTTPException, ValueError, KeyError, TypeError) as error:
        raise ServerError(f"{url}/v1/models gives no list of models ({error}); is it a vLLM server?") from None


def _answers(url: str) -> bool:
    """Whether `url` answers 200; a server that is still starting refuses the connection or does not answer."""
    try:
        with open_url(url, REQUEST_TIMEOUT_S) as answer:
            return answer.status == 200
    except (OSError, HTTPException):  # URLError is an OSError
        return False
