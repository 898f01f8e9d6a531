"""The settings of the watch over people: `[mimamori]`, `[search]`. Data only."""

import itertools
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge.contract.names import Name
from gateway.rules.duration import Duration

_frozen = ConfigDict(extra="forbid", frozen=True)


class MimamoriConfig(BaseModel):
    """`[mimamori]`: who may look."""

    model_config = _frozen

    family_link_for: Duration = Field(
        30 * 86_400, ge=3600, description="How long the link to the family's page works; each message brings a new one."
    )
    confirm_every: Duration = Field(
        182 * 86_400, ge=86_400, description="How long a consent holds before the family is asked whether it goes on."
    )
    confirm_grace: Duration = Field(
        60 * 86_400, ge=86_400, description="How long they are asked, weekly, before the office hears that nobody answers."
    )

    look_every: Duration = Field(
        600, ge=1, le=86_400, description="Looks of one at the same person in the same way are one entry of the log for so long."
    )

    @model_validator(mode="before")
    @classmethod
    def _moved(cls, said: object) -> object:
        if isinstance(said, dict) and "keep_sightings" in said:
            raise ValueError("keep_sightings is now `sightings` of [keep]: move it there")
        return said


class SearchStep(BaseModel):
    """One `search.step`: whom a search asks too, when it lasts."""

    model_config = _frozen

    after: Duration = Field(description="How long after the search was opened.")
    to: Annotated[list[Name], Field(min_length=1)] = Field(description="Groups that are asked then.")


class SearchConfig(BaseModel):
    """`[search]`: how a missing person is searched for."""

    model_config = _frozen

    volunteers: Name | None = Field(None, description="The group that is asked at once, beside family and office; absent: none.")
    step: list[SearchStep] = Field([], description="Whom it asks too, step by step, each as {after, to}.")
    renew_every: Duration = Field(2 * 3600, ge=600, description="Nobody renewed it for so long: volunteers see nothing any more.")
    ask_before: Duration = Field(900, ge=60, description="So long before that, family and office are asked whether it goes on.")
    count_after: Duration = Field(60, ge=1, description="When family and office hear how many people it reached.")
    sightings_every: Duration = Field(180, ge=1, description="New places are told to family and office at most so often.")

    @field_validator("step")
    @classmethod
    def _in_order(cls, steps: list[SearchStep]) -> list[SearchStep]:
        if any(later.after < earlier.after for earlier, later in itertools.pairwise(steps)):
            raise ValueError("each step's `after` counts from the opening: it can't be before that of the step above")
        return steps

    @model_validator(mode="after")
    def _asks_in_time(self) -> "SearchConfig":
        if self.ask_before >= self.renew_every:
            raise ValueError("ask_before must be shorter than renew_every")
        return self

    @property
    def groups(self) -> list[str]:
        """Everybody whom it may ask beside family and office."""
        named = [*([self.volunteers] if self.volunteers else []), *(name for step in self.step for name in step.to)]
        return list(dict.fromkeys(named))
