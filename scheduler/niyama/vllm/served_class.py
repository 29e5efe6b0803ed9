"""A QoS class as an operator writes it: its promise, and how far requests may move it. Seconds."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from niyama import QoSClass
from niyama.qos import MIN_SLO_S, refuse_milliseconds

#: The most seconds that an SLO may be, in the file and from a client; the least is MIN_SLO_S.
MAX_SLO_S = 7 * 86_400.0

# Names become header values, metric labels and log words.
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Seconds = Annotated[float, Field(ge=MIN_SLO_S, le=MAX_SLO_S, allow_inf_nan=False)]
# YAML and JSON know lists only, so tuples alone are exempt from strictness.
Range = Annotated[tuple[Seconds, Seconds], Field(strict=False)]


class Strict(BaseModel):
    """Frozen, strict, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid")


class ServedClass(Strict):
    """A QoS class and how far a request may move its SLOs: without a range it may relax them, never tighten them."""

    name: Name = Field(description="what requests, headers and metrics call it")
    ttft_s: Seconds | None = Field(default=None, description="interactive: time to first token")
    tbt_s: Seconds | None = Field(default=None, description="interactive: time between tokens")
    ttlt_s: Seconds | None = Field(default=None, description="batch: time to last token")
    ttft_s_range: Range | None = Field(default=None, description="least and most a request may ask for")
    tbt_s_range: Range | None = Field(default=None, description="least and most a request may ask for")
    ttlt_s_range: Range | None = Field(default=None, description="least and most a request may ask for")
    importance: Literal["high", "low"] = Field(default="high", description="low is relegated first; requests may lower")

    @model_validator(mode="after")
    def _is_a_qos_class_with_ranges_around_its_slos(self) -> ServedClass:
        refuse_milliseconds(self.qos())
        for field in ("ttft_s", "tbt_s", "ttlt_s"):
            value, bounds = getattr(self, field), getattr(self, f"{field}_range")
            if bounds is None:
                continue
            if value is None:
                raise ValueError(f"class {self.name!r}: {field}_range is set and {field} is not; set both or neither")
            if not bounds[0] <= value <= bounds[1]:
                raise ValueError(
                    f"class {self.name!r}: {field}_range is [{bounds[0]:g}, {bounds[1]:g}]; "
                    f"make it [low, high] around {field}, which is {value:g}"
                )
        return self

    @property
    def important(self) -> bool:
        """Whether requests are important unless they say otherwise."""
        return self.importance == "high"

    def qos(self) -> QoSClass:
        """The class as the kernel knows it."""
        return QoSClass(self.name, self.ttft_s, self.tbt_s, self.ttlt_s)

    def bounds_s(self, field: str) -> tuple[float, float]:
        """Least and most seconds that a request may ask for in `field`, an SLO that the class has."""
        return getattr(self, f"{field}_range") or (getattr(self, field), MAX_SLO_S)
