"""NVIDIA DynoSim beside ours: its offline replay, driven in an environment of its own.

This file is both ends. Imported, it installs the peer and talks to it; run by the other environment's Python it is
the driver: one JSON line in, one replay, one JSON line out. Standard library only, for that reason.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import Any

PACKAGE, VERSION = "ai-dynamo-runtime", "1.6.1"
OFF, AUTO = "off", "auto"
INSTALL_LIMIT_S = 600.0


class PeerUnavailable(RuntimeError):
    """DynoSim cannot be run here; the text is the reason, without paths or hosts."""


def find_peer(choice: str, workdir: Path) -> Path:
    """The Python that has DynoSim: `choice` itself, or an environment made under `workdir`. PeerUnavailable."""
    if choice == OFF:
        raise PeerUnavailable("switched off")
    if choice != AUTO:
        _check(Path(choice))
        return Path(choice)
    if not sys.platform.startswith("linux"):
        raise PeerUnavailable(f"{PACKAGE} has no wheel for {sys.platform}")
    # not resolved: the links of a virtual environment's python lead out of it
    python = (workdir / f"dynosim-{VERSION}").absolute() / "bin" / "python"
    try:
        _check(python)
    except PeerUnavailable:
        _install(python)
        _check(python)
    return python


def _install(python: Path) -> None:
    commands = (
        ("an environment of its own could not be made", [sys.executable, "-m", "venv", str(python.parent.parent)]),
        (
            f"pip could not install {PACKAGE}=={VERSION} (offline, or no wheel for this machine)",
            [str(python), "-m", "pip", "install", "--quiet", "--only-binary", ":all:", f"{PACKAGE}=={VERSION}"],
        ),
    )
    for reason, command in commands:
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_LIMIT_S)
        except (OSError, subprocess.SubprocessError):
            raise PeerUnavailable(reason) from None


def _check(python: Path) -> None:
    """PeerUnavailable unless `python` imports the package in the version measured here."""
    code = f"import dynamo._core, importlib.metadata as m; print(m.version({PACKAGE!r}))"
    try:
        done = subprocess.run([str(python), "-c", code], check=True, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.SubprocessError):
        raise PeerUnavailable(f"the Python given does not import {PACKAGE}") from None
    if done.stdout.strip() != VERSION:
        raise PeerUnavailable(f"the Python given has {PACKAGE} {done.stdout.strip()}, not {VERSION}")


class Peer:
    """A running driver. `start_up_s` is what starting it and its first replay took, and is in no other number."""

    def __init__(self, python: Path) -> None:
        start = time.perf_counter()
        environment = {**os.environ, "DYN_LOG": "error"}
        self._process = subprocess.Popen(
            [str(python), "-u", str(Path(__file__).resolve())],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=environment,
        )
        try:
            self.replay(prompt_tokens=100, output_tokens=2, requests=10, load_qps=10.0, engine={})
        except PeerUnavailable:
            self.close()
            raise
        self.start_up_s = time.perf_counter() - start

    def replay(self, **workload: Any) -> dict[str, float]:
        """One offline replay (arguments as in `replay` below); PeerUnavailable when the driver fails."""
        try:
            self._process.stdin.write(json.dumps(workload) + "\n")
            self._process.stdin.flush()
        except OSError:
            raise PeerUnavailable("the DynoSim driver stopped") from None
        answer = self._process.stdout.readline()
        if not answer:
            raise PeerUnavailable("the DynoSim driver stopped")
        found = json.loads(answer)
        if "error" in found:
            raise PeerUnavailable(f"DynoSim refused the workload: {found['error']}")
        return found

    def __enter__(self) -> Peer:
        return self

    def __exit__(self, kind: type | None, value: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Let the driver end: it does when its input does."""
        try:
            self._process.stdin.close()
        except BrokenPipeError:
            self._process.stdin = None  # it ended first, with a request of ours unread: nothing is left to flush
        with self._process:  # closes the other pipe and waits
            pass


def replay(
    prompt_tokens: int, output_tokens: int, requests: int, load_qps: float, engine: dict[str, Any]
) -> dict[str, float]:
    """One replay in this process: Poisson arrivals, fixed lengths, one replica; nothing optional is captured.

    kernel_s: the wall time that DynoSim reports itself; call_s: the whole call, report included.
    """
    from dynamo._core import run_mocker_synthetic_trace_replay

    start = time.perf_counter()
    result = run_mocker_synthetic_trace_replay(
        prompt_tokens,
        output_tokens,
        requests,
        extra_engine_args={"engine": engine},
        num_workers=1,
        replay_mode="offline",
        request_rate=load_qps,
        capture_planner_details=False,
    )
    call_s = time.perf_counter() - start
    summary = result.summary
    return {
        "kernel_s": summary["wall_time_ms"] / 1e3,
        "call_s": call_s,
        "completed": summary["completed_requests"],
        "throughput_qps": summary["request_throughput_rps"],
        "output_tokens": summary["total_output_tokens"],
    }


def serve() -> None:
    """Answer workloads, one JSON object a line, until the input ends."""
    for line in sys.stdin:
        try:
            answer: dict[str, Any] = replay(**json.loads(line))
        except Exception as error:  # whatever it is, the other end reports it
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    serve()
