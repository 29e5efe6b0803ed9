"""Virtual time: what the model says is what passes, to the digit; asynchronous scheduling overlaps as in real time."""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

import vllm.v1.core.sched.scheduler as vllm_scheduler
from vllm.v1.core.sched.async_scheduler import AsyncScheduler
from vllm.v1.core.sched.output import SchedulerOutput

from artifact.servers.model_files import model_folder
from niyama.sim import LOG_COLUMNS
from niyama.vllm.emulated.device_time import VirtualClock, virtual_clock, virtual_time
from niyama.vllm.emulated.virtual import ASYNC_STOCK, SYNC_STOCK, EngineSettings, Traffic, run_virtual, virtual_core
from tests.helpers.emulated_runs import CARD, random_requests, small_kv, some_requests, step_s, tokens_of, with_tokens

pytestmark = pytest.mark.engine

BOTH = pytest.mark.parametrize("scheduler", [ASYNC_STOCK, SYNC_STOCK], ids=["async", "sync"])
EXACT = {"rel": 0.0, "abs": 1e-12}
START, DURATION = 1 + LOG_COLUMNS.index("start_s"), 1 + LOG_COLUMNS.index("duration_s")
DECODES, PREFILL = 1 + LOG_COLUMNS.index("decodes"), 1 + LOG_COLUMNS.index("prefill_tokens")


class Idler(AsyncScheduler):
    """Never schedules anything."""

    def schedule(self, *args, **kwargs):
        return SchedulerOutput.make_empty()


class Relegator(AsyncScheduler):
    """Says of every other request that it was relegated."""

    def update_from_output(self, *args, **kwargs):
        results = super().update_from_output(*args, **kwargs)
        for output in (o for result in results.values() for o in result.outputs if o.finish_reason is not None):
            output.kv_transfer_params = {"niyama": {"class": "Q1", "relegated": int(output.request_id) % 2 == 1}}
        return results


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@BOTH
def test_one_request_takes_the_modelled_time(model_dir: Path, scheduler: str) -> None:
    requests = some_requests([2.0], [1000], [4])
    run = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, scheduler))
    chunks = step_s([], (0, 512)) + step_s([], (512, 488))
    expected = 2.0 + np.cumsum([chunks, step_s([1000]), step_s([1001]), step_s([1002])])
    assert tokens_of(run, 0) == pytest.approx(expected, **EXACT)
    assert run.first_scheduled_s[0] == 2.0
    assert run.iterations == 5


@BOTH
def test_a_busy_device_never_pauses_and_makes_every_token(model_dir: Path, scheduler: str) -> None:
    requests = random_requests(60, load_qps=1000)  # all there before the first step is over
    run = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, scheduler), log=True)
    start_s, duration_s = run.log[:, START], run.log[:, DURATION]
    assert start_s[1:] == pytest.approx(start_s[:-1] + duration_s[:-1], **EXACT)
    assert run.token_s.max() == pytest.approx(start_s[0] + duration_s.sum(), rel=1e-12)
    assert run.log[:, PREFILL].sum() == requests.prompt_tokens.sum()
    assert run.log[:, DECODES].sum() == (requests.output_tokens - 1).sum()
    assert np.all(run.first_scheduled_s >= requests.arrival_s)
    for row in range(len(requests)):
        assert np.all(np.diff(tokens_of(run, row)) > 0)


def test_an_arrival_waits_one_step_more_when_the_next_is_scheduled_already(model_dir: Path) -> None:
    first_s = step_s([], (0, 100))
    requests = some_requests([0.0, first_s / 2], [100, 50], [20, 2])
    sync = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, SYNC_STOCK))
    ahead = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, ASYNC_STOCK))
    assert sync.first_scheduled_s[1] == pytest.approx(first_s, **EXACT)
    assert ahead.first_scheduled_s[1] == pytest.approx(first_s + step_s([100]), **EXACT)


def test_a_cached_prefix_is_not_computed_again(model_dir: Path) -> None:
    requests, prompt = some_requests([0.0, 1.0], [320, 320], [2, 2]), list(range(320))
    for caching, chunk in ((True, (304, 16)), (False, (0, 320))):  # the last block is never a hit
        engine = EngineSettings(model_dir, enable_prefix_caching=caching)
        run = run_virtual(Traffic(requests, prompt=lambda row: prompt), CARD, engine)
        assert tokens_of(run, 1)[0] == pytest.approx(1.0 + step_s([], chunk), **EXACT)


