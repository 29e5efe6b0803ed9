"""The plug-in inside vLLM's real engine core, scheduler and KV cache, on the emulated device in virtual time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("vllm.v1.engine.core", reason="vLLM is not installed")

from vllm.config import SchedulerConfig
from vllm.v1.core.sched.scheduler import Scheduler

from artifact.servers.model_files import model_folder
from niyama.decision_log import replay
from niyama.sim import Requests
from niyama.step import LOST
from niyama.vllm import engine
from niyama.vllm import planner as planner_module
from niyama.vllm.emulated.virtual import ASYNC_STOCK, EngineSettings, Traffic, run_virtual, virtual_core
from niyama.vllm.kv_groups import kv_sizes
from niyama.vllm.planner import Planner
from tests.helpers.emulated_runs import CARD, random_requests, small_kv, some_requests, tokens_of, with_tokens

pytestmark = pytest.mark.engine
ASYNC, SYNC = "niyama.vllm.NiyamaAsyncScheduler", "niyama.vllm.NiyamaScheduler"
ADAPTIVE = "long_prefill_token_threshold_adaptive"
BOTH = pytest.mark.parametrize("scheduler", [ASYNC, SYNC], ids=["async", "sync"])
# Deadlines that many of the requests below miss, so that relegation has work.
TIGHT = {
    "classes": [
        {"name": "Q1", "ttft_s": 0.4, "tbt_s": 0.03},
        {"name": "Q2", "ttlt_s": 1.0},
        {"name": "Q3", "ttlt_s": 4.0},
    ]
}


@pytest.fixture(scope="module")
def model_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder("llama3-8b", tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def by_vllm_alone(model_dir: Path) -> Callable[..., list[list[int]]]:
    """The token ids of every request with vLLM's own scheduler: one run per workload, however many compare with it.

    Called with the arguments of random_requests; `prompt` must be a function of them.
    """
    known: dict[tuple[Any, ...], list[list[int]]] = {}

    def tokens(*workload: Any, prompt: Callable[[int], list[int]] | None = None) -> list[list[int]]:
        key = (*workload, prompt is None)
        if key not in known:
            traffic = Traffic(random_requests(*workload), prompt=prompt)
            known[key] = with_tokens(traffic, CARD, EngineSettings(model_dir, ASYNC_STOCK))[1]
        return known[key]

    return tokens


@pytest.fixture
def planners(monkeypatch: pytest.MonkeyPatch) -> list[Planner]:
    """Every planner that is made, in order."""
    made, start = [], Planner.start.__func__

    def kept(cls: type, *args: Any) -> Planner:
        made.append(start(cls, *args))
        return made[-1]

    monkeypatch.setattr(Planner, "start", classmethod(kept))
    return made


def steps(core: Any) -> Iterator[list[Any]]:
    """The outputs of each step, until nothing is left to do."""
    while core.scheduler.has_requests() or core.batch_queue:
        results, executed = core.step_fn()
        core.post_step(executed)
        yield [o for result in (results or {}).values() for o in result.outputs]


def watch_schedule(core: Any) -> list[dict[str, int]]:
    """The tokens scheduled in each step to come, by request id."""
    seen, schedule = [], core.scheduler.schedule

    def watched(*args: Any, **kwargs: Any) -> Any:
        output = schedule(*args, **kwargs)
        if output.num_scheduled_tokens:
            seen.append(dict(output.num_scheduled_tokens))
        return output

    core.scheduler.schedule = watched
    return seen


def assert_all_free(core: Any, planner: Planner) -> None:
    """No KV block, row or request is left over, in vLLM or in the kernel."""
    manager = core.scheduler.kv_cache_manager
    assert manager.block_pool.get_num_free_blocks() == manager.block_pool.num_gpu_blocks - 1
    assert not core.scheduler.requests and not planner.mirror.lives and not planner.mirror.by_row
    planner.plan(core.scheduler, planner.clock._last_end_s + planner._start_s)  # takes in the last reports
    totals = planner.mirror.scheduler.state.totals
    assert (totals["running"], totals["queued"], totals["kv_held_tokens"]) == (0, 0, 0)
    assert planner.mirror.waiting == planner.mirror.running == [0, 0, 0]


def test_this_vllm_is_one_that_the_plug_in_knows() -> None:
    assert engine.contract() == []


@pytest.mark.parametrize(
    "name", ["_preempt_request", "_mamba_block_aligned_split", "update_from_output", "_handle_invalid_blocks"]
)
def test_the_contract_names_what_is_gone(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.delattr(Scheduler, name)
    assert any(name in line for line in engine.contract())


def test_the_contract_names_changed_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Scheduler, "_preempt_request", lambda self, victim: None)
    assert any("_preempt_request" in line and "victim" in line for line in engine.contract())


@BOTH
def test_a_passed_over_prompt_keeps_its_kv(model_dir: Path, scheduler: str, planners: list[Planner]) -> None:
    """A lax prompt, half done, is paused for an urgent one and goes on where it was; nothing is computed twice."""
    traffic = Traffic(some_requests([0.0, 0.0, 0.0], [800, 3000, 50], [4, 4, 40]))
    settings = EngineSettings(model_dir, scheduler, {"policy": {"name": "niyama", "max_chunk_tokens": 512}})
    with virtual_core(CARD, settings, traffic.requests.classes, 4096) as (core, _):
        seen = watch_schedule(core)
        core.add_request(*core.preprocess_add_request(traffic.request(2)))
        stepped = steps(core)
        next(stepped)
        core.add_request(*core.preprocess_add_request(traffic.request(1)))
        next(stepped), next(stepped)
        core.add_request(*core.preprocess_add_request(traffic.request(0)))
        list(stepped)
        assert_all_free(core, planners[0])
    lax = [step.get("1", 0) for step in seen]
    urgent = [step.get("0", 0) for step in seen]
    assert sum(urgent[: urgent.index(1)]) == 800 and sum(n for n in lax if n > 1) == 3000  # the last token decodes
    first = next(i for i, n in enumerate(urgent) if n)
    assert lax[first - 1] > 1 and lax[first] == 0, seen
    assert any(n > 1 for n in lax[first + 1 :])
    assert planners[0].mirror.scheduler.state.totals["preemptions"] == 0


@BOTH
def test_outputs_are_those_of_vllm_alone(model_dir: Path, scheduler: str, by_vllm_alone: Callable) -> None:
    traffic = Traffic(random_requests(60, 12.0))
    run, tokens = with_tokens(traffic, small_kv(200), EngineSettings(model_dir, scheduler, TIGHT))
    assert tokens == by_vllm_alone(60, 12.0)
    assert run.relegations.sum() > 0, "the workload was meant to overload"


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("caching", [False, True], ids=["plain", "prefix-caching"])
@BOTH
def test_nothing_is_lost_under_pressure_and_aborts(
    model_dir: Path,
    scheduler: str,
    caching: bool,
    seed: int,
    by_vllm_alone: Callable,
    planners: list[Planner],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Too little KV, which the kernel overrates by half, so that vLLM must preempt on its own; a fifth aborts."""
    overrated(monkeypatch, 1.5)
    random = np.random.default_rng(seed)
    requests = random_requests(40, 25.0, seed)
    shared = random.integers(0, 256, 400).tolist()

    def prompt(row: int) -> list[int]:
        own = np.random.default_rng(row).integers(0, 256, int(requests.prompt_tokens[row])).tolist()
        return (shared + own)[: len(own)] if row % 2 else own

    traffic, alone = Traffic(requests, prompt=prompt), by_vllm_alone(40, 25.0, seed, prompt=prompt)
    doomed = {row: int(random.integers(1, 40)) for row in range(0, 40, 5)}  # aborted that many steps after arrival
    settings = EngineSettings(model_dir, scheduler, TIGHT, enable_prefix_caching=caching)
    with virtual_core(small_kv(110), settings, requests.classes, 1600) as (core, clock):
        tokens, finished = serve_with_aborts(core, clock, traffic, doomed)
        assert core.scheduler.planner is planners[0], "the plug-in switched itself off"
        if not caching:
            assert_all_free(core, planners[0])
    for row, ids in enumerate(tokens):
        assert ids == alone[row] if row in finished else ids == alone[row][: len(ids)], row
    assert finished >= set(range(40)) - set(doomed)


