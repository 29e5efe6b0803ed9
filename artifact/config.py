"""What a run is: one frozen, strict specification; and how any configuration is read and refused."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from niyama import PAPER_CLASSES, QoSClass, load_card
from niyama.latency.model import MOST_NOISE
from niyama.qos import refuse_milliseconds
from traces import WorkloadSpec, parse_spec

PREDICTOR_IS_EXECUTOR = "oracle"
LATENCY = "a100-llama3-8b-linear"
Names = Annotated[tuple[str, ...], Field(min_length=1, strict=False)]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
#: The most that a machine's memory and a double's digits leave room for.
MOST_REQUESTS, MOST_REPLICAS, MOST_QPS, MOST_SEED = 100_000_000, 10_000, 1e6, 2**31 - 1
Count = Annotated[int, Field(ge=1, le=MOST_REQUESTS)]
Load = Annotated[float, Field(gt=0, le=MOST_QPS, allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, le=MOST_SEED)]


class ConfigError(ValueError):
    """A value in a configuration or on the command line makes no sense; one line: field, value and what to do."""


class Strict(BaseModel):
    """Frozen, strict, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ClassSpec(Strict):
    """A QoS class and its share of the requests."""

    name: Annotated[str, Field(min_length=1)] = Field(description="name in results")
    share: Annotated[float, Field(ge=0, le=1)] = Field(description="share of the requests")
    ttft_s: float | None = Field(default=None, description="interactive: time to first token, s")
    tbt_s: float | None = Field(default=None, description="interactive: time between tokens, s")
    ttlt_s: float | None = Field(default=None, description="batch: time to last token, s")

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

    trace: Annotated[str, Field(min_length=1)] = Field(description="trace the lengths come from")
    system: Annotated[str, Field(min_length=1)] = Field(description="built-in name, or FILE.py:NAME of a policy")
    load_qps: Load = Field(description="requests/s to the whole system")
    requests: Count = Field(description="requests that arrive; the run ends when all are done")
    seed: Seed = Field(default=0, description="seed of lengths, arrivals, classes and noise")
    latency: str = Field(default=LATENCY, description="latency model that executes")
    predictor: str | None = Field(default=None, description="latency model that predicts; none: the executor's own")
    noise: Annotated[float, Field(ge=0, le=MOST_NOISE, allow_inf_nan=False)] = Field(
        default=0.0, description="standard deviation of the log of step times"
    )
    replicas: Annotated[tuple[Annotated[int, Field(ge=1, le=MOST_REPLICAS)], ...] | None, Field(strict=False)] = Field(
        default=None, description="replicas per pool; none: one each"
    )
    overlapped: bool = Field(
        default=False, description="plan while the iteration before is in flight, as asynchronous vLLM does"
    )
    routing: str = Field(default="round-robin", description="round-robin, least-work or packed")
    arrivals: str | dict[str, Any] = Field(default="poisson", description="arrival process, as in traces")
    classes: Annotated[tuple[ClassSpec, ...], Field(min_length=1, strict=False)] = Field(
        default=PAPER_MIX, description="QoS classes with shares that sum to 1"
    )
    low_importance_share: Annotated[float, Field(ge=0, le=1)] = Field(
        default=0.0, description="share of requests that are not important"
    )
    policy: dict[str, Any] = Field(
        default_factory=dict, description="fields of the system's policies (`niyama.Policy`) that differ from its own"
    )

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
        return f"{name} ({PREDICTOR_IS_EXECUTOR})" if same else name

    def workload_spec(self) -> WorkloadSpec:
        """The part of the run that decides what arrives."""
        return parse_spec(
            {
                "trace": self.trace,
                "requests": self.requests,
                "load_qps": float(self.load_qps),
                "seed": self.seed,
                "arrivals": self.arrivals,
                "classes": [(c.name, c.share) for c in self.classes],
                "low_importance_share": float(self.low_importance_share),
            }
        )


def explain(error: ValidationError, what: str) -> ConfigError:
    """The first problem of a pydantic error as one line, with the number of further ones."""
    problems = error.errors()
    first = problems[0]
    where = ".".join(str(part) for part in first["loc"]) or what
    if first["type"] == "extra_forbidden":
        text = f"{what}: {where} is not a known field; remove it or correct its name"
    elif first["type"] == "missing":
        text = f"{what}: {where} is missing"
    elif not first["loc"]:
        text = f"{what}: {first['msg'].removeprefix('Value error, ')}"
    else:
        text = f"{what}: {where} is {first['input']!r}: {first['msg'].removeprefix('Value error, ')}"
    return ConfigError(text + (f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""))


def parse(model: type[Strict], values: Mapping[str, Any], what: str) -> Any:
    """`model` from a mapping; ConfigError on the first problem."""
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        raise explain(error, what) from None


class _Loader(yaml.SafeLoader):
    """Refuses a key that a mapping has twice: the last would be taken."""

    def compose_mapping_node(self, anchor: str | None) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if (own := str(key.value)) in seen:
                raise yaml.composer.ComposerError(None, None, f"key {own} is given twice", key.start_mark)
            seen.add(own)
        return node


def read_yaml(path: Path) -> Any:
    """A YAML file's contents; ConfigError when it is missing or is no YAML."""
    try:
        return yaml.load(path.read_text(encoding="utf-8"), Loader=_Loader)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror}); check the path") from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: is not UTF-8 ({error.reason} at byte {error.start}); save it as UTF-8") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: is not valid YAML: {' '.join(str(error).split())}") from None


def load_classes(path: Path) -> tuple[ClassSpec, ...]:
    """A YAML list of classes with shares."""
    rows = read_yaml(path)
    if not isinstance(rows, list) or not rows:
        raise ConfigError(f"{path}: must be a list of classes, each with name, share and its SLOs")
    return tuple(parse(ClassSpec, row, f"{path} class {i + 1}") for i, row in enumerate(rows))
