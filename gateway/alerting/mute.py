"""What keeps an alert from being told now: silences, inhibition, maintenance, flapping. Pure; `now` is an argument.

A mute never ends an alert and never hides it: the alert is `suppressed`, says by what, and is told when nothing mutes it any
more. Of several that hold, the first of this order is named: the rule's mode, silence, inhibition, maintenance, flapping.
"""

import datetime as dt
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, NamedTuple
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from pydantic import BaseModel, ConfigDict, Field, field_validator

from edge.contract.names import Name
from gateway.alerting.lifecycle import Alert
from gateway.alerting.route import Match
from gateway.contacts.config import Weekday
from gateway.contacts.quiet import DAYS, wall_us
from gateway.rules.duration import Duration, TimeOfDay

FLAPPING = "flapping"
MODE = "mode"
"""Its rule is for the town's other mode."""

Same = Literal["rule", "kind", "severity", "node", "device"]


class InhibitConfig(BaseModel):
    """One line of `inhibit`: while one thing is known, what follows from it is not told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name = Field(description="What it is called where an alert says what mutes it.")
    source: Match = Field(description="The alert that is known: firing or acknowledged.")
    target: Match = Field(description="The alerts that follow from it, and are muted meanwhile.")
    equal: list[Same] = Field(["node"], description="What both must have in common.")
    hold: Duration = Field(300, description="How long it goes on after the source is over, until all have come back.")

    @field_validator("source", "target")
    @classmethod
    def _says_something(cls, match: Match) -> Match:
        if not match.model_dump(exclude_none=True):
            raise ValueError("an empty match fits every alert; say at least one of kind, rule, severity, node, device")
        return match


class MaintenanceConfig(BaseModel):
    """One line of `maintenance`: hours in which somebody works there, again and again."""

    model_config = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)

    match: Match = Field(Match(), description="Which alerts are muted; absent: all.")
    days: list[Weekday] | None = Field(None, description="Days on which such hours begin; absent: every day.")
    from_: TimeOfDay = Field(alias="from", description="When they begin, in the zone's time: 09:00.")
    to: TimeOfDay = Field(description="When they end; the next day where it is not later than `from`: 12:00.")
    zone: str | None = Field(None, description="IANA zone; absent: the gateway's `time_zone`.")
    why: Annotated[str, Field(min_length=1, max_length=100)] = Field(description="Why, for who wonders: わなの点検.")

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, name: str | None) -> str | None:
        try:
            ZoneInfo(name or "UTC")
        except (ZoneInfoNotFoundError, ValueError) as error:
            raise ValueError(f"{name!r} is no IANA time zone like Asia/Tokyo") from error
        return name


class FlappingConfig(BaseModel):
    """`[flapping]`: when what comes and goes is told no more, until it is quiet. Critical alerts are always told."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    count: Annotated[int, Field(ge=1, le=1000)] = Field(
        6, description="How many alerts of one rule and device are told within `within`; one more says that it flaps."
    )
    within: Duration = Field(3600, ge=1, description="The window; and how long no new one may come until it is told again.")


class Silence(NamedTuple):
    """One row of `silences` that was not ended."""

    id: int
    match: Match
    from_us: int
    until_us: int


@dataclass(frozen=True, slots=True)
class Inhibition:
    """An InhibitConfig, or one that is built in. `*_of_silence`: only alerts of rules that say that nothing was heard."""

    name: str
    source: Match
    target: Match
    equal: tuple[str, ...] = ()
    hold_us: int = 300_000_000
    source_of_silence: bool = False
    target_of_silence: bool = False

    def begins_with(self, alert: Alert, of_silence: frozenset[str]) -> bool:
        """Whether the alert is a source of it, while it is known."""
        return (not self.source_of_silence or alert.rule in of_silence) and self.source.fits(_fields(alert))

    def mutes(self, alert: Alert, source: Alert, of_silence: frozenset[str]) -> bool:
        """Whether the alert is muted by this source. Two sources never mute each other: nobody would be told."""
        return (
            alert.id != source.id
            and (not self.target_of_silence or alert.rule in of_silence)
            and self.target.fits(_fields(alert))
            and all(getattr(alert, name) == getattr(source, name) for name in self.equal)
            and not self.begins_with(alert, of_silence)
        )


# Both only mute that nothing is heard, or that a device is down: a trap that sprang is told whatever else is broken.
BUILT_IN = (
    Inhibition("broker-down", Match(kind="gateway", device="broker"), Match(), target_of_silence=True),
    Inhibition("node-offline", Match(kind="node"), Match(), ("node",), source_of_silence=True, target_of_silence=True),
)


@dataclass(frozen=True, slots=True)
class Muting:
    """What the configuration says of mutes."""

    inhibitions: tuple[Inhibition, ...] = BUILT_IN
    windows: tuple[MaintenanceConfig, ...] = ()
    flapping: FlappingConfig = field(default_factory=FlappingConfig)
    zone: ZoneInfo = field(default_factory=lambda: ZoneInfo("UTC"))

    def sources(self, alert: Alert, of_silence: frozenset[str]) -> bool:
        """Whether the alert is a source of any inhibition."""
        return any(one.begins_with(alert, of_silence) for one in self.inhibitions)

    @property
    def longest_hold_us(self) -> int:
        """The longest time that an inhibition goes on after its source is over."""
        return max((one.hold_us for one in self.inhibitions), default=0)


