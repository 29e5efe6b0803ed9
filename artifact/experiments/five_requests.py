"""Fig 6: five requests on one replica, iteration by iteration: what each policy prefills, relegates, saves and loses.

The paper's figure is a sketch of the same situation. Lengths and deadlines are ours. A: batch, 10,000 tokens of prompt.
B, C, D: interactive. E: batch. D alone is of low importance. A full chunk takes 0.24 s; C and D are both feasible when
they arrive, but not both.
"""

from __future__ import annotations

import numpy as np

from artifact.runs.run import BACKEND
from artifact.runs.spec import PREDICTOR_IS_EXECUTOR
from niyama import BUILT_IN, Policy, QoSClass, load_card
from niyama.latency import ModelCard, seconds
from niyama.scheduler import Arrival, Scheduler, Timing
from niyama.sim import Requests
from niyama.state import KV_BLOCK_TOKENS
from niyama.step import ALL_DECODED, CHUNK, ENDED

NAME = "five-requests"
TBT_S = 10.0
CLASSES = (
    QoSClass("A", ttlt_s=30.0),
    QoSClass("B", ttft_s=0.90, tbt_s=TBT_S),
    QoSClass("C", ttft_s=0.65, tbt_s=TBT_S),
    QoSClass("D", ttft_s=0.54, tbt_s=TBT_S),
    QoSClass("E", ttlt_s=20.0),
)
REQUESTS = Requests(
    CLASSES,
    np.arange(5),
    arrival_s=np.array([0.0, 0.0, 0.1, 0.2, 0.3]),
    prompt_tokens=np.array([10_000, 1500, 3000, 2600, 500]),
    output_tokens=np.array([20, 5, 5, 5, 50]),
    important=np.array([True, True, True, False, True]),
)
PREFILL, DECODE, RELEGATED, REQUEST = "prefill", "decode", "relegated", "request"


def five_requests(systems: tuple[str, ...], latency: str) -> list[dict[str, object]]:
    """The example under each of the built-in policies `systems`: a row per event, see `Stage.rows`."""
    return [row for name in systems for row in Stage(BUILT_IN[name], load_card(latency)).rows()]


class Stage:
    """An engine for the example: it reports to the kernel, executes by the latency model, and notes what happens."""

    def __init__(self, policy: Policy, card: ModelCard, requests: Requests = REQUESTS) -> None:
        kv_tokens = card.kv_tokens // KV_BLOCK_TOKENS * KV_BLOCK_TOKENS
        self._requests, self._card, self._executor = requests, card, card.build()
        self._scheduler = Scheduler(policy, card, kv_tokens=kv_tokens, apps=len(requests), reuse_rows=False)
        self._arrived, self._finished = 0, 0
        self._events: list[tuple[int, str, float, float | None, int | None]] = []
        self.token_s: list[list[float]] = [[] for _ in range(len(requests))]
        self._play()

    def rows(self) -> list[dict[str, object]]:
        """Events in order: kind, start_s, end_s and tokens (null where there is none).

        prefill, decode: one per request and iteration; relegated: at start_s. request: arrives at start_s, its
        deadline is end_s; counted_s is when its first (interactive) or last (batch) token came, met whether in time.
        """
        requests = self._requests
        who = {"backend": BACKEND, "trace": NAME, "system": self._scheduler.policy.name, "latency": self._card.name}
        who |= {"predictor": f"{self._card.name} ({PREDICTOR_IS_EXECUTOR})", "requests": len(requests), "seed": 0}
        facts = []
        for r, qos in enumerate(requests.classes):
            counted_s = self.token_s[r][0 if qos.interactive else -1]
            start_s = float(requests.arrival_s[r])
            end_s = start_s + qos.deadline_slo_s
            about = {"kind": REQUEST, "start_s": start_s, "end_s": end_s, "tokens": int(requests.prompt_tokens[r])}
            facts.append({"row": r, **about, "counted_s": counted_s, "met": counted_s <= end_s})
        names = ("row", "kind", "start_s", "end_s", "tokens")
        events = [{**dict(zip(names, event, strict=True)), "counted_s": None, "met": None} for event in self._events]
        return [
            {
                **who,
                "request": requests.classes[e["row"]].name,
                "important": bool(requests.important[e.pop("row")]),
                **e,
            }
            for e in (*facts, *events)
        ]

    def _play(self) -> None:
        """Plan, execute, commit, to the end."""
        now_s, reported = 0.0, (0.0, 0.0, 0)
        while self._finished < len(self._requests):
            if self._arrived == self._finished:
                now_s = max(now_s, float(self._requests.arrival_s[self._arrived]))
            self._admit(now_s)
            relegations = self._scheduler.table.relegations.copy()
            plan = self._scheduler.step(Timing(now_s, *reported))
            for r in np.flatnonzero(self._scheduler.table.relegations > relegations).tolist():
                self._events.append((r, RELEGATED, now_s, None, None))
            end_s = now_s + float(seconds(self._executor, plan.batch))
            self._report(list(zip(plan.rows, plan.tokens, strict=True)), now_s, end_s)
            now_s, reported = end_s, (now_s, end_s, plan.batch.prefill_tokens)

    def _admit(self, now_s: float) -> None:
        requests = self._requests
        while self._arrived < len(requests) and requests.arrival_s[self._arrived] <= now_s:
            r = self._arrived
            qos, arrival_s = requests.classes[r], float(requests.arrival_s[r])
            promise = qos.deadline_slo_s, qos.tbt_s or 0.0, qos.interactive
            self._scheduler.arrive(
                Arrival(arrival_s, int(requests.prompt_tokens[r]), *promise, bool(requests.important[r]), r)
            )
            self._arrived += 1

    def _report(self, chunks: list[tuple[int, int]], start_s: float, end_s: float) -> None:
        """What the iteration did: every decode's token, the chunks, the first tokens of whole prompts, and the ends."""
        scheduler, t = self._scheduler, self._scheduler.table
        came = scheduler.state.running[: scheduler.state.totals["running"]].tolist()
        self._events += [(r, DECODE, start_s, end_s, 1) for r in came]
        self._events += [(r, PREFILL, start_s, end_s, tokens) for r, tokens in chunks]
        if came:
            scheduler.report(ALL_DECODED, 0)
        for r, tokens in chunks:
            scheduler.report(CHUNK, r, tokens)
            if t.computed_tokens[r] + tokens == t.target_tokens[r]:
                came.append(r)
        for r in came:
            self.token_s[r].append(end_s)
            if len(self.token_s[r]) == self._requests.output_tokens[r]:
                scheduler.report(ENDED, r, len(self.token_s[r]))
                self._finished += 1
