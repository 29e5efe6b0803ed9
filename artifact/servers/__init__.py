"""Real vLLM servers: which ones make up a system, how they are started, watched and stopped, and what they take.

Reading order: systems (what a system is), command_line (how one server is started), gpus (what there is to run on),
process (one server from start to stop), fleet (a whole system behind one URL); then client and measured (one run at a
URL), config, run_cycle and sweep (every run of `snakemake servers`), simulated (the same runs in the simulator),
sweep_cli and cli (commands).
`guard` is the small program that every server runs under. Nothing here imports vLLM.
"""

from artifact.servers.command_line import BACKENDS, Engine, backend_of, detect_backend
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
