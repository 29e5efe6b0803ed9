"""An engine core in virtual time that a test drives by hand: requests of every kind, steps, pauses, resets, aborts."""

from __future__ import annotations

import inspect
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
from vllm import SamplingParams
from vllm.v1.core.sched.scheduler import Scheduler
from vllm.v1.engine import EngineCoreRequest
from vllm.v1.request import RequestStatus

from niyama.latency import ModelCard
from niyama.queues import NONE
from niyama.requests import DECODING, LOADING
from niyama.vllm.emulated.made_up_tokens import fingerprint, token_at
from niyama.vllm.emulated.virtual import EngineSettings, virtual_core
from niyama.vllm.qos import CLASS
from tests.helpers.emulated_runs import CARD, random_requests

MODEL_LEN = 8192
CLASSES = ("Q1", "Q2", "Q3")
DRAFTS = {"speculative_config": {"method": "ngram", "num_speculative_tokens": 3, "prompt_lookup_max": 3}}
# vLLM 0.26 itself drops several steps' tokens of a speculating request whose KV is dropped with a step in flight.
DROPS_TOO_MUCH = "drop_stale_output" not in inspect.signature(Scheduler._preempt_request).parameters


class Driven:
    """One engine core; `tokens`, `finished` (vLLM's reason) and `expected`, vLLM's own tokens, by request id."""

    def __init__(self, core: Any, clock: Any) -> None:
        self.core, self.clock, self.scheduler = core, clock, core.scheduler
        self.tokens: dict[str, list[int]] = {}
        self.finished: dict[str, str] = {}
        self.expected: dict[str, list[int]] = {}
        self.aborted: set[str] = set()
        self.streams: set[str] = set()  # streaming inputs, which end once for each piece
        self.steps = 0
        self._watch_counts()

    def _watch_counts(self) -> None:
        """Whenever the kernel has taken in what happened, it counts each request's tokens as vLLM does."""
        planner = getattr(self.scheduler, "planner", None)
        if planner is None:
            return
        ours = planner.mirror.scheduler
        step = ours.step

        def counted(timing: Any) -> Any:
            plan = step(timing)
            flying = Counter(row for rows in planner._producing for row in rows.tolist())
            for live in dict.values(planner.mirror.by_row):  # a test may count who else goes through all
                seen, row = live.request.num_output_tokens, live.row
                assert ours.table.emitted_tokens[row] == seen + flying[row], live.request.request_id
                loads = live.request.request_id in planner.mirror.loads.loading
                assert loads == (ours.table.state[row] == LOADING), live.request.request_id
                if loads:
                    assert ours.table.kv_blocks[row] > 0 and ours.table.queue[row] == NONE
                if ours.table.state[row] == DECODING:
                    assert ours.table.computed_tokens[row] == live.request.num_tokens - 1 + flying[row]
            return plan

        ours.step = counted

    def add(
        self,
        name: str,
        prompt: int | list[int],
        outputs: int,
        *,
        before_it_is_added: Callable[[Any], None] = lambda request: None,
        **params: Any,
    ) -> None:
        """A request of class Q1, Q2 or Q3 by its name; prompt: its tokens, or how many made-up ones."""
        request = self.request(name, prompt, outputs, **params)
        self.tokens[name] = []
        if params.get("resumable"):
            self.streams.add(name)
        else:
            self.expected[name] = self._expected(request)
        made, wave = self.core.preprocess_add_request(request)
        before_it_is_added(made)
        self.core.add_request(made, wave)

    def add_piece(self, name: str, prompt: int, outputs: int, *, last: bool = False) -> None:
        """A further piece of a streaming input; the last one only says so."""
        request = self.request(name, prompt, outputs, resumable=not last)
        self.core.add_request(*self.core.preprocess_add_request(request))

    def _expected(self, request: EngineCoreRequest) -> list[int]:
        """The tokens that the emulated model makes up for this prompt, up to the first that stops it."""
        params, tokens = request.sampling_params, []
        key = fingerprint(request.prompt_token_ids, params.seed)
        for position in range(params.max_tokens):
            tokens.append(token_at(self.core.model_executor.device._alphabet, key, position))
            if tokens[-1] in (params.stop_token_ids or ()):
                break
        return tokens

    def request(self, name: str, prompt: int | list[int], outputs: int, **params: Any) -> EngineCoreRequest:
        """What `add` sends."""
        seed = sum(map(ord, name))
        ids = np.random.default_rng(seed).integers(0, 256, prompt).tolist() if isinstance(prompt, int) else prompt
        extra = {CLASS: CLASSES[seed % 3]}
        settings = {"temperature": 0.0, "ignore_eos": True, "detokenize": False, "extra_args": extra, **params}
        resumable, lora_request = settings.pop("resumable", False), settings.pop("lora_request", None)
        mm_features = settings.pop("mm_features", None)
        return EngineCoreRequest(
            request_id=name,
            prompt_token_ids=ids,
            mm_features=mm_features,
            sampling_params=SamplingParams(max_tokens=outputs, **settings),
            pooling_params=None,
            arrival_time=self.clock.now_s,
            lora_request=lora_request,
            cache_salt=None,
            data_parallel_rank=None,
            resumable=resumable,
        )

    def step(self) -> None:
        """One step of the engine's loop; as there, nothing when there is nothing to do."""
        if not self.busy:
            return
        self.steps += 1
        results, executed = self.core.step_fn()
        self.core.post_step(executed)
        for output in (o for result in (results or {}).values() for o in result.outputs):
            self.tokens[output.request_id].extend(output.new_token_ids)
            if output.finish_reason is not None:
                assert output.request_id in self.streams or output.request_id not in self.finished, (
                    f"{output.request_id} ended twice"
                )
                self.finished[output.request_id] = str(output.finish_reason)

    @property
    def busy(self) -> bool:
        """Whether the engine's loop would make a step."""
        return bool(self.scheduler.has_requests() or self.core.batch_queue)

    def abort(self, *names: str) -> None:
        """The clients have gone."""
        self.aborted.update(set(names) - set(self.finished))
        self.core.abort_requests(list(names))

    def reset(self) -> None:
        """Drop all KV, of running requests too."""
        assert self.core.reset_prefix_cache(reset_running_requests=True)

    def drain(self, most: int = 20_000) -> None:
        """Step until nothing is left to do."""
        left = most
        while self.busy:
            self.step()
            left -= 1
            assert left, f"after {most} steps there are still {sorted(self.scheduler.requests)[:9]}"

    def check(self) -> None:
        """No request stands in two places, and each in the place that its status asks for."""
        scheduler = self.scheduler
        running = [r.request_id for r in scheduler.running]
        queues = [getattr(scheduler, n, ()) for n in ("waiting", "skipped_waiting", "kv_holding_waiting")]
        waiting = [r.request_id for queue in queues for r in queue]
        everywhere = sorted(running + waiting)
        assert everywhere == sorted(set(everywhere)), "a request stands in two places"
        assert all(r.status.name == "RUNNING" for r in scheduler.running)
        assert set(everywhere) == {r.request_id for r in scheduler.requests.values() if not r.is_finished()}

    def check_outputs(self) -> None:
        """Every request got the tokens that vLLM alone gives it; those of aborted ones may break off."""
        for name, expected in self.expected.items():
            got = self.tokens[name]
            if name in self.finished and name not in self.aborted:
                assert got == expected, name
            else:
                assert name in self.aborted and got == expected[: len(got)], name

    def check_idle(self) -> None:
        """Nothing is left over in vLLM, nor in the kernel while it is there."""
        scheduler = self.scheduler
        assert not self.busy and not scheduler.requests and not scheduler.running
        blocks = scheduler.kv_cache_manager.block_pool
        assert blocks.get_num_free_blocks() == blocks.num_gpu_blocks - 1
        planner = getattr(scheduler, "planner", None)
        if planner is not None:
            mirror = planner.mirror
            assert not mirror.lives and not mirror.by_row and not mirror._started and not mirror._decoding
            planner.plan(scheduler, planner.clock._last_end_s + planner._start_s)  # takes in the last reports
            totals = mirror.scheduler.state.totals
            assert (totals["running"], totals["queued"], totals["kv_held_tokens"]) == (0, 0, 0)
            assert totals["kv_free_blocks"] == totals["kv_total_blocks"]
            assert totals["prefilling"] == totals["loading"] == totals["kv_taken_blocks"] == 0
            assert not mirror.loads.loading and not mirror.loads.loaded() and not planner.connector.remembered()
            assert mirror.waiting == mirror.running == [0, 0, 0]


def is_compiling(request: Any) -> None:
    """Make a request that is not added yet one whose grammar is being compiled."""
    request.status = RequestStatus.WAITING_FOR_STRUCTURED_OUTPUT_GRAMMAR
    request.structured_output_request = SimpleNamespace(grammar=None)


@contextmanager
def driven(
    model_dir: Path,
    scheduler: str,
    *,
    kv_blocks: int = 0,
    max_model_len: int = MODEL_LEN,
    niyama: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Iterator[Driven]:
    """An engine with KV for that many blocks of 16 tokens (0: the card's)."""
    card: ModelCard = replace(CARD, kv_tokens=16 * kv_blocks) if kv_blocks else CARD
    engine = EngineSettings(model_dir, scheduler, niyama or {}, **settings)
    with virtual_core(card, engine, random_requests(1, 1.0).classes, max_model_len) as (core, clock):
        yield Driven(core, clock)
