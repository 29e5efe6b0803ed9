"""An engine's decision log: one file per engine core, of bounded size, whose failure never reaches the scheduling."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from vllm.logger import init_logger

from niyama.decision_log import DecisionLog
from niyama.latency import ModelCard
from niyama.policies import Policy
from niyama.scheduler import Arrival, Plan, Timing
from niyama.vllm.config import EngineConfig
from niyama.vllm.loading import ConfigError
from niyama.vllm.metrics import SchedulerMetrics

logger = init_logger(f"vllm.{__name__}")  # vLLM's logging has handlers for its own names only


def log_path(path: str, parallel: Any) -> Path:
    """The file of this engine core: under data parallelism with its rank before the suffix.

    vLLM tells the engine cores of a model without experts that they are alone: the first of those keeps the plain name.
    """
    rank = getattr(parallel, "data_parallel_index", parallel.data_parallel_rank)
    if not rank and parallel.data_parallel_size == 1:
        return Path(path)
    return Path(path).with_name(f"{Path(path).stem}.rank{rank}{Path(path).suffix}")


class EngineLog:
    """A Scheduler's `watch` that raises nothing: what cannot be written ends the log, with a warning and a count.

    At `most_bytes` it ends as well, whole: what is there replays. ConfigError when the file cannot be made.
    """

    def __init__(
        self,
        config: EngineConfig,
        parallel: Any,
        metrics: SchedulerMetrics,
        policy: Policy,
        card: ModelCard,
        **sizes: int,
    ) -> None:
        self._log: DecisionLog | None = None
        self._metrics, self._most_bytes = metrics, config.decision_log_max_mb << 20
        if config.decision_log is None:
            return
        self.path = log_path(config.decision_log, parallel)
        try:
            stream = self.path.open("w", encoding="utf-8")
        except OSError as error:
            raise ConfigError(
                f"decision_log is {config.decision_log!r}: {self.path} cannot be made ({error.strerror}); "
                "name a file in a folder that exists and may be written"
            ) from None
        try:
            self._log = DecisionLog(stream, policy, card, **sizes)
        except OSError as error:
            self._end(f"cannot be written ({error})")

    def write(self, timing: Timing, events: list[int], arrivals: list[tuple[int, Arrival]], plan: Plan) -> None:
        """One step."""
        if self._log is None:
            return
        try:
            self._log.write(timing, events, arrivals, plan)
            if self._log.written_bytes >= self._most_bytes:
                self.close()
                self._end(f"is {self._most_bytes >> 20} MiB long, the most that decision_log_max_mb allows")
        except Exception as error:  # whatever it is, a log is not worth a request
            self._end(f"cannot be written ({error})")

    def close(self) -> None:
        """Say that it is whole, and write out what is buffered."""
        log, self._log = self._log, None
        if log is None:
            return
        try:
            log.close()
        except Exception as error:
            self._end(f"cannot be written to its end ({error})")

    def _end(self, why: str) -> None:
        self._log = None
        self._metrics.log_ended()
        logger.warning("Niyama: the decision log %s %s; it ends here, and scheduling goes on", self.path, why)
