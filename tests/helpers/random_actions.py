"""Random actions on an engine, as clients and operators take them; the same seed gives the same ones."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from vllm.v1.core.sched.interface import PauseState
from vllm.v1.request import RequestStatus

from tests.helpers.stepped_engine import Driven, is_compiling

MOST_LIVE = 40
MOST_COMPILING = 60
PATIENCE = 6000  # steps after which a request that has not ended is taken to wait for ever


class Actions:
    """Takes one action and one step at a time; `end` lets everything end and looks at what is left."""

    def __init__(self, engine: Driven, seed: int, names: str = "r") -> None:
        self.engine, self._names, self._added = engine, names, 0
        self._random = np.random.default_rng(seed)
        self._shared = self._random.integers(0, 256, 2000).tolist()
        self._live: dict[str, int] = {}  # step of arrival by id
        self._compiling: dict[str, int] = {}  # steps to go by id
        self._streams: dict[str, int] = {}  # pieces to come by id
        self._paused = 0  # steps left to the resumption
        self.longest = 0  # steps that a request was there
        self.counts: dict[str, int] = {}
        self._kinds: tuple[tuple[Callable[[], None], float], ...] = (
            (self.add, 0.30),
            (self.add_siblings, 0.04),
            (self.add_compiling, 0.03),
            (self.add_stream, 0.004),
            (self.abort, 0.06),
            (self.abort_many, 0.01),
            (self.reset, 0.02),
            (self.reset_cache, 0.02),
            (self.pause_keep, 0.012),
            (self.pause_wait, 0.006),
            (self.pause_until_drained, 0.004),
            (self.pause_abort, 0.004),
            (self.sleep, 0.006),
            (self.let_time_pass, 0.02),
        )

    def act(self) -> None:
        """Perhaps an action, then a step."""
        draw = float(self._random.random())
        for kind, share in self._kinds:
            draw -= share
            if draw < 0.0:
                self.counts[kind.__name__] = self.counts.get(kind.__name__, 0) + 1
                kind()
                break
        self._compile(1)
        self._stream()
        if self._paused:
            self._paused -= 1
            if not self._paused:
                self.engine.core.resume_scheduler()
        self.engine.step()
        self.engine.check()
        self._look_at_ends()

    def end(self) -> None:
        """Resume, and wait for all."""
        self._paused = 0
        self._compile(MOST_COMPILING)
        self._streams = dict.fromkeys(self._streams, 0)
        self._stream()
        self.engine.core.resume_scheduler()
        self.engine.drain(PATIENCE)
        self._look_at_ends()
        self.engine.check_outputs()
        self.engine.check_idle()

    def summary(self) -> str:
        """What has been done, in a line."""
        engine = self.engine
        done = ", ".join(f"{n} {kind}" for kind, n in sorted(self.counts.items()))
        return (
            f"{len(engine.tokens)} requests, {len(engine.aborted)} aborted, {engine.clock.now_s:.0f} s; "
            f"longest {self.longest} steps; {done}"
        )

    def _look_at_ends(self) -> None:
        steps, finished, aborted = self.engine.steps, self.engine.finished, self.engine.aborted
        for name in [n for n in self._live if n in finished or n in aborted]:
            self.longest = max(self.longest, steps - self._live.pop(name))
        for name, since in self._live.items():
            assert steps - since < PATIENCE, f"{name} waits for ever"

    def _live_ids(self, n: int) -> list[str]:
        return self._random.permutation(sorted(self._live))[:n].tolist()

    def add(self) -> None:
        """A request: any length, some with a shared prefix, some that stop at a token."""
        if len(self._live) >= MOST_LIVE:
            return
        draw, name = self._random, f"{self._names}-{self._added}"
        self._added += 1
        length = int(draw.choice([1, 15, 16, 17, int(draw.integers(1, 400)), int(draw.integers(400, 2500))]))
        prompt = draw.integers(0, 256, length).tolist()
        if draw.random() < 0.4:
            prompt = (self._shared[: int(draw.integers(1, 2000))] + prompt)[: max(1, length)]
        params = {}
        if draw.random() < 0.3:
            alphabet = self.engine.core.model_executor.device._alphabet
            params["stop_token_ids"] = [int(alphabet[int(draw.integers(len(alphabet)))])]
        self._live[name] = self.engine.steps
        self.engine.add(name, prompt, int(draw.choice([1, 2, int(draw.integers(1, 60))])), **params)

    def add_siblings(self) -> None:
        """What a client's n > 1 becomes: the same prompt with other seeds."""
        draw = self._random
        prompt, outputs = draw.integers(0, 256, int(draw.integers(1, 900))).tolist(), int(draw.integers(1, 20))
        for seed in range(int(draw.integers(2, 5))):
            name = f"{self._names}-{self._added}"
            self._added += 1
            self._live[name] = self.engine.steps
            self.engine.add(name, prompt, outputs, seed=seed)

    def add_compiling(self) -> None:
        """A request whose grammar takes its time, and constrains nothing."""
        name = f"{self._names}-{self._added}"
        self._added += 1
        self._live[name] = self.engine.steps
        self._compiling[name] = int(self._random.integers(1, MOST_COMPILING))
        self.engine.add(name, int(self._random.integers(1, 900)), 3, before_it_is_added=is_compiling)

    def _compile(self, steps: int) -> None:
        for name in [*self._compiling]:
            self._compiling[name] -= steps
            request = self.engine.scheduler.requests.get(name)
            if request is None or self._compiling[name] <= 0:
                del self._compiling[name]
            if request is not None and name not in self._compiling:
                request.status, request.structured_output_request = RequestStatus.WAITING, None

    def add_stream(self) -> None:
        """Streaming input, of which `_stream` sends three more pieces."""
        name = f"{self._names}-stream-{self._added}"
        self._added += 1
        self._streams[name] = 3
        self.engine.add(name, int(self._random.integers(1, 600)), 3, resumable=True)

    def _stream(self) -> None:
        for name in [*self._streams]:
            if name not in self.engine.scheduler.requests:
                del self._streams[name]
            elif not self._streams[name] or self._random.random() < 0.1:
                self.engine.add_piece(name, 40, 3, last=not self._streams[name])
                self._streams[name] -= 1
                if self._streams[name] < 0:
                    del self._streams[name]

    def _may_reset(self) -> bool:
        """vLLM refuses while a streaming input waits for its next piece, and keeps its KV."""
        return not any(name in self.engine.scheduler.requests for name in self.engine.streams)

    def abort(self) -> None:
        """A client goes."""
        self.engine.abort(*self._live_ids(1))

    def abort_many(self) -> None:
        """Several go at once."""
        self.engine.abort(*self._live_ids(8))

    def reset(self) -> None:
        """New weights: all KV goes, of running requests too."""
        if self._may_reset():
            self.engine.reset()

    def reset_cache(self) -> None:
        """The prefix cache alone, where nobody runs."""
        self.engine.core.reset_prefix_cache()

    def pause_keep(self) -> None:
        """Nothing is scheduled for a while; all KV goes."""
        if not self._paused:
            self.engine.core.pause_scheduler("keep", clear_cache=self._may_reset())
            self._paused = int(self._random.integers(1, 6))

    def pause_wait(self) -> None:
        """Nobody is admitted for a while; those that run go on."""
        if not self._paused:
            self.engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)
            self._paused = int(self._random.integers(1, 12))

    def pause_until_drained(self) -> None:
        """Those that run end, whoever waits, and then new ones are admitted again."""
        if not self._paused:
            self.engine.scheduler.set_pause_state(PauseState.PAUSED_NEW)
            self.engine.drain(PATIENCE)
            assert not self.engine.scheduler.running
            self.engine.core.resume_scheduler()
            self._look_at_ends()

    def pause_abort(self) -> None:
        """All requests end, and nobody is admitted for a while."""
        if not self._paused:
            self.engine.aborted.update(self._live, self._streams)
            self.engine.core.pause_scheduler("abort", clear_cache=False)
            self._paused = int(self._random.integers(1, 6))

    def sleep(self) -> None:
        """The engine sleeps, keeping its requests, and wakes up again."""
        if not self._paused:
            if self._may_reset():
                self.engine.core.sleep(1, "keep")
                self.engine.core.wake_up()

    def let_time_pass(self) -> None:
        """A pause without requests, or a stall."""
        self.engine.clock.sleep(float(self._random.exponential(1.0)))
