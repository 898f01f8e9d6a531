"""`[keep]`: how long things are kept. The one table of defaults; data only.

Kept without an end: visits and the dossiers of captures (the municipality's papers), counts and recounts, the town's modes, the
chain of the audit trail, what was erased.
"""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from gateway.rules.duration import parse_duration

DAY_S = 86_400

Long = Annotated[int, BeforeValidator(parse_duration), Field(ge=DAY_S, le=10_000 * DAY_S)]
"""Whole seconds, written with a unit; a day at least."""


class KeepConfig(BaseModel):
    """`[keep]`: how long what is kept."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    sightings: Long = Field(14 * DAY_S, description="Whatever says where a tag was, what finders wrote, and search cases' words.")
    pictures: Long = Field(90 * DAY_S, description="Pictures in which a model or a person saw an animal, or nobody.")
    pictures_of_people: Long = Field(
        30 * DAY_S, description="Pictures in which somebody may be, which nothing looked at, and other files of nodes."
    )
    events: Long = Field(3 * 365 * DAY_S, description="What devices told beside sightings: traps, buttons, cameras, lids.")
    alerts: Long = Field(365 * DAY_S, description="Alerts that are over, with who was told and what they said.")
    quarantine: Long = Field(30 * DAY_S, description="Messages that were refused; those that name a tag as `sightings`.")
    consents: Long = Field(3 * 365 * DAY_S, description="On whose word somebody was watched over, after it ended.")
    sessions: Long = Field(30 * DAY_S, description="Sessions, one-time links and invitations, after they ended.")
    orders: Long = Field(
        365 * DAY_S, description="Commands, configurations, certificates, codes, jobs and silences, after their time."
    )
    losses: Long = Field(365 * DAY_S, description="Which records never came.")
    audit: Long = Field(3 * 365 * DAY_S, description="What the audit trail says of each entry; its chain is kept.")
    erasures_file: Path | None = Field(
        None,
        description="What was erased, to be done again after a restore; absent: `<state database>.erasures`. "
        "Leave it out of restores.",
    )

    @model_validator(mode="after")
    def _people_go_first(self) -> "KeepConfig":
        if self.pictures_of_people > self.pictures:
            raise ValueError("pictures_of_people can't be longer than pictures: where somebody may be in it, it goes first")
        return self
