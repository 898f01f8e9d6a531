"""Which alerts are told to whom, in which steps: the first route whose `match` fits."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from edge.contract.names import Name
from gateway.rules.duration import Duration, TimeOfDay

Channel = Literal["line", "push", "mail", "sms", "voice", "webhook"]

FAMILY = "family"
"""In a step's `to`: the family of the person whose tag the alert is about (its `facts`)."""


class Match(BaseModel):
    """What must be equal; what is absent fits everything."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    kind: str | None = Field(None, description="The deployment's kind, e.g. trap.")
    rule: str | None = Field(None, description="The rule's name.")
    severity: str | None = Field(None, description="info, warning or critical.")
    node: str | None = Field(None, description="The node's name.")
    device: str | None = Field(None, description="The device's name.")

    def fits(self, alert: Mapping[str, Any]) -> bool:
        """Whether all that is said here is so of the alert (its fields by name)."""
        return all(alert.get(field) == value for field, value in self._wanted.items())

    @cached_property
    def _wanted(self) -> Mapping[str, str]:
        """Once: it is asked for every route at each look at a page."""
        return self.model_dump(exclude_none=True)


def _one_or_more(to: object) -> object:
    return [to] if isinstance(to, str) else to


Names = Annotated[list[Name], BeforeValidator(_one_or_more), Field(min_length=1)]


class StepConfig(BaseModel):
    """One step of a route."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    to: Names = Field(description="Groups and contacts that are told.")
    after: Duration = Field(0, description="How long after the page's beginning, while too few have answered.")
    by: Channel | None = Field(None, description="Only over this channel, e.g. voice; absent: each contact's own order.")


class RouteConfig(BaseModel):
    """One line of `route`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field("main", description="What its pages are called by; two routes may not share one.")
    match: Match = Field(Match(), description="Which alerts take this route; absent: all.")
    to: Names | None = Field(None, description="Short for one step.")
    steps: list[StepConfig] = Field([], description="Whom to tell, and whom after so long without enough answers.")
    needed: Annotated[int, Field(ge=0, le=20)] = Field(
        0, description="How many must answer that they go; 0: it is told, and nobody is asked."
    )
    group_by: list[Literal["rule", "kind", "severity", "node", "device", "place"]] = Field(
        ["rule", "node", "device"], description="Alerts that agree in these are one page."
    )
    group_wait: Duration = Field(
        0, description="How long a new page waits for more of its group before anybody is told; one that is critical never waits."
    )
    group_interval: Duration = Field(300, description="How long after a message until alerts that joined are told, in one.")
    cooldown: Duration = Field(
        0, description="No new page of this group so soon after one was really sent; one that is critical is told all the same."
    )
    result_within: Duration = Field(3600, description="After enough said that they go: when they are asked what came of it.")
    again_every: Duration = Field(1800, description="After the last step: how often everybody without an answer is asked anew.")
    tell_end: bool = Field(False, description="Whether everybody who was told is told that it is over.")
    digest: TimeOfDay | None = Field(None, description="Collected, and told once a day at this local time: 07:00.")

    @model_validator(mode="after")
    def _has_steps(self) -> "RouteConfig":
        if (self.to is None) == (not self.steps):
            raise ValueError("give either to or steps")
        later = [step.after for step in self.steps]
        if later != sorted(later):
            raise ValueError("steps: each `after` counts from the page's beginning, so none may be smaller than the one before")
        return self

    @property
    def all_steps(self) -> Sequence[StepConfig]:
        """Its steps, the short form too."""
        return self.steps or [StepConfig(to=self.to or [])]


def route_for(routes: Sequence[RouteConfig], alert: Mapping[str, Any]) -> RouteConfig | None:
    """The first route that fits; None when none does."""
    return next((route for route in routes if route.match.fits(alert)), None)
