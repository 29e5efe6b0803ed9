"""What the panels run: the section `panels` of an experiment file."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from artifact.config import Count, Load, Loads, Names, Once, Positive, Seed, Strict
from artifact.runs.spec import PAPER_MIX, ClassSpec, RunSpec, every

Share = Annotated[float, Field(gt=0, lt=1)]
Mix = Annotated[tuple[ClassSpec, ...], Field(min_length=1, strict=False)]


class Curve(Strict):
    """Fig 4: latency and throughput of one iteration."""

    most_chunk_tokens: Count = Field(description="chunks 1 .. this many prefill tokens")
    decodes: Annotated[tuple[Annotated[int, Field(ge=0)], ...], Field(min_length=1, strict=False), Once]
    context_tokens: Annotated[int, Field(ge=0)] = Field(description="tokens of KV behind each decode")


class Window(Strict):
    """Fig 9 and 15a: consecutive iterations from the middle of a run, one run per system."""

    trace: str
    systems: Names
    load_qps: Load
    requests: Count
    iterations: Count = Field(description="how many, from the middle of the run on")
    prefill_only: bool = Field(default=False, description="count only iterations that prefill")
    seed: Seed = 0
    classes: Mix = PAPER_MIX

    def specs(self, latency: str) -> list[RunSpec]:
        """One run per system."""
        one = {"trace": self.trace, "load_qps": float(self.load_qps), "requests": self.requests, "seed": self.seed}
        return [RunSpec(**one, system=system, latency=latency, classes=self.classes) for system in self.systems]


class Throughput(Strict):
    """Fig 9's gain: tokens per second of the same requests under several systems."""

    trace: str
    systems: Names
    loads_qps: Loads
    requests: Count
    seeds: Count

    def specs(self, latency: str) -> list[RunSpec]:
        """One run per load, seed and system."""
        first = self.loads_qps[0]
        one = RunSpec(trace=self.trace, system=self.systems[0], load_qps=first, requests=self.requests, latency=latency)
        specs = every(one, self.systems, self.loads_qps, self.seeds)
        return sorted(specs, key=lambda spec: (self.loads_qps.index(spec.load_qps), spec.seed))


class Fleets(Strict):
    """Fig 15b by planning: fewest GPUs for one load, as the mix of two interactive classes changes."""

    trace: str
    systems: Names
    load_qps: Load
    requests: Count
    seeds: Count
    shares: Annotated[tuple[Share, ...], Field(min_length=1, strict=False), Once] = Field(
        description="share of the first class; the second has the rest"
    )
    classes: Annotated[tuple[ClassSpec, ClassSpec], Field(strict=False)]

    def mix(self, share: float) -> tuple[ClassSpec, ClassSpec]:
        """The two classes, the first with this share of the requests."""
        first, second = self.classes
        return first.model_copy(update={"share": share}), second.model_copy(update={"share": round(1 - share, 12)})


class Operators(Strict):
    """The operators' scenario (`artifact.experiments.operators`)."""

    systems: Names = Field(description="systems; also `interactive alone` and `vllm-fcfs behind AIMD`")
    latencies: Names = Field(description="latency models to run with")
    replicas: Annotated[tuple[Count, ...], Field(min_length=1, strict=False), Once]
    high_qps: Load = Field(description="interactive requests/s of the first phase and of every second one after it")
    low_qps: Load = Field(description="of the others")
    dwell_s: Positive = Field(description="length of a phase")
    cycles: Count = Field(description="of two phases each")
    job_requests: Count = Field(description="requests of each batch job; all are there at the start")
    windows_s: Annotated[tuple[Positive, ...], Field(min_length=1, strict=False), Once] = Field(
        description="time in which each job is due: a job for each"
    )
    ttft_s: Positive = Field(description="SLO of the interactive class")
    tbt_s: Positive = Field(description="SLO of the interactive class")
    seeds: Count


class Panels(Strict):
    """The section `panels`; a panel that is left out is not made."""

    chunk_curve: Curve | None = None
    five_requests: Names | None = Field(default=None, description="Fig 6: systems that play the example")
    chunk_windows: dict[str, Window] | None = Field(default=None, description="figure -> its window")
    chunk_throughput: Throughput | None = None
    polyserve_fleets: Fleets | None = None
    operators: Operators | None = Field(default=None, description="bursts beside batch jobs with windows")

    @property
    def tables(self) -> tuple[str, ...]:
        """Names of the tables that it makes."""
        return tuple(name for name in type(self).model_fields if getattr(self, name) is not None)

    def traces_of(self, table: str) -> tuple[str, ...]:
        """The traces that a table takes its requests from."""
        panel = getattr(self, table)
        panels = panel.values() if isinstance(panel, dict) else [panel]
        return tuple(dict.fromkeys(p.trace for p in panels if isinstance(p, Window | Throughput | Fleets)))