def muting_of(
    inhibit: Iterable[InhibitConfig], maintenance: Iterable[MaintenanceConfig], flapping: FlappingConfig, zone: ZoneInfo
) -> Muting:
    """Of the configuration's parts; what is built in comes first."""
    own = tuple(Inhibition(one.name, one.source, one.target, tuple(one.equal), one.hold * 1_000_000) for one in inhibit)
    return Muting(BUILT_IN + own, tuple(maintenance), flapping, zone)


class InForce(NamedTuple):
    """The mutes that hold at a moment."""

    silences: tuple[Silence, ...]
    inhibitors: tuple[tuple[Inhibition, Alert], ...]
    windows: tuple[MaintenanceConfig, ...]
    of_silence: frozenset[str]

    @property
    def mark(self) -> tuple[Any, ...]:
        """Equal where nothing that could mute or unmute an alert has changed."""
        who = tuple((one.name, source.id) for one, source in self.inhibitors)
        return tuple(one.id for one in self.silences), who, self.windows


def in_force(
    muting: Muting, silences: Iterable[Silence], sources: Iterable[Alert], of_silence: frozenset[str], now_us: int
) -> InForce:
    """What of it holds now. `sources`: alerts that may inhibit others; `of_silence`: rules that say that nothing was heard."""
    known = tuple(
        (one, source)
        for source in sources
        for one in muting.inhibitions
        if _holds(source, one.hold_us, now_us) and one.begins_with(source, of_silence)
    )
    return InForce(
        tuple(one for one in silences if one.from_us <= now_us < one.until_us),
        known,
        tuple(one for one in muting.windows if is_open(one, now_us, muting.zone)),
        of_silence,
    )


def muted(alert: Alert, force: InForce) -> str | None:
    """Why the alert must not be told, as in `Alert.suppressed_by`; None where nothing of it mutes the alert."""
    fields = _fields(alert)
    for silence in force.silences:
        if silence.match.fits(fields):
            return f"silence:{silence.id}"
    for inhibition, source in force.inhibitors:
        if inhibition.mutes(alert, source, force.of_silence):
            return f"inhibit:{inhibition.name}"
    for window in force.windows:
        if window.match.fits(fields):
            return f"maintenance:{window.why}"
    return None


def is_open(window: MaintenanceConfig, now_us: int, zone: ZoneInfo) -> bool:
    """Whether its hours are now, by a clock on the wall of its zone (`zone` where it names none).

    Where clocks leap over an end of it, it lies at the leap; where they show it twice, the hours are the longer ones.
    """
    zone = ZoneInfo(window.zone) if window.zone else zone
    begins, ends = dt.time.fromisoformat(window.from_), dt.time.fromisoformat(window.to)
    today = dt.datetime.fromtimestamp(now_us // 1_000_000, zone).date()
    for day in (today - dt.timedelta(days=1), today):
        if window.days is not None and DAYS[day.weekday()] not in window.days:
            continue
        end = wall_us(day + dt.timedelta(days=ends <= begins), ends, zone, last=True)
        if wall_us(day, begins, zone) <= now_us < end:
            return True
    return False


@dataclass(slots=True)
class Openings:
    """When one rule's alerts of one subject opened of late. `told`: what opened the alert that said that it flaps."""

    times_us: list[int]
    told: str | None = None

    def opened(self, opening: str, now_us: int, config: FlappingConfig) -> None:
        """One more; the first above `count` is the one that says so."""
        within_us = config.within * 1_000_000
        recent = [at_us for at_us in self.times_us if now_us - within_us < at_us <= now_us]
        self.times_us = [*recent[-config.count :], now_us]
        if self.told is None and len(self.times_us) > config.count:
            self.told = opening

    def is_quiet(self, now_us: int, config: FlappingConfig) -> bool:
        """Whether none has opened for as long as the window is: then it is forgotten, and told again."""
        return not self.times_us or not 0 <= now_us - self.times_us[-1] < config.within * 1_000_000

    def mutes(self, alert: Alert) -> bool:
        """Whether the alert is one of those that are told no more."""
        return self.told is not None and alert.opening != self.told and alert.severity != "critical"


def _holds(source: Alert, hold_us: int, now_us: int) -> bool:
    over_us = source.resolved_us
    return source.state in ("firing", "acknowledged") or (
        source.state == "resolved" and source.fired_us is not None and over_us is not None and now_us < over_us + hold_us
    )


def _fields(alert: Alert) -> dict[str, str]:
    return {
        "kind": alert.kind,
        "rule": alert.rule,
        "severity": alert.severity,
        "node": alert.node,
        "device": alert.device,
    }


def still_inhibits(source: Alert, muting: Muting, now_us: int) -> bool:
    """Whether the source is known, or was until so lately that something still holds on to it."""
    return _holds(source, muting.longest_hold_us, now_us)