def test_preempted_requests_go_on_with_the_same_tokens(model_dir: Path) -> None:
    requests = some_requests([0.0] * 8, [60] * 8, [90] * 8)
    plenty, expected = with_tokens(Traffic(requests), CARD, EngineSettings(model_dir))
    for scheduler in (ASYNC_STOCK, SYNC_STOCK):
        scarce, tokens = with_tokens(Traffic(requests), small_kv(36), EngineSettings(model_dir, scheduler))
        assert scarce.preemptions.sum() > 0 == plenty.preemptions.sum()
        assert tokens == expected
        assert scarce.token_s.max() > plenty.token_s.max()
    assert len({tuple(t) for t in expected}) == 8  # other prompts, other answers


def test_noise_is_a_function_of_its_seed(model_dir: Path) -> None:
    requests, engine = random_requests(10, load_qps=5), EngineSettings(model_dir)
    runs = [run_virtual(Traffic(requests), CARD, engine, noise=0.2, seed=seed) for seed in (1, 1, 2)]
    assert np.array_equal(runs[0].token_s, runs[1].token_s)
    assert not np.array_equal(runs[0].token_s, runs[2].token_s)


def test_priority_and_the_scheduler_word_on_relegation_arrive(model_dir: Path) -> None:
    requests = some_requests([0.0] * 6, [600] * 6, [3] * 6)
    engine = EngineSettings(model_dir, f"{__name__}.Relegator", policy="priority", max_num_seqs=1)
    run = run_virtual(Traffic(requests, priority=[5, 4, 3, 2, 1, 0]), CARD, engine)
    assert np.argsort(run.first_scheduled_s).tolist() == [5, 4, 3, 2, 1, 0]
    assert run.still_relegated.tolist() == [False, True] * 3


def test_aborted_requests_give_back_their_kv(model_dir: Path) -> None:
    requests = some_requests([0.0] * 6, [700] * 6, [30] * 6)
    traffic, counts = Traffic(requests), dict.fromkeys(map(str, range(6)), 0)
    with virtual_core(CARD, EngineSettings(model_dir), requests.classes, 1000) as (core, clock):
        pool = core.scheduler.kv_cache_manager.block_pool
        free = pool.get_num_free_blocks()
        assert free == CARD.kv_tokens // 16
        for row in range(6):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        steps = 0
        while core.scheduler.has_requests() or core.batch_queue:
            results, executed = core.step_fn()
            core.post_step(executed)
            for output in results[0].outputs if results else ():
                counts[output.request_id] += len(output.new_token_ids)
            steps += 1
            if steps == 6:  # mid-prefill, waiting, and with a step in flight
                core.abort_requests(["0", "3", "5"])
        assert (counts["1"], counts["2"], counts["4"]) == (30, 30, 30)
        assert max(counts["0"], counts["3"], counts["5"]) < 30
        assert pool.get_num_free_blocks() == free
        assert len(core.model_executor.device) == 0
        assert clock.now() > 0


def test_a_scheduler_that_stalls_is_an_error_and_real_time_comes_back(model_dir: Path) -> None:
    with pytest.raises(RuntimeError, match=r"plans nothing at 0\.5 s and 2 requests wait"):
        run_virtual(
            Traffic(some_requests([0.0, 0.5], [10] * 2, [2] * 2)), CARD, EngineSettings(model_dir, f"{__name__}.Idler")
        )
    assert vllm_scheduler.time is time
    with pytest.raises(RuntimeError, match="no virtual clock runs here"):
        virtual_clock()


def test_requests_that_do_not_fit_are_named(model_dir: Path) -> None:
    with pytest.raises(ValueError, match="request 1: prompt_tokens \\+ output_tokens is 200"):
        run_virtual(Traffic(some_requests([0.0, 0.0], [5, 195], [5, 5])), small_kv(8), EngineSettings(model_dir))
    with pytest.raises(ValueError, match="priority has 1 rows and there are 2 requests"):
        Traffic(some_requests([0.0, 0.0], [5, 5], [5, 5]), priority=[1])


def test_a_virtual_clock_stands_in_for_the_time_module() -> None:
    with virtual_time() as in_force:
        assert vllm_scheduler.time is in_force.clock is virtual_clock()
        vllm_scheduler.time.sleep(1.5)
        in_force.clock.wait_until(1.0)
        assert in_force.clock.time() == in_force.clock.monotonic() == in_force.clock.perf_counter() == 1.5
        assert vllm_scheduler.time.monotonic_ns() == 1_500_000_000
        assert vllm_scheduler.time.strftime is time.strftime
        with pytest.raises(RuntimeError, match="in force already"), virtual_time():
            pass
    assert vllm_scheduler.time is time
    assert VirtualClock().now() == 0.0
