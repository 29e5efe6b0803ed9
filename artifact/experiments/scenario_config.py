"""The sections of a configuration with a shape of their own: fleets, a disaggregated deployment, load in waves."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field

from artifact.config import ConfigError, Count, Load, LoadStep, Names, Once, Positive, Strict, parse
from artifact.runs.recorded import with_classes_of_the_trace
from artifact.runs.spec import PAPER_MIX, RunSpec
from artifact.runs.systems import DISAGGREGATED, build_system
from niyama import load_card

AXES = {"trace": "traces", "system": "systems", "load_qps": "loads_qps", "seed": "seeds", "latency": "latencies"}
NotNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]


def refuse_axes(part: str, fields: dict[str, Any]) -> None:
    """ConfigError for a field that has a place of its own."""
    for field in AXES.keys() & fields.keys():
        raise ConfigError(f"{part}.{field} is {fields[field]!r}: it is no change; list it under {AXES[field]}")


class ClusterExperiment(Strict):
    """Replicas needed at one load, silo against shared; and fleets of given sizes."""

    traces: Names
    load_qps: Load
    requests: Count
    seeds: Count
    shared: Annotated[tuple[str, ...], Field(strict=False), Once]
    fleets: dict[str, Annotated[list[list[int]], Once]] = Field(
        description="fleets to run as they are: system -> replicas per pool"
    )
    run: dict[str, Any] = Field(default_factory=dict, description="RunSpec fields that all runs share, such as classes")

    def spec(self, trace: str, latency: str, system: str) -> RunSpec:
        """A run on a trace and a latency model. Raises ConfigError."""
        own = {"trace": trace, "latency": latency, "system": system, "load_qps": self.load_qps}
        return with_classes_of_the_trace(parse(RunSpec, {**own, "requests": self.requests, **self.run}, "run"))

    def check(self, latency: str) -> None:
        """Raise ValueError on the first value that makes no sense."""
        refuse_axes("run", self.run)
        for trace in self.traces:
            self.spec(trace, latency, "niyama").workload_spec()


class DisaggregatedExperiment(Strict):
    """Goodput per prefill node of a disaggregated deployment, for systems x traces x latency models."""

    traces: Names
    systems: dict[str, Count] = Field(min_length=1, description="requests per run, by system")
    kv_bytes_per_token: dict[str, Positive] = Field(
        min_length=1, description="keys and values of a token on a GPU of a node, by latency model: those to run with"
    )
    longer_runs: dict[str, Positive] = Field(
        default={}, description="factor on the requests per run, by latency model: a faster node needs more for as long"
    )
    chunk_tokens: Count = Field(description="most prompt tokens in a step of a prefill node")
    link_bytes_per_s: Positive = Field(description="bandwidth of each GPU of a prefill node to the decode nodes")
    link_delay_s: NotNegative = Field(description="what a transfer takes beside its bytes")
    batch_allowance_s: NotNegative = Field(description="what prefill nodes leave of a batch deadline for the rest")
    decode_share: Annotated[float, Field(gt=0, le=1)] = Field(
        description="decode nodes are enough to stay at this share of each limit on average: TBT, KV, requests"
    )
    seeds: Count
    step_qps: LoadStep

    def check(self) -> None:
        """Raise ValueError on the first name that is unknown."""
        for system in self.systems:
            if system not in DISAGGREGATED:
                raise ConfigError(f"systems has {system!r}; use {', '.join(DISAGGREGATED)}")
        for latency in self.kv_bytes_per_token:
            load_card(latency)
        for latency in self.longer_runs:
            if latency not in self.kv_bytes_per_token:
                raise ConfigError(f"longer_runs has {latency!r}, which kv_bytes_per_token has not; take it out")


class OverloadExperiment(Strict):
    """A square wave of load between less and more than a replica can serve, for systems x traces."""

    traces: Names
    systems: Names
    low_qps: Load = Field(description="load of the first phase and of every second one after it")
    high_qps: Load = Field(description="load of the others")
    dwell_s: Positive = Field(description="length of a phase")
    duration_s: Positive = Field(description="how long requests arrive, on average")
    low_importance_share: Annotated[float, Field(ge=0, le=1)] = Field(description="share that is not important")
    window_s: Positive = Field(description="length of a window of the table overload_windows")
    stride_s: Positive = Field(description="from the start of a window to the start of the next")
    seeds: Count

    def check(self) -> None:
        """Raise ValueError on the first system that is unknown."""
        for system in self.systems:
            build_system(system, PAPER_MIX)
