"""What the configuration says of people: groups, the office, quiet hours."""

from pathlib import Path
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from edge.contract.names import Name
from gateway.notify.message import Language
from gateway.rules.duration import Duration, TimeOfDay
from gateway.words.refusal import Refusal

_frozen = ConfigDict(extra="forbid", frozen=True)

Weekday = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]


class QuietConfig(BaseModel):
    """Hours in which only what is critical comes through."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    days: list[Weekday] | None = Field(None, description="Days on which such hours begin; absent: every day.")
    from_: TimeOfDay = Field(alias="from", description="When they begin, in the zone's time: 21:00.")
    to: TimeOfDay = Field(description="When they end; the next day where it is earlier than `from`: 06:00.")
    zone: str | None = Field(None, description="IANA zone; absent: the gateway's `time_zone`.")

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, name: str | None) -> str | None:
        if name is not None:
            try:
                ZoneInfo(name)
            except (ZoneInfoNotFoundError, ValueError, OSError) as error:
                raise Refusal("why.time_zone", name=repr(name)) from error
        return name

    @model_validator(mode="after")
    def _last(self) -> "QuietConfig":
        if self.from_ == self.to:
            raise Refusal("why.quiet_same", at=str(self.to))
        return self


class GroupConfig(BaseModel):
    """One `group`: people who are told together. Its members join by a code and stand in the state database."""

    model_config = _frozen

    label: str = Field(min_length=1, max_length=40, description="What its people call it: 北山のわな番.")
    language: Language = Field("ja", description="The language of who joins and does not choose: ja, ja-easy or en.")
    quiet: list[QuietConfig] = Field([], description="Quiet hours of its members, unless they choose their own.")
    role: Literal["farmer", "hunter", "family", "volunteer"] | None = Field(
        None, description="What its members may do when they sign in; absent: they have no account by it."
    )


_OFFICE_OF = {"町": "町役場", "村": "村役場", "区": "区役所"}


class PeopleConfig(BaseModel):
    """`[people]`: what all messages to people share."""

    model_config = _frozen

    public_url: str = Field(description="The gateway as phones reach it: https://gateway.example")
    folder: Path = Field(description="Folder of the keys that sign links and push messages; mode 0700.")
    town: str = Field("", max_length=40, description="What a call begins with, 「…です」: 里山市; empty: nothing.")
    office: Name = Field(description="The group or contact that is told when nobody can be reached.")
    office_phone: Annotated[str | None, Field(pattern=r"^\+?[0-9][0-9-]{4,20}$")] = Field(
        None, description="The office's telephone, for people whom a page can't help: 050-0000-0001."
    )
    office_name: str = Field(
        "市役所",
        min_length=1,
        max_length=20,
        description="What messages call the office: 市役所, 町役場, 村役場, 区役所, or as you like; absent: as `town` ends.",
    )
    mode_to: list[Name] = Field([], description="Groups and contacts that hear, with the office, when the town's mode changes.")
    test_every: Duration = Field(30 * 86_400, description="How often each address is proved anew by an answered test.")
    test_within: Duration = Field(3 * 86_400, description="How long a test may stay unanswered.")
    link_for: Duration = Field(86_400, description="How long the link in a message can be used to answer.")
    calling_code: Annotated[str, Field(pattern=r"^[1-9][0-9]{0,2}$")] = Field(
        "81", description="The country of telephone numbers that begin with 0."
    )

    @property
    def hear_mode(self) -> list[str]:
        """Who is told when the town's mode changes."""
        return [self.office, *self.mode_to]

    @model_validator(mode="before")
    @classmethod
    def _office_is_the_towns(cls, data: Any) -> Any:
        """A town's office is no city's, where nobody says what it is called."""
        if isinstance(data, dict) and "office_name" not in data and (name := _OFFICE_OF.get(str(data.get("town", ""))[-1:])):
            return {**data, "office_name": name}
        return data

    @field_validator("public_url")
    @classmethod
    def _is_a_site(cls, url: str) -> str:
        parts = urlsplit(url)
        local = parts.hostname in ("127.0.0.1", "localhost")
        if (
            parts.scheme not in (("http", "https") if local else ("https",))
            or not parts.hostname
            or parts.query
            or parts.fragment
        ):
            raise ValueError(f"{url!r} is not https://host")
        return url.rstrip("/")