def overrated(monkeypatch: pytest.MonkeyPatch, factor: float) -> None:
    """The kernel believes that there is `factor` times the KV that there is."""

    def sizes(scheduler: Any) -> dict[str, Any]:
        found = kv_sizes(scheduler)
        return {**found, "kv_tokens": int(factor * found["kv_tokens"])}

    monkeypatch.setattr(planner_module, "kv_sizes", sizes)


def serve_with_aborts(
    core: Any, clock: Any, traffic: Traffic, doomed: dict[int, int]
) -> tuple[list[list[int]], set[int]]:
    """Token ids by request and who finished; `doomed` requests are aborted some steps after they arrive."""
    arrivals, arrived, left = traffic.requests.arrival_s, 0, dict(doomed)
    tokens: list[list[int]] = [[] for _ in arrivals]
    finished: set[int] = set()
    while arrived < len(arrivals) or core.scheduler.has_requests() or core.batch_queue:
        if not core.scheduler.has_requests() and not core.batch_queue:
            clock.wait_until(float(arrivals[arrived]))
        while arrived < len(arrivals) and arrivals[arrived] <= clock.now_s:
            core.add_request(*core.preprocess_add_request(traffic.request(arrived)))
            arrived += 1
        for row in [row for row in left if row < arrived]:
            left[row] -= 1
            if left[row] == 0:
                core.abort_requests([str(row)])
                del left[row]
        results, executed = core.step_fn()
        core.post_step(executed)
        for output in (o for result in (results or {}).values() for o in result.outputs):
            tokens[int(output.request_id)].extend(output.new_token_ids)
            if output.finish_reason is not None:
                finished.add(int(output.request_id))
    return tokens, finished


