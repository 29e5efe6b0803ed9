"""Fixtures of the trace tests: a real HTTP server and the folder of real traces."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.helpers.trace_server import Server

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")  # a proxy of the machine must not see these requests
    running = Server()
    yield running
    running.close()


@pytest.fixture
def real_dir() -> Path:
    """The folder of real trace files, or a skip."""
    folder = Path(os.environ.get("NIYAMA_TRACES") or REPOSITORY.parent / "shared" / "traces")
    if not folder.is_dir():
        pytest.skip("no folder of real traces (set NIYAMA_TRACES)")
    return folder
