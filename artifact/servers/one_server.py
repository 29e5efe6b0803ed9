"""One vLLM server alone, with a Niyama configuration of one's own instead of the one that a fleet makes of classes."""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from artifact.servers.command_line import Engine, check_engine_installed, model_path, server_command, server_environment
from artifact.servers.process import ServerProcess, free_port
from artifact.servers.systems import ServerSystem


@contextmanager
def starting(
    system: ServerSystem, engine: Engine, folder: Path, niyama: Mapping[str, Any] | None = None
) -> Iterator[ServerProcess]:
    """Start the system's only server; its process group is stopped at the end. The caller waits until it is ready.

    folder: logs, model files and configuration. niyama: fields of Niyama's configuration, for a system that runs it.
    Raises ConfigError.
    """
    check_engine_installed()
    folder, (pool,) = folder.resolve(), system.pools
    config = folder / "niyama.yaml"
    config.parent.mkdir(parents=True, exist_ok=True)
    config.write_text(json.dumps(dict(niyama or {}), indent=1))  # JSON is YAML
    port, model = free_port(), f"{system.name}-{secrets.token_hex(6)}"
    command = server_command(engine, pool, model, port, model_path(engine, folder / "models"))
    environment = server_environment(os.environ, engine, system, 0, config)
    server = ServerProcess(system.name, command, environment, port, model, folder / "logs" / f"{system.name}.log")
    try:
        yield server
    finally:
        server.stop()