def test_vllms_own_preemptions_are_reported(
    model_dir: Path, planners: list[Planner], monkeypatch: pytest.MonkeyPatch
) -> None:
    """That the test above does meet them."""
    overrated(monkeypatch, 2.0)
    settings = EngineSettings(model_dir, ASYNC, {"policy": {"name": "niyama", "kv_reserve": 0.0}})
    reported = []
    with virtual_core(small_kv(60), settings, random_requests(1, 1.0).classes, 800) as (core, clock):
        scheduler = planners[0].mirror.scheduler
        report = scheduler.report
        scheduler.report = lambda kind, row, value=0: (reported.append(kind), report(kind, row, value))
        traffic = Traffic(some_requests([0.0] * 4, [400] * 4, [200] * 4))
        tokens, finished = serve_with_aborts(core, clock, traffic, {})
        assert core.scheduler.planner is not None
        assert_all_free(core, planners[0])
    assert LOST in reported and len(finished) == 4 and [len(t) for t in tokens] == [200] * 4


@BOTH
def test_the_last_output_tells_class_and_relegation(model_dir: Path, scheduler: str) -> None:
    told: dict[str, Any] = {}

    def watch(output: Any) -> None:
        if output.finish_reason is not None:
            told[output.request_id] = output.kv_transfer_params["niyama"]

    requests = random_requests(45, 40.0)
    run = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, scheduler, TIGHT), watch=watch)
    assert [told[str(row)]["class"] for row in range(45)] == ["Q1", "Q2", "Q3"] * 15
    relegated = np.array([told[str(row)]["relegated"] for row in range(45)])
    assert np.array_equal(relegated, run.relegations > 0) and 0 < relegated.sum() < 45


@BOTH
def test_urgent_requests_come_first(model_dir: Path, scheduler: str) -> None:
    """Thirty batch prompts at once, and an interactive one: with vLLM alone it waits for all, with us for none."""
    n = 31
    requests = Requests(
        random_requests(1, 1.0).classes,
        np.array([2] * 30 + [0]),
        np.array([0.0] * 30 + [0.01]),
        np.full(n, 1500),
        np.full(n, 5),
        np.ones(n, bool),
    )
    ours = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, scheduler, max_num_batched_tokens=2756))
    alone = run_virtual(Traffic(requests), CARD, EngineSettings(model_dir, ASYNC_STOCK, max_num_batched_tokens=2756))
    assert tokens_of(ours, 30)[0] < 1.0 < 3.0 < tokens_of(alone, 30)[0]


