"""A whole system behind one URL: its servers, and a router in front where there is more than one."""

from __future__ import annotations

import json
import os
import secrets
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from artifact.runs.spec import ClassSpec
from artifact.servers.command_line import (
    Engine,
    check_engine_installed,
    check_gpus,
    model_path,
    server_command,
    server_environment,
    write_niyama_config,
)
from artifact.servers.process import HOST, ServerProcess, free_port
from artifact.servers.systems import ServerSystem

# Ends what hangs. A vLLM server starts in half a minute on an idle machine, and took up to four on a busy one.
START_TIMEOUT_S = 1200.0
ROUTER_TIMEOUT_S = 300.0


@dataclass(frozen=True)
class Fleet:
    """A running system. url: where requests go. model: the served name, a nonce in it. servers: one per replica."""

    system: ServerSystem
    url: str
    model: str
    servers: tuple[ServerProcess, ...]
    router: ServerProcess | None
    ready_s: float

    @property
    def groups(self) -> tuple[tuple[ServerProcess, ...], ...]:
        """The servers, and the router where there is one: nothing is served without one of each."""
        return (self.servers, (self.router,)) if self.router else (self.servers,)

    def check_alive(self) -> None:
        """ServerError, with the end of its log, when a server or the router has ended."""
        for group in self.groups:
            for process in group:
                process.check_alive()


@contextmanager
def running(
    system: ServerSystem,
    engine: Engine,
    classes: Sequence[ClassSpec],
    folder: Path,
    *,
    port: int | None = None,
    timeout_s: float = START_TIMEOUT_S,
) -> Iterator[Fleet]:
    """Start the system's servers, side by side, wait until all are ready, and stop every process group at the end.

    folder: logs, model files and Niyama's configuration. port: of the URL requests go to; None takes a free one.
    A system of one server has no router: what is measured is then vLLM alone. Raises ServerError or ConfigError.
    """
    check_engine_installed()
    check_gpus(engine, system)
    folder = folder.resolve()
    model = f"{system.name}-{secrets.token_hex(6)}"
    with ExitStack() as stack:
        servers = _start_servers(stack, system, engine, classes, folder, model, port)
        ready_s = [server.wait_until_ready(timeout_s) for server in servers]
        url, router = servers[0].url, None
        if len(servers) > 1:
            router = _start_router(stack, system, classes, servers, folder, model, port)
            url = router.url
        yield Fleet(system, url, model, tuple(servers), router, sum(ready_s))


def _start_servers(
    stack: ExitStack,
    system: ServerSystem,
    engine: Engine,
    classes: Sequence[ClassSpec],
    folder: Path,
    model: str,
    port: int | None,
) -> list[ServerProcess]:
    config, path = folder / "niyama.yaml", model_path(engine, folder / "models")
    if system.is_niyama:
        write_niyama_config(config, system.name, engine, classes)
    servers = []
    for pool in system.pools:
        for k in range(pool.replicas):
            name = f"{system.name}/{pool.name}-{k}"
            own_port = port if port is not None and system.replicas == 1 else free_port()
            command = server_command(engine, pool, model, own_port, path)
            environment = server_environment(os.environ, engine, system, len(servers), config)
            log = folder / "logs" / f"{pool.name}-{k}.log"
            server = ServerProcess(name, command, environment, own_port, model, log)
            stack.callback(server.stop)
            servers.append(server)
    return servers


def _start_router(
    stack: ExitStack,
    system: ServerSystem,
    classes: Sequence[ClassSpec],
    servers: Sequence[ServerProcess],
    folder: Path,
    model: str,
    port: int | None,
) -> ServerProcess:
    """The router over the servers, which stand in the order of the pools."""
    everyone, rest, pools = [c.name for c in classes], list(servers), []
    for pool in system.pools:
        own, rest = rest[: pool.replicas], rest[pool.replicas :]
        pools.append({"name": pool.name, "classes": list(pool.classes or everyone), "urls": [s.url for s in own]})
    path = folder / "pools.json"
    path.write_text(json.dumps(pools, indent=1))
    own_port = port if port is not None else free_port()
    command = [sys.executable, "-m", "artifact.router", "--pools", str(path), "--host", HOST, "--port", str(own_port)]
    log = folder / "logs" / "router.log"
    router = ServerProcess(f"{system.name}/router", command, _router_environment(), own_port, model, log)
    stack.callback(router.stop)
    router.wait_until_ready(ROUTER_TIMEOUT_S)
    return router


def _router_environment() -> dict[str, str]:
    """This process's, with the harness on the path wherever it was started from."""
    root = str(Path(__file__).resolve().parents[2])
    return {**os.environ, "PYTHONPATH": os.pathsep.join([root, *filter(None, [os.environ.get("PYTHONPATH")])])}
