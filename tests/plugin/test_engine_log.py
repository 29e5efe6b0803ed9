"""An engine's decision log: it replays, each engine core has its own, and its failure never reaches the scheduling."""

from __future__ import annotations

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from artifact.servers.model_files import model_folder
from niyama.decision_log import DecisionLog, replay
from niyama.vllm.config import load_config
from niyama.vllm.emulated.virtual import EngineSettings, Traffic
from niyama.vllm.engine_log import EngineLog, log_path
from niyama.vllm.loading import ConfigError
from niyama.vllm.metrics import SchedulerMetrics
from tests.helpers.emulated_runs import CARD, random_requests, with_tokens

pytestmark = pytest.mark.engine
ASYNC = "niyama.vllm.NiyamaAsyncScheduler"
TRAFFIC = Traffic(random_requests(40, 20.0))


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.fixture
def ends(monkeypatch: pytest.MonkeyPatch) -> dict[str, list]:
    """How often a log was counted as ended, a fallback was counted, and what was warned of."""
    seen: dict[str, list] = {"logs": [], "fallbacks": [], "warnings": []}
    monkeypatch.setattr(SchedulerMetrics, "log_ended", lambda self: seen["logs"].append(0))
    monkeypatch.setattr(SchedulerMetrics, "fallback", lambda self: seen["fallbacks"].append(0))
    handler = logging.Handler(logging.WARNING)
    handler.emit = lambda record: seen["warnings"].append(record.getMessage())
    logger = logging.getLogger("vllm.niyama.vllm.engine_log")
    monkeypatch.setattr(logger, "level", logging.WARNING)  # whatever a test before has vLLM log
    monkeypatch.setattr(logger, "disabled", False)
    logger.manager._clear_cache()
    logger.addHandler(handler)
    yield seen
    logger.removeHandler(handler)


def outputs(model_dir: Path, **niyama: Any) -> list:
    return with_tokens(TRAFFIC, CARD, EngineSettings(model_dir, ASYNC, niyama))[1]


@pytest.fixture(scope="module")
def without_log(model_dir: Path) -> list:
    return outputs(model_dir)


def test_what_an_engine_logs_replays(model_dir: Path, tmp_path: Path, ends: dict[str, list]) -> None:
    path = tmp_path / "decisions.jsonl"
    outputs(model_dir, decision_log=str(path))
    found = replay(path)
    assert (found.divergence, found.cut_short) == (None, None) and found.chunks >= 40
    assert ends == {"logs": [], "fallbacks": [], "warnings": []}


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full here")
def test_a_full_disk_ends_the_log_and_nothing_else(model_dir: Path, without_log: list, ends: dict[str, list]) -> None:
    assert outputs(model_dir, decision_log="/dev/full") == without_log
    assert ends["logs"] == [0] and not ends["fallbacks"]
    (warning,) = ends["warnings"]
    assert "/dev/full cannot be written" in warning and "scheduling goes on" in warning


@pytest.mark.parametrize("method", ["write", "close", "__init__"])
def test_whatever_goes_wrong_in_the_log_stays_there(
    model_dir: Path,
    without_log: list,
    tmp_path: Path,
    method: str,
    ends: dict[str, list],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def failing(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(DecisionLog, method, failing)
    assert outputs(model_dir, decision_log=str(tmp_path / "log")) == without_log
    assert ends["logs"] == [0] and not ends["fallbacks"] and "No space left" in ends["warnings"][0]


def test_a_log_ends_at_its_limit_and_replays(
    model_dir: Path, tmp_path: Path, ends: dict[str, list], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, whole = tmp_path / "short.jsonl", tmp_path / "whole.jsonl"
    outputs(model_dir, decision_log=str(whole))
    written = vars(DecisionLog)["write"]

    def fat(self: DecisionLog, *args: Any) -> None:  # 100 steps count as a MiB
        written(self, *args)
        self.written_bytes += 1 << 14

    monkeypatch.setattr(DecisionLog, "write", fat)
    outputs(model_dir, decision_log=str(path), decision_log_max_mb=1)
    found = replay(path)
    assert (found.divergence, found.cut_short) == (None, None)
    assert 0 < found.steps < replay(whole).steps
    assert ends["logs"] == [0] and "decision_log_max_mb" in ends["warnings"][0]


def test_a_folder_that_is_not_there_is_refused_with_the_fix(tmp_path: Path) -> None:
    path = str(tmp_path / "none" / "log.jsonl")
    with pytest.raises(ConfigError, match=r"decision_log is '.*none.log\.jsonl' and there is no folder .*none'; make"):
        load_config({"niyama": {"decision_log": path}}, {})


def test_what_cannot_be_a_file_is_refused_with_the_fix(tmp_path: Path) -> None:
    """Under data parallelism the file's name has the rank, which the configuration does not know."""
    (tmp_path / "log.rank1.jsonl").mkdir()
    config = load_config({"niyama": {"decision_log": str(tmp_path / "log.jsonl")}}, {})
    parallel = SimpleNamespace(data_parallel_index=1, data_parallel_rank=1, data_parallel_size=2)
    with pytest.raises(ConfigError, match=r"decision_log is .* cannot be made \(Is a directory\); name a file"):
        EngineLog(config, parallel, None, config.build_policy(), config.build_card())


@pytest.mark.parametrize(
    ("rank", "size", "name"),
    [
        (0, 1, "log.jsonl"),
        (0, 2, "log.rank0.jsonl"),
        (3, 4, "log.rank3.jsonl"),
        (1, 1, "log.rank1.jsonl"),  # a model without experts: each engine core is told that it is alone
    ],
)
def test_every_engine_core_has_its_own_file(rank: int, size: int, name: str) -> None:
    parallel = SimpleNamespace(data_parallel_index=rank, data_parallel_rank=0, data_parallel_size=size)
    assert log_path("there/log.jsonl", parallel) == Path("there") / name