@pytest.mark.parametrize("where", ["plan", "granted", "arrived", "gone", "step_ended", "tell"])
@BOTH
def test_an_error_of_ours_leaves_vllm_working(
    model_dir: Path, scheduler: str, where: str, by_vllm_alone: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Wherever it strikes: it is counted, and every request still gets its whole output."""
    method, calls = getattr(Planner, where), []

    def failing(*args: Any, **kwargs: Any) -> Any:
        calls.append(0)
        if len(calls) == 15:
            raise KeyError("made to fail")
        return method(*args, **kwargs)

    monkeypatch.setattr(Planner, where, failing)
    failed: list[Exception] = []
    monkeypatch.setattr(Planner, "failed", lambda self, error: failed.append(error))
    traffic = Traffic(random_requests(30, 20.0))
    _, tokens = with_tokens(traffic, small_kv(150), EngineSettings(model_dir, scheduler))
    assert [str(e) for e in failed] == ["'made to fail'"] and len(calls) == 15
    assert tokens == by_vllm_alone(30, 20.0)


FAULTY = """
from niyama import Policy
from niyama.rules import rank_rule
@rank_rule
def bad(job, alpha):
    return job.deadline_s / (job.prefill_left - job.prefill_left)
mine = Policy("mine", rank=bad)
"""


def test_a_rule_that_raises_hands_over_to_vllm_and_is_counted(
    model_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mine.py").write_text(FAULTY)
    failed: list[Exception] = []
    monkeypatch.setattr(Planner, "failed", lambda self, error: failed.append(error))
    traffic = Traffic(random_requests(10, 20.0))
    _, alone = with_tokens(traffic, CARD, EngineSettings(model_dir, ASYNC_STOCK))
    settings = EngineSettings(model_dir, SYNC, {"policy": f"{tmp_path}/mine.py:mine"})
    _, tokens = with_tokens(traffic, CARD, settings)
    assert [str(e)[:59] for e in failed] == ["policy 'mine': mine.py, line 6, rank 'bad': ZeroDivisionErr"]
    assert tokens == alone


def test_a_policy_that_plans_nothing_does_not_stall_the_engine(model_dir: Path, planners: list[Planner]) -> None:
    traffic = Traffic(random_requests(3, 20.0))
    with virtual_core(CARD, EngineSettings(model_dir, SYNC), traffic.requests.classes, 2048) as (core, _):
        mirror = planners[0].mirror
        plan = mirror.plan
        mirror.plan = lambda timing, running: plan(timing, running)._replace(waiting=[], caps={}, budget_tokens=0)
        own_step = mirror.scheduler.step
        mirror.scheduler.step = lambda timing: own_step(timing)._replace(rows=[], tokens=[])
        for row in range(3):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        outputs = [output for found in steps(core) for output in found]
        assert core.scheduler.planner is None
    assert sum(o.finish_reason is not None for o in outputs) == 3


def _config(**changes: Any) -> SimpleNamespace:
    model = SimpleNamespace(
        model="m", runner_type="generate", is_encoder_decoder=False, is_diffusion=False,
    )  # fmt: skip
    config = SimpleNamespace(
        model_config=model,
        parallel_config=SimpleNamespace(pipeline_parallel_size=1),
        scheduler_config=SimpleNamespace(enable_chunked_prefill=True),
        ec_transfer_config=None,
        is_mm_encoder_only=False,
    )
    for path, value in changes.items():
        *owners, name = path.split("__")
        owner = config
        for part in owners:
            owner = getattr(owner, part)
        setattr(owner, name, value)
    return config


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"model_config__runner_type": "pooling"}, "pooling"),
        ({"model_config__is_encoder_decoder": True}, "encoder-decoder"),
        ({"model_config__is_diffusion": True}, "diffusion"),
        ({"is_mm_encoder_only": True}, "encoder instance"),
        ({"ec_transfer_config": object()}, "encoder cache connector"),
        ({"parallel_config__pipeline_parallel_size": 2}, "pipeline"),
        ({"scheduler_config__enable_chunked_prefill": False}, "--enable-chunked-prefill"),
    ],
)
def test_what_cannot_be_planned_is_refused_with_a_reason(change: dict[str, Any], word: str) -> None:
    engine.refuse_unplannable(_config())
    with pytest.raises(engine.Unplannable, match=word):
        engine.refuse_unplannable(_config(**change))


@pytest.mark.parametrize(
    ("tokens", "seqs", "prompts"), [(256, 256, 900), (32, 32, 100), (2, 2, 40), (1, 1, 20), (3, 1, 40)]
)
@BOTH
def test_a_step_needs_no_room_for_decodes_that_are_not_there(
    model_dir: Path, scheduler: str, tokens: int, seqs: int, prompts: int, planners: list[Planner]
) -> None:
    """As small a budget as vLLM takes is served, and the first prompt has all of it."""
    requests = some_requests([0.0] * 8, [prompts] * 8, [12] * 8)
    settings = EngineSettings(model_dir, scheduler, max_num_batched_tokens=tokens, max_num_seqs=seqs)
    with virtual_core(CARD, settings, requests.classes, 2048) as (core, _):
        seen, traffic = watch_schedule(core), Traffic(requests)
        for row in range(8):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        made = [token for outputs in steps(core) for o in outputs for token in o.new_token_ids]
        assert core.scheduler.planner is planners[0] and len(made) == 8 * 12
        assert_all_free(core, planners[0])
    assert sum(seen[0].values()) == min(tokens, 8 * prompts)
    assert max(sum(step.values()) for step in seen) <= tokens


@BOTH
def test_the_long_prefill_threshold_is_a_cap(model_dir: Path, scheduler: str) -> None:
    requests = some_requests([0.0] * 4, [1500] * 4, [5] * 4)
    more = {"long_prefill_token_threshold": 400}
    settings = EngineSettings(model_dir, scheduler, max_num_batched_tokens=1024, max_num_seqs=16, more=more)
    with virtual_core(CARD, settings, requests.classes, 2048) as (core, _):
        seen, traffic = watch_schedule(core), Traffic(requests)
        for row in range(4):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        list(steps(core))
    assert max(n for step in seen for n in step.values()) == 400
    assert sorted(seen[0].values()) == [224, 400, 400]


@pytest.mark.skipif(not hasattr(SchedulerConfig, ADAPTIVE), reason="this vLLM's threshold has no exceptions")
@pytest.mark.parametrize(
    ("prompts", "more", "most"), [(1, {}, 1024), (2, {ADAPTIVE: True}, 512)], ids=["alone", "adaptive"]
)
def test_the_long_prefill_threshold_has_vllms_exceptions(
    model_dir: Path, tmp_path: Path, planners: list[Planner], prompts: int, more: dict[str, Any], most: int
) -> None:
    """A prompt that is alone starves nobody, and an adaptive threshold is at least a fair share of the step."""
    requests = some_requests([0.0] * prompts, [1500] * prompts, [5] * prompts)
    more = {"long_prefill_token_threshold": 100, **more}
    log = {"decision_log": str(tmp_path / "log.jsonl")}
    settings = EngineSettings(model_dir, SYNC, log, max_num_batched_tokens=1024, max_num_seqs=16, more=more)
    with virtual_core(CARD, settings, requests.classes, 2048) as (core, _):
        seen, traffic = watch_schedule(core), Traffic(requests)
        for row in range(prompts):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        list(steps(core))
        assert_all_free(core, planners[0])
    assert max(seen[0].values()) == most
    assert replay(tmp_path / "log.jsonl").divergence is None


def test_an_option_that_has_no_effect_is_said(model_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(planner_module.logger, "warning", lambda line, *values: said.append(line % values))
    with virtual_core(CARD, EngineSettings(model_dir, ASYNC, policy="priority"), random_requests(1, 1.0).classes, 128):
        pass
    assert any("--scheduling-policy priority has no effect" in line for line in said)


@BOTH
def test_prefills_that_vllm_holds_back_are_not_planned_until_prompts_pile_up(
    model_dir: Path, scheduler: str, planners: list[Planner]
) -> None:
    """As data-parallel engines take turns: a throttled step has decodes only, unless the one before left prompts."""
    requests = some_requests([0.0] * 12, [600] * 12, [60] * 12)
    settings = EngineSettings(model_dir, scheduler, max_num_batched_tokens=1024, max_num_seqs=4)
    with virtual_core(CARD, settings, requests.classes, 2048) as (core, _):
        core._should_throttle_prefills = lambda: True
        seen, traffic = watch_schedule(core), Traffic(requests)
        for row in range(2):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        stepped = steps(core)
        for _ in range(6):
            next(stepped)
        assert not core.scheduler.prefill_capacity_bound
        core.add_request(*core.preprocess_add_request(traffic.request(2)))
        before = len(seen)
        for _ in range(6):
            next(stepped)
        assert {n for step in seen[before:] for n in step.values()} == {1}, "only decodes"
        core._should_throttle_prefills = lambda: False
        for row in range(3, 12):
            core.add_request(*core.preprocess_add_request(traffic.request(row)))
        for _ in range(4):
            next(stepped)
        assert core.scheduler.prefill_capacity_bound, "four slots and twelve requests"
        core._should_throttle_prefills = lambda: True
        list(stepped)
        assert core.scheduler.planner is planners[0]
        assert_all_free(core, planners[0])


def test_deadlines_leave_time_for_delivery(model_dir: Path, planners: list[Planner]) -> None:
    """The kernel's deadlines are earlier by it, the metrics' are the client's."""
    settings = EngineSettings(model_dir, ASYNC, {"delivery_s": 0.25})
    with virtual_core(CARD, settings, random_requests(1, 1.0).classes, 2048) as (core, _):
        core.add_request(*core.preprocess_add_request(Traffic(random_requests(1, 1.0)).request(0)))
        (live,) = planners[0].mirror.lives.values()
        table = planners[0].mirror.scheduler.table
        assert table.deadline_s[live.row] == pytest.approx(live.arrival_s + 6.0 - 0.25)
        assert planners[0]._endings.times.due_s[live.row] == pytest.approx(live.arrival_s + 6.0)
        list(steps(core))
