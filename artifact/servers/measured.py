"""From a workload and a URL to a measured run: raw times in the simulator's shape, or an error that says why not."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from artifact.config import ConfigError
from artifact.errors import CommandError
from artifact.servers.client import Answer, Shot, completion_body, fire, prompt_ids
from niyama.sim import LOG_COLUMNS, Requests, Run

MAX_LAG_P99_S = 0.005
TIMEOUT_S = 900.0
WARM_UP_PROMPT_TOKENS, WARM_UP_OUTPUT_TOKENS = 256, 8
WARM_UP_SEED = 1 << 32  # no run's
#: Output lengths of warm-up requests must not teach Niyama anything about the workload's.
WARM_UP_APP = "warm-up"
SHOWN_ERRORS = 3


class RunFailed(CommandError):
    """The run is no measurement: requests failed. Says how many of how many, and why."""


class ClientLagged(CommandError):
    """The client itself was late, so the run may not be quoted as it is. Says by how much; `measured` is the run."""

    def __init__(self, text: str, measured: Measured) -> None:
        super().__init__(text)
        self.measured = measured


@dataclass(frozen=True)
class Client:
    """How load is sent. url, model: where and to whom. priorities: vLLM's priority number per class, if requests carry
    one. max_lag_p99_s: a client that sends later than that (99th percentile) is too late, and ClientLagged says so."""

    url: str
    model: str
    priorities: Mapping[str, int]
    seed: int = 0
    max_lag_p99_s: float = MAX_LAG_P99_S
    timeout_s: float = TIMEOUT_S


@dataclass(frozen=True)
class Measured:
    """A complete run: every request got every token. Seconds from the run's start.

    run: as the simulator's; what a client cannot see is nan (first_scheduled_s) or zero (preemptions, iterations).
    sent_s: actual send times. relegated: whether Niyama said so; None when no answer told.
    """

    requests: Requests
    run: Run
    sent_s: np.ndarray
    http_status: np.ndarray
    relegated: np.ndarray | None

    @property
    def lag_p99_s(self) -> float:
        """99th percentile of actual minus intended send time."""
        return float(np.quantile(self.sent_s - self.requests.arrival_s, 0.99))


def measure(client: Client, requests: Requests) -> Measured:
    """Replay `requests` and time them: complete, or RunFailed says why not; ClientLagged for a late one."""
    answers = asyncio.run(fire(client.url, shots(client, requests), client.timeout_s))
    check_answers(answers)
    measured = _gather(requests, answers)
    if measured.lag_p99_s > client.max_lag_p99_s:
        raise ClientLagged(
            f"the client's lag is {measured.lag_p99_s * 1e3:.1f} ms (p99), more than {client.max_lag_p99_s * 1e3:g} ms:"
            " the machine is too busy to measure; stop other programs",
            measured,
        )
    return measured


def warm_up(client: Client, class_names: Sequence[str], replicas: int) -> None:
    """Send every replica requests of each class and wait for them; RunFailed when one fails."""
    prompts = [(name, k) for name in class_names for k in range(2 * replicas)]
    rows = [
        Shot(
            0.0,
            completion_body(
                client.model,
                prompt_ids(WARM_UP_SEED, i, WARM_UP_PROMPT_TOKENS),
                WARM_UP_OUTPUT_TOKENS,
                {"niyama_class": name, "niyama_app": WARM_UP_APP},
                client.priorities.get(name),
            ),
            WARM_UP_OUTPUT_TOKENS,
        )
        for i, (name, _) in enumerate(prompts)
    ]
    check_answers(asyncio.run(fire(client.url, rows, client.timeout_s)))


def shots(client: Client, requests: Requests) -> list[Shot]:
    """What to send and when, for every request. The true output length goes only into max_tokens."""
    names = [c.name for c in requests.classes]
    rows = []
    for i in range(len(requests)):
        name = names[requests.class_index[i]]
        xargs = {"niyama_class": name} | ({} if requests.important[i] else {"niyama_importance": "low"})
        prompt, output = int(requests.prompt_tokens[i]), int(requests.output_tokens[i])
        priority = client.priorities.get(name)
        body = completion_body(client.model, prompt_ids(client.seed, i, prompt), output, xargs, priority)
        rows.append(Shot(float(requests.arrival_s[i]), body, output))
    return rows


def check_answers(answers: Sequence[Answer]) -> None:
    """RunFailed with the number of failed requests and their commonest errors."""
    failed = [(answer.error, i, answer) for i, answer in enumerate(answers) if answer.error is not None]
    if failed:
        errors = Counter(error for error, *_ in failed)
        shown = "; ".join(f"{count} x {text}" for text, count in errors.most_common(SHOWN_ERRORS))
        more = f"; and {len(errors) - SHOWN_ERRORS} other errors" if len(errors) > SHOWN_ERRORS else ""
        _, first, answer = failed[0]
        where = f"the first is request {first}, after {len(answer.token_s)} tokens"
        raise RunFailed(f"{len(failed)} of {len(answers)} requests failed: {shown}{more}; {where}")


def check_fits(requests: Requests, most_tokens: int) -> None:
    """ConfigError when a request is longer than the servers take."""
    total = requests.prompt_tokens.astype(np.int64) + requests.output_tokens
    if total.max() > most_tokens:
        row = int(total.argmax())
        raise ConfigError(
            f"request {row}: prompt_tokens + output_tokens is {total[row]}; the servers take {most_tokens}"
        )


def _gather(requests: Requests, answers: Sequence[Answer]) -> Measured:
    """Complete answers as arrays."""
    told = all(answer.served is not None for answer in answers)
    relegated = np.array([bool(answer.served["relegated"]) for answer in answers]) if told else None
    token_s = np.concatenate([np.array(answer.token_s) for answer in answers])
    sent_s = np.array([answer.sent_s for answer in answers])
    status = np.array([answer.http_status for answer in answers], np.int32)
    return Measured(requests, seen_run(requests, token_s, relegated), sent_s, status, relegated)


def seen_run(requests: Requests, token_s: np.ndarray, relegated: np.ndarray | None) -> Run:
    """A run of which a client saw the tokens and, perhaps, who was relegated; all else is nan or zero."""
    n = len(requests)
    return Run(
        replica=np.zeros(n, np.int32),
        first_scheduled_s=np.full(n, np.nan),
        token_start=np.concatenate([[0], np.cumsum(requests.output_tokens, dtype=np.int64)]),
        token_s=token_s,
        relegations=np.zeros(n, np.int32) if relegated is None else relegated.astype(np.int32),
        still_relegated=np.zeros(n, bool),
        preemptions=np.zeros(n, np.int32),
        iterations=0,
        un_relegations=0,
        log=np.zeros((0, 1 + len(LOG_COLUMNS))),
    )
