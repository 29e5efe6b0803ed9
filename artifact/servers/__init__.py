"""Real vLLM servers: which ones make up a system, how they are started, watched and stopped.

Reading order: systems (what a system is), command (one server's command line), gpus (what there is to run on), process
(one server's life), fleet (a whole system behind one URL). `guard` is the small program that every server runs under.
Nothing here imports vLLM.
"""

from artifact.servers.command import BACKENDS, Engine, backend_of, detect_backend
from artifact.servers.fleet import Fleet, running
from artifact.servers.gpus import gpu_names
from artifact.servers.process import ServerError, ServerProcess
from artifact.servers.systems import SERVER_SYSTEMS, ServerPool, ServerSystem, build_server_system

__all__ = [
    "BACKENDS",
    "SERVER_SYSTEMS",
    "Engine",
    "Fleet",
    "ServerError",
    "ServerPool",
    "ServerProcess",
    "ServerSystem",
    "backend_of",
    "build_server_system",
    "detect_backend",
    "gpu_names",
    "running",
]
