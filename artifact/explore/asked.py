"""What the page's widgets say, checked: as a question for the planner."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from artifact.config import ConfigError, parse
from artifact.latency.gpu_prices import load_prices
from artifact.planning import Question
from artifact.runs.sources import trace
from artifact.runs.spec import ClassSpec

#: Requests of a run: few enough that every system is planned while one waits.
REQUESTS = 3_000


@dataclass(frozen=True)
class Asked:
    """classes: fields of a `ClassSpec` each, with shares in any unit. gpu_hour_usd: None for the list's price."""

    trace: str
    classes: tuple[dict[str, Any], ...]
    qps: float
    latency: str
    systems: tuple[str, ...]
    gpu_hour_usd: float | None = None
    with_tbt: bool = True

    def specs(self) -> tuple[ClassSpec, ...]:
        """The classes, with shares that sum to 1. ConfigError names the class and the field."""
        total = sum(row["share"] for row in self.classes)
        if not total > 0:
            raise ConfigError("all classes have a share of 0; give one a larger share")
        rows = [{**row, "share": row["share"] / total} for row in self.classes if row["share"] > 0]
        return tuple(parse(ClassSpec, row, f"class {row['name']!r}") for row in rows)

    def question(self) -> Question:
        """One seed and a constant load: a first answer, of which `command` gives the whole."""
        return Question(
            trace(self.trace),
            self.specs(),
            self.latency,
            self.qps,
            seeds=1,
            with_tbt=self.with_tbt,
            steady=True,
            most_requests=REQUESTS,
            systems=self.systems,
            gpu_hour_usd=self.gpu_hour_usd,
            prices=load_prices(),
        )

    def classes_yaml(self) -> str:
        """The classes as a file for `--classes`."""
        return yaml.safe_dump([c.model_dump(exclude_none=True) for c in self.specs()], sort_keys=False)

    def command(self, classes_file: str = "classes.yaml") -> str:
        """The command that answers the same question with intervals, what-ifs and the files that run it."""
        words = ["python", "-m", "artifact", "plan", "--trace", self.trace, "--classes", classes_file]
        words += ["--qps", f"{self.qps:g}", "--latency", self.latency]
        words += [] if self.gpu_hour_usd is None else ["--gpu-hour", f"{self.gpu_hour_usd:g}"]
        words += [] if self.with_tbt else ["--without-tbt"]
        return shlex.join(words)


def kept_upload(folder: Path, name: str, content: bytes) -> Path:
    """The file that a visitor has uploaded, under its own name."""
    path = folder / Path(name).name
    if not Path(name).name:
        raise ConfigError(f"{name!r} is no name of a file")
    path.write_bytes(content)
    return path
