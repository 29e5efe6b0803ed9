"""What `snakemake servers` measures: workflows/config/servers.yaml, its forms, and the run of each point."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Annotated

from pydantic import Field, model_validator

from artifact.config import ConfigError, Loads, Names, Once, Strict, parse, read_mapping
from artifact.runs.fluid import fluid_bound_qps
from artifact.runs.sources import trace
from artifact.runs.spec import ClassSpec, RunSpec
from artifact.servers.measured import MAX_LAG_P99_S
from artifact.servers.systems import ServerSystem, build_server_system
from niyama import PAPER_CLASSES, load_card

NO_SERVERS = "none"
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False, strict=False)]
Share = Annotated[float, Field(ge=0.01, le=100, allow_inf_nan=False)]
Shares = Annotated[tuple[Share, ...], Field(min_length=1, strict=False), Once]


class EngineForm(Strict):
    """How much is run. Loads are per GPU, so that a system of two gets twice as many requests.

    They are given in requests/s, or as shares of the fluid bound of a GPU with the experiment's latency model: what no
    scheduler can exceed for long (`artifact.runs.fluid`), so that the knee is among them whatever the GPU.
    """

    loads_qps_per_gpu: Loads | None = None
    loads_of_fluid_bound: Shares | None = None
    seconds: Positive = Field(description="how long requests arrive at each load")
    seeds: Annotated[int, Field(ge=1)] = 1

    @model_validator(mode="after")
    def _loads_are_given_once(self) -> EngineForm:
        names = ("loads_qps_per_gpu", "loads_of_fluid_bound")
        given = sum(getattr(self, name) is not None for name in names)
        if given != 1:
            raise ValueError(f"{given} of {' and '.join(names)} are set; give one of the two")
        return self


class VirtualForm(EngineForm):
    """What engines run in virtual time, on an emulated GPU."""

    noise: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] = Field(
        default=0.0, description="standard deviation of the log of emulated step times"
    )


class ServerForm(EngineForm):
    """How much is measured of servers, in real time."""

    max_lag_ms: Positive = Field(default=MAX_LAG_P99_S * 1e3, description="client lag (p99) of a busy machine")
    systems_in_turn: bool = Field(
        default=False, description="start all systems' servers at once and measure the systems in turn at each load"
    )


class ServerExperiment(Strict):
    """Systems of real servers on one trace; everything but the form is the same for all forms."""

    trace: Annotated[str, Field(min_length=1)]
    latency: str = Field(description="latency model: emulated by the servers, and what Niyama predicts with")
    systems: Names
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, strict=False)]
    attempts: Annotated[int, Field(ge=1)] = Field(
        default=3, description="a load at which the client itself lagged is measured again, up to this often"
    )
    forms: dict[str, ServerForm]
    virtual_time: VirtualForm | None = Field(default=None, description="what the engines run in virtual time")

    @model_validator(mode="after")
    def _names_are_known(self) -> ServerExperiment:
        for name in self.systems:
            build_server_system(name, self.classes)
        load_card(self.latency)
        return self

    def form(self, name: str) -> ServerForm:
        """The form called `name`. Raises ConfigError."""
        if name not in self.forms:
            raise ConfigError(f"servers: form {name!r} is unknown; use one of {', '.join(self.forms)}, or {NO_SERVERS}")
        return self.forms[name]

    def virtual(self) -> VirtualForm:
        """What runs in virtual time. Raises ConfigError."""
        if self.virtual_time is None:
            raise ConfigError("servers: virtual_time is missing; give it loads_qps_per_gpu, seconds and seeds")
        return self.virtual_time


def load_server_experiment(path: Path, latency: str | None = None) -> ServerExperiment:
    """The experiment of a configuration file, with another latency model where one is given. Raises ConfigError."""
    values = read_mapping(path)
    return parse(ServerExperiment, values if latency is None else {**values, "latency": latency}, str(path))


def loads_qps(experiment: ServerExperiment, form: EngineForm, trace_name: str) -> tuple[float, ...]:
    """The form's loads per GPU, in requests/s."""
    if form.loads_qps_per_gpu is not None:
        return form.loads_qps_per_gpu
    source = trace(trace_name)
    bound_qps = fluid_bound_qps(load_card(experiment.latency), source.prompt_tokens, source.output_tokens)
    return tuple(round(share * bound_qps, 2) for share in form.loads_of_fluid_bound)


def server_specs(
    experiment: ServerExperiment, form: EngineForm, system: ServerSystem, seed: int, trace_name: str
) -> list[RunSpec]:
    """The run of each load, in order; `trace_name` is the trace, or its synthetic one."""
    return [
        RunSpec(
            trace=trace_name,
            system=system.name,
            load_qps=load * system.replicas,
            requests=max(1, round(load * system.replicas * form.seconds)),
            seed=seed,
            latency=experiment.latency,
            noise=form.noise if isinstance(form, VirtualForm) else 0.0,
            replicas=tuple(pool.replicas for pool in system.pools),
            classes=experiment.classes,
        )
        for load in loads_qps(experiment, form, trace_name)
    ]


def servers_form(wanted: str, experiment: ServerExperiment) -> str:
    """The form of the server sweep to show: `wanted`, or `none` where vLLM is not installed, and a warning then.

    Raises ConfigError for a form that the experiment does not have.
    """
    if wanted == NO_SERVERS:
        return NO_SERVERS
    experiment.form(wanted)
    if find_spec("vllm") is None:
        logging.getLogger(__name__).warning(
            "vLLM is not installed: the real servers are left out, everything else runs; `make setup` installs it"
        )
        return NO_SERVERS
    return wanted


def scaling(classes: Sequence[ClassSpec]) -> str:
    """The SLOs as text, each with the paper's where that is another."""
    paper, parts = {c.name: c for c in PAPER_CLASSES}, []
    for own in classes:
        known = paper.get(own.name)
        for field in ("ttft_s", "tbt_s", "ttlt_s"):
            value = getattr(own, field)
            if value is not None:
                papers = getattr(known, field, None)
                papers_own = "" if papers == value else f" (paper: {papers:g} s)" if papers else " (not in the paper)"
                parts.append(f"{own.name} {field[:-2].upper()} {value:g} s{papers_own}")
    return ", ".join(parts)
