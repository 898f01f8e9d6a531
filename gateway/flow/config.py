"""What the configuration says of areas: which counters stand at their edges, how large they are, when they are surely empty."""

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, model_validator

from edge.contract.names import Name
from gateway.rules.duration import Duration, TimeOrNever

_frozen = ConfigDict(extra="forbid", frozen=True)


class LineConfig(BaseModel):
    """One counter at an area's edge."""

    model_config = _frozen

    node: Name = Field(description="The counter's node.")
    device: Name = Field(description="The counter's device on that node.")
    label: str = Field("", max_length=40, description="What its people call it: 東口.")
    turned: bool = Field(False, description="Its `in` leads out of this area.")


class AreaConfig(BaseModel):
    """One `area`: a place with counters at all its ways in and out."""

    model_config = _frozen

    label: str = Field(min_length=1, max_length=40, description="The place, as its people call it: 朝市広場.")
    line: list[LineConfig] = Field(min_length=1, max_length=50, description="Its counters.")
    m2: Annotated[float, Field(gt=0, le=1e7)] | None = Field(None, description="Floor that people can stand on, m²: for density.")
    capacity: Annotated[int, Field(ge=1, le=10**6)] | None = Field(None, description="How many it takes as a shelter.")
    shelter: bool = Field(False, description="In disaster mode it is a shelter, and judged by `capacity`.")
    empty_at: TimeOrNever = Field(
        "03:00", description="Local time at which surely nobody is there, or `never`. A shelter in use is never emptied so."
    )
    silent_after: Duration = Field(900, ge=1, description="A counter that was not heard for so long counts nothing any more.")
    advice: str = Field("", max_length=80, description="What helps when it is full: 南口へ誘導してください。")

    @model_validator(mode="after")
    def _can_be_judged(self) -> "AreaConfig":
        if self.shelter and self.capacity is None:
            raise ValueError("capacity: a shelter needs one")
        lines = [(line.node, line.device) for line in self.line]
        if len(set(lines)) != len(lines):
            raise ValueError("line: one counter stands here twice")
        return self
