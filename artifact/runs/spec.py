"""What a run is: one frozen, strict specification."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, field_validator, model_validator

from artifact.config import MOST_REPLICAS, ConfigError, Count, Load, Seed, Strict, number_hint, parse, read_yaml
from figures.groups import is_group
from niyama import PAPER_CLASSES, QoSClass, load_card
from niyama.latency.model import MOST_NOISE
from niyama.qos import MIN_SLO_S, MOST_DELIVERY_S, refuse_milliseconds
from traces import TooLong, WorkloadSpec, parse_spec

PREDICTOR_IS_EXECUTOR = "oracle"
LATENCY = "a100-llama3-8b-linear"
#: Fields that each answer names by columns of its own.
NAMED = {"trace", "system", "load_qps", "requests", "seed", "latency", "predictor"}

Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Slo = Annotated[float, Field(ge=MIN_SLO_S, allow_inf_nan=False)]


class ClassSpec(Strict):
    """A QoS class and its share of the requests."""

    name: Annotated[str, Field(min_length=1)] = Field(description="name in results")
    share: Share = Field(default=0.0, description="share of the requests; not needed where the trace or rules say")
    when: str | None = Field(default=None, description="rule, such as prompt > 8000: the requests that it is true for")
    ttft_s: Slo | None = Field(default=None, description="interactive: time to first token, s")
    tbt_s: Slo | None = Field(default=None, description="interactive: time between tokens, s")
    ttlt_s: Slo | None = Field(default=None, description="batch: time to last token, s")

    @field_validator("name")
    @classmethod
    def _is_no_group(cls, name: str) -> str:
        if is_group(name):
            raise ValueError(f"results have a group of that name that is no class; rename it, such as {name + '-1'!r}")
        return name

    @model_validator(mode="after")
    def _is_a_qos_class(self) -> ClassSpec:
        refuse_milliseconds(self.qos())
        return self

    def qos(self) -> QoSClass:
        return QoSClass(self.name, self.ttft_s, self.tbt_s, self.ttlt_s)


#: Table 3 of the paper, in equal parts.
PAPER_MIX = tuple(
    ClassSpec(name=c.name, share=1 / 3, ttft_s=c.ttft_s, tbt_s=c.tbt_s, ttlt_s=c.ttlt_s) for c in PAPER_CLASSES
)


class RunSpec(Strict):
    """One simulated run. Its fields are the columns that identify it in every table."""

    trace: Annotated[str, Field(min_length=1)] = Field(
        description="trace (`python -m traces list`), or its synthetic one, NAME-synth; or a file of your own, or a "
        "folder of `datasets`, or hf:OWNER/NAME"
    )
    system: Annotated[str, Field(min_length=1)] = Field(description="built-in name, or FILE.py:NAME of your own policy")
    load_qps: Load = Field(description="requests/s to the whole system")
    requests: Count = Field(description="requests that arrive; the run ends when all are done")
    seed: Seed = Field(default=0, description="seed of lengths, arrivals, classes and noise")
    latency: str = Field(default=LATENCY, description="latency model that executes")
    predictor: str | None = Field(default=None, description="latency model that predicts; none: the executor's own")
    noise: Annotated[float, Field(ge=0, le=MOST_NOISE, allow_inf_nan=False)] = Field(
        default=0.0, description="standard deviation of the log of step times"
    )
    noise_bursts: Share = Field(default=0.0, description="share of that variance that 50 steps in a row have in common")
    stalls: Share = Field(default=0.0, description="share of steps that take 3 times as long")
    correct: bool = Field(default=False, description="correct the predictor by measured step times, as in vLLM")
    delivery_s: Annotated[float, Field(ge=0, le=MOST_DELIVERY_S, allow_inf_nan=False)] = Field(
        default=0.0, description="engine to client, in seconds: every deadline is met that much earlier"
    )
    replicas: Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_REPLICAS)], ...] | None, Field(strict=False)] = Field(
        default=None, description="replicas per pool; none: one each"
    )
    overlapped: bool = Field(
        default=False, description="plan while the iteration before is in flight, as asynchronous vLLM does"
    )
    routing: str | None = Field(
        default=None,
        description="round-robin, least-work or packed; or what sees the replicas: slack, slack-pack, least-requests, "
        "power-of-two, llumnix, xllm, FILE.py:NAME; none: round-robin, or what the system has",
    )
    arrivals: str | dict[str, Any] = Field(default="poisson", description="poisson, trace, or another process")
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, strict=False)] = Field(
        default=PAPER_MIX,
        description="QoS classes, with shares that sum to 1, or rules (when); without both where the trace has classes",
    )
    low_importance_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of requests that are not important"
    )
    columns: dict[str, str] = Field(default_factory=dict, description="which columns of a trace's file mean what")
    time_unit: str | None = Field(default=None, description="unit of numeric times in a trace's file: s, ms, us or ns")
    tokenizer: str | None = Field(default=None, description="folder of the tokenizer that counts a data set's texts")
    max_total_tokens: Annotated[int, Field(ge=2)] | None = Field(
        default=None, description="longest prompt and output together; none: what the KV cache holds"
    )
    too_long: TooLong = Field(default="refuse", description="requests that are longer: drop, truncate or refuse")
    policy: dict[str, Any] = Field(
        default_factory=dict, description="fields of the system's policies (`niyama.Policy`) that differ from its own"
    )

    @field_validator("arrivals", "policy")
    @classmethod
    def _numbers_are_no_text(cls, fields: Any) -> Any:
        for name, value in fields.items() if isinstance(fields, dict) else ():
            if hint := number_hint(value):
                raise ValueError(f"{name} is text{hint}")
        return fields

    @model_validator(mode="after")
    def _bursts_are_of_noise(self) -> RunSpec:
        if self.noise_bursts and not self.noise:
            raise ValueError(
                f"noise_bursts is {self.noise_bursts}, a share of the noise, and noise is 0; give noise too"
            )
        return self

    @property
    def changed(self) -> dict[str, Any]:
        """What differs from the defaults, as JSON has it, without the fields that NAMED has."""
        return self.model_dump(mode="json", exclude=NAMED, exclude_defaults=True)

    @property
    def latency_name(self) -> str:
        """The name of the latency model that executes, also where `latency` is a card's file."""
        return load_card(self.latency).name

    @property
    def predictor_name(self) -> str:
        """The predictor's latency model: a name or a card's file."""
        return self.predictor or self.latency

    @property
    def predictor_label(self) -> str:
        """As shown in results: a predictor that is the executor's own model is an oracle, and is called one."""
        name, same = load_card(self.predictor_name).name, self.predictor_name == self.latency
        notes = [PREDICTOR_IS_EXECUTOR] * same + ["corrected"] * self.correct
        return f"{name} ({', '.join(notes)})" if notes else name

    def workload_spec(self, kv_tokens: int | None = None) -> WorkloadSpec:
        """The part of the run that decides what arrives. kv_tokens: what a replica's KV cache holds."""
        said: dict[str, Any] = {
            "trace": self.trace,
            "requests": self.requests,
            "load_qps": float(self.load_qps),
            "seed": self.seed,
            "arrivals": self.arrivals,
            "classes": [(c.name, c.share) for c in self.classes],
            "low_importance_share": float(self.low_importance_share),
            "rules": [(c.name, c.when) for c in self.classes if c.when is not None],
        }
        if self.too_long != "refuse":
            said |= {"max_total_tokens": self.longest(kv_tokens), "too_long": self.too_long}
        return parse_spec(said)

    def longest(self, kv_tokens: int | None) -> int | None:
        """Tokens that prompt and output of a request may have together. kv_tokens: what a replica's KV cache holds."""
        limits = [limit for limit in (self.max_total_tokens, kv_tokens) if limit is not None]
        return min(limits, default=None)


def every(spec: RunSpec, systems: Iterable[str], loads_qps: Iterable[float], seeds: int) -> list[RunSpec]:
    """The run of every system, at every load, with every seed from 0 on: the seed changes first, then the load."""
    of_load = [{**dict(spec), "system": system, "load_qps": float(load)} for system in systems for load in loads_qps]
    return [RunSpec(**{**fields, "seed": seed}) for fields in of_load for seed in range(seeds)]


def load_classes(path: Path) -> tuple[ClassSpec, ...]:
    """A YAML list of classes with shares."""
    rows = read_yaml(path)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: must be a list of classes, each with name, share and its SLOs")
    return tuple(parse(ClassSpec, row, f"{path} class {i + 1}") for i, row in enumerate(rows))
