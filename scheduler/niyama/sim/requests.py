"""What a simulation serves."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from niyama.qos import MIN_SLO_S, QoSClass
from niyama.scheduler import Arrival

MOST_TENANTS = 65_536


@dataclass(frozen=True)
class Requests:
    """n requests sorted by arrival. Times in seconds, lengths in tokens; `class_index` points into `classes`.

    `output_tokens` is the truth: the simulator ends requests by it and shows it to no policy.
    `app` says whose output-length history applies (default: the class); `tenant` who is charged, numbered from 0
    (default: tenants are not told apart).
    `emitted_tokens`: output tokens that other replicas have made; the request comes with the KV of its prompt and of
    all of them but the last, which has not been through the model yet (default: none). Their times stay 0 in a Run.
    """

    classes: tuple[QoSClass, ...]
    class_index: np.ndarray
    arrival_s: np.ndarray
    prompt_tokens: np.ndarray
    output_tokens: np.ndarray
    important: np.ndarray
    app: np.ndarray | None = None
    emitted_tokens: np.ndarray | None = None
    tenant: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.arrival_s)

    @property
    def histories(self) -> np.ndarray:
        """Whose output-length history applies to each."""
        return self.class_index if self.app is None else self.app

    @property
    def tenants(self) -> int:
        """How many tenants there are; 0 where they are not told apart."""
        return 0 if self.tenant is None else int(self.tenant.max(initial=-1)) + 1

    def check(self, kv_tokens: int) -> None:
        """ValueError naming the first row, or the column, that a replica with `kv_tokens` of KV cannot serve."""
        for column in ("class_index", "prompt_tokens", "output_tokens", "important", "app", "emitted_tokens", "tenant"):
            values = getattr(self, column)
            if values is not None and len(values) != len(self):
                raise ValueError(f"requests: {column} has {len(values)} rows and arrival_s {len(self)}; give one each")
        index, classes, emitted = self.class_index, len(self.classes), self.emitted_tokens
        handed_over = np.False_ if emitted is None else (emitted < 0) | (emitted >= self.output_tokens)
        for column, bad, wanted in (
            ("output_tokens", self.output_tokens < 1, "at least 1"),
            ("prompt_tokens", self.prompt_tokens < 1, "at least 1"),
            ("arrival_s", ~np.isfinite(self.arrival_s), "a finite number of seconds"),
            ("arrival_s", np.diff(self.arrival_s, prepend=-np.inf) < 0, "not before the one above it; sort the rows"),
            ("class_index", (index < 0) | (index >= classes), f"the index of one of the {classes} classes"),
            ("app", np.False_ if self.app is None else self.app < 0, "0 or more"),
            ("tenant", _no_tenant(self.tenant), f"a whole number from 0 to {MOST_TENANTS - 1}"),
            ("emitted_tokens", handed_over, "0 or more and less than output_tokens"),
        ):
            if np.any(bad):
                row = int(np.argmax(bad))
                raise ValueError(f"request {row}: {column} is {getattr(self, column)[row]}; it must be {wanted}")
        total = self.prompt_tokens.astype(np.int64) + self.output_tokens
        if len(total) and total.max() > kv_tokens:
            row = int(np.argmax(total > kv_tokens))
            raise ValueError(
                f"request {row}: prompt_tokens + output_tokens is {total[row]}, more than the KV cache holds "
                f"({kv_tokens} tokens); drop such requests or use a replica with more KV"
            )


def arrival_of(requests: Requests, row: int) -> Arrival:
    """What a scheduler is told of one of the requests."""
    qos = requests.classes[requests.class_index[row]]
    return Arrival(
        float(requests.arrival_s[row]),
        int(requests.prompt_tokens[row]),
        qos.deadline_slo_s,
        qos.tbt_s or 0.0,
        qos.interactive,
        bool(requests.important[row]),
        int(requests.histories[row]),
        0 if requests.tenant is None else int(requests.tenant[row]),
    )


def delivered(requests: Requests, delivery_s: float) -> Requests:
    """The requests as the scheduler is told of them: their first, or last, token is due that much earlier."""
    if delivery_s == 0.0:
        return requests

    def earlier(slo_s: float | None) -> float | None:
        return None if slo_s is None else max(MIN_SLO_S, slo_s - delivery_s)

    classes = (replace(c, ttft_s=earlier(c.ttft_s), ttlt_s=earlier(c.ttlt_s)) for c in requests.classes)
    return replace(requests, classes=tuple(classes))


def _no_tenant(tenant: np.ndarray | None) -> np.ndarray | np.bool_:
    """Rows whose tenant is none."""
    if tenant is None:
        return np.False_
    return ~((tenant >= 0) & (tenant < MOST_TENANTS) & (tenant == np.floor(tenant)))
