"""Systems made of vLLM servers: a list of pools, as in the simulator; "siloed" is a list longer than one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from artifact.config import ConfigError
from artifact.runs.spec import ClassSpec
from artifact.runs.stock import VLLM_FCFS, VLLM_PRIORITY
from niyama.names import unknown_name

FCFS, PRIORITY, SILO = STOCK_SYSTEMS = (VLLM_FCFS, VLLM_PRIORITY, "silo")
#: Systems of one server that runs Niyama's scheduler, each named after its policy.
NIYAMA, NIYAMA_STEADY = NIYAMA_SYSTEMS = ("niyama", "niyama-steady")
SERVER_SYSTEMS = (*STOCK_SYSTEMS, *NIYAMA_SYSTEMS)
#: The paper's silo (section 4): small chunks where tokens are awaited, large ones where only the end counts.
SILO_INTERACTIVE_TOKENS, SILO_BATCH_TOKENS = 256, 2048
#: Niyama picks each step's budget itself, up to its policies' largest chunk (2500) beside one token per decode (256).
NIYAMA_TOKENS = 2816
NIYAMA_SCHEDULER = "niyama.vllm.NiyamaAsyncScheduler"


@dataclass(frozen=True)
class ServerPool:
    """Servers started alike. classes: QoS classes they serve, None for all. batched_tokens: vLLM's budget of a step,
    prefill and decodes together; None leaves vLLM's own default."""

    name: str
    replicas: int = 1
    classes: tuple[str, ...] | None = None
    batched_tokens: int | None = None
    arguments: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.replicas < 1:
            raise ConfigError(f"pool {self.name!r}: replicas is {self.replicas}; it must be at least 1")

    def serves(self, class_name: str) -> bool:
        """Whether requests of that class come here."""
        return self.classes is None or class_name in self.classes


@dataclass(frozen=True)
class ServerSystem:
    """Pools, and how requests tell their class: `vllm_xargs` where Niyama reads them, else vLLM's priority or nothing.

    priorities: class name -> vLLM's priority number, low is urgent; empty where requests carry none.
    """

    name: str
    pools: tuple[ServerPool, ...]
    priorities: tuple[tuple[str, int], ...] = ()

    @property
    def replicas(self) -> int:
        """Number of servers, each of them a GPU."""
        return sum(pool.replicas for pool in self.pools)

    @property
    def is_niyama(self) -> bool:
        """Whether its servers run Niyama's scheduler, with the policy of the system's name."""
        return self.name in NIYAMA_SYSTEMS


def build_server_system(name: str, classes: Sequence[ClassSpec], replicas: Sequence[int] | None = None) -> ServerSystem:
    """The system called `name` for these classes, with `replicas` servers per pool (default one each).

    vllm-fcfs is stock vLLM; vllm-priority the same with its priority queue, a class's number its place in the list;
    silo has a pool for the interactive classes and one for the batch classes; the others run Niyama's policy of that
    name. Raises ConfigError.
    """
    if name not in SERVER_SYSTEMS:
        raise ConfigError(unknown_name("server system", name, SERVER_SYSTEMS))
    system = _niyama(name) if name in NIYAMA_SYSTEMS else {FCFS: _fcfs, PRIORITY: _priority, SILO: _silo}[name](classes)
    sizes = tuple(replicas or (1,) * len(system.pools))
    if len(sizes) != len(system.pools):
        raise ConfigError(f"replicas is {sizes}: {name!r} has {len(system.pools)} pool(s); give that many numbers")
    pools = tuple(replace(pool, replicas=size) for pool, size in zip(system.pools, sizes, strict=True))
    return replace(system, pools=pools)


def _fcfs(classes: Sequence[ClassSpec]) -> ServerSystem:
    return ServerSystem(FCFS, (ServerPool("shared"),))


def _priority(classes: Sequence[ClassSpec]) -> ServerSystem:
    pool = ServerPool("shared", arguments=("--scheduling-policy", "priority"))
    return ServerSystem(PRIORITY, (pool,), tuple((c.name, i) for i, c in enumerate(by_urgency(classes))))


def by_urgency(classes: Sequence[ClassSpec]) -> list[ClassSpec]:
    """Interactive classes first, then by their deadline."""
    return sorted(classes, key=lambda c: (not c.qos().interactive, c.qos().deadline_slo_s))


def _silo(classes: Sequence[ClassSpec]) -> ServerSystem:
    parts = {"interactive": (True, SILO_INTERACTIVE_TOKENS), "batch": (False, SILO_BATCH_TOKENS)}
    pools = [
        ServerPool(name, classes=names, batched_tokens=tokens)
        for name, (interactive, tokens) in parts.items()
        if (names := tuple(c.name for c in classes if c.qos().interactive == interactive))
    ]
    return ServerSystem(SILO, tuple(pools))


def _niyama(policy: str) -> ServerSystem:
    arguments = ("--scheduler-cls", NIYAMA_SCHEDULER, "--middleware", "niyama.vllm.QoSMiddleware")
    return ServerSystem(policy, (ServerPool("shared", batched_tokens=NIYAMA_TOKENS, arguments=arguments),))
