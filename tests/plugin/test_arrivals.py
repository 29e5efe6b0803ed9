"""No step of a wall clock, here or on an API server, makes requests late; time spent in the API server counts."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.v1.engine.core import EngineCore

from artifact.servers.model_files import model_folder
from niyama.vllm.arrivals import LONE_S, MAX_AGE_S, SEVERAL, WINDOW_S, ArrivalClock
from niyama.vllm.emulated.virtual import EngineSettings, Traffic, run_virtual
from tests.helpers.emulated_runs import CARD, some_requests

START, WALL = 5_000.0, 1_800_000_000.0  # of the two clocks, when the engine starts


def ages(stamps_at: list[tuple[float, float, float]], client: int = 0) -> list[float]:
    """Ages on arrival of requests: (seconds since the start, engine's wall clock off by, API server's off by)."""
    clock = ArrivalClock(START, WALL)
    return [
        now_s - clock.arrival_s(WALL + now_s + theirs_s, client, START + now_s, WALL + now_s + ours_s)
        for now_s, ours_s, theirs_s in stamps_at
    ]


@pytest.mark.parametrize("step_s", [-3600.0, -20.0, -2.0, 2.0, 20.0, 3600.0])
def test_a_step_of_the_hosts_clock_makes_nobody_late(step_s: float) -> None:
    moments = [(float(s), step_s if s >= 3 else 0.0, step_s if s >= 3 else 0.0) for s in range(10)]
    assert ages(moments) == pytest.approx(np.zeros(10), abs=1e-6)
    back = [(float(s), step_s * (3 <= s < 6), step_s * (3 <= s < 6)) for s in range(10)]
    assert ages(back) == pytest.approx(np.zeros(10), abs=1e-6)


@pytest.mark.parametrize("behind_s", [-3600.0, -59.0, -20.0, -2.0, 2.0, 3600.0])
def test_another_hosts_clock_makes_nobody_late(behind_s: float) -> None:
    seen = ages([(float(s), 0.0, behind_s) for s in range(10)])
    unsure = SEVERAL - 1 if -LONE_S <= behind_s < 0.0 else 0  # they may have been that long in the API server
    assert seen == pytest.approx([-behind_s] * unsure + [0.0] * (10 - unsure), abs=1e-6)


@pytest.mark.parametrize("first_s", [0.0, 500.0], ids=["at the start", "after a silence"])
def test_a_long_prompt_that_comes_alone_arrived_when_it_did(first_s: float) -> None:
    """Its tokens took 1.5 s to make; its own age is not taken for the clock's."""
    moments = [(float(s), 0.0, 0.0) for s in range(20)] if first_s else []
    lone = [(first_s + 200.0 * n, 0.0, -1.5) for n in range(1, 9)]
    assert ages([*moments, *lone])[-8:] == pytest.approx([1.5] * 8)


@pytest.mark.parametrize("step_s", [2.0, 20.0, 59.0])
def test_requests_in_transit_while_the_clock_leaps_are_not_late(step_s: float) -> None:
    clock, wall_s = ArrivalClock(START, WALL), WALL + step_s
    for s in range(20):
        assert clock.arrival_s(WALL + s, 0, START + s, WALL + s) == pytest.approx(s)
    for n in range(5):  # stamped before 20 s, here after it
        now_s = 20.5 + 0.1 * n
        assert clock.arrival_s(WALL + 19.9 + 0.01 * n, 0, START + now_s, wall_s + now_s) == pytest.approx(now_s)
    assert clock.arrival_s(wall_s + 21.0, 0, START + 22.0, wall_s + 22.0) == pytest.approx(21.0)


@pytest.mark.parametrize("step_s", [2.0, 20.0, 59.0])
def test_a_step_of_the_engines_clock_alone_makes_nobody_late(step_s: float) -> None:
    """The API server is on another host: its stamps look older from one request to the next."""
    seen = ages([(float(s), step_s if s >= 30 else 0.0, 0.0) for s in range(100)])
    assert max(seen) <= LONE_S and seen[-40:] == pytest.approx([0.0] * 40, abs=1e-6)


@pytest.mark.parametrize("step_s", [-3600.0, -20.0, -2.0])
def test_a_step_of_another_hosts_clock_is_forgotten(step_s: float) -> None:
    moments = [(float(s), 0.0, step_s if s >= 3 else 0.0) for s in range(0, 1000, 10)]
    seen = np.array(ages(moments))
    assert np.all(seen[[10.0 * n > 2 * (WINDOW_S + 10) for n in range(100)]] == pytest.approx(0.0, abs=1e-6))
    assert np.all(seen <= MAX_AGE_S)


def test_time_in_the_api_server_counts() -> None:
    """A burst that the API server takes four seconds to hand on; clients are told apart."""
    clock = ArrivalClock(START, WALL)
    assert clock.arrival_s(WALL, 1, START + 10.0, WALL + 10.0) == 10.0  # of another API server, behind by 10 s
    for waited_s in np.linspace(0.0, 4.0, 9).tolist():
        now_s = 10.0 + waited_s
        assert clock.arrival_s(WALL + 10.0, 0, START + now_s, WALL + now_s) == pytest.approx(10.0)


def test_a_clock_that_slows_the_stamps_down_is_not_believed_beyond_the_bound() -> None:
    assert ages([(0.0, 0.0, 0.0), (1.0, 0.0, -MAX_AGE_S - 1.0)]) == pytest.approx([0.0, 0.0])
    assert ages([(0.0, 0.0, 0.0), (1.0, 0.0, -MAX_AGE_S + 1.0)]) == pytest.approx([0.0, MAX_AGE_S - 1.0])


@pytest.mark.engine
@pytest.mark.parametrize("behind_s", [3600.0, 30.0, -3600.0])
def test_an_engine_whose_clients_clock_is_off_relegates_nobody(
    behind_s: float, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    preprocess = EngineCore.preprocess_add_request

    def stamped(self: EngineCore, request: object) -> object:
        request.arrival_time -= behind_s
        return preprocess(self, request)

    monkeypatch.setattr(EngineCore, "preprocess_add_request", stamped)
    requests = some_requests([float(s) for s in range(8)], [300] * 8, [5] * 8)
    folder = model_folder("llama3-8b", tmp_path_factory.mktemp("models"))
    run = run_virtual(Traffic(requests), CARD, EngineSettings(folder, "niyama.vllm.NiyamaAsyncScheduler"))
    assert run.relegations.sum() == 0
