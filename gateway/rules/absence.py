"""absence: a device that spoke before has been silent for too long. Counts received time, and only while we listen."""

from typing import Literal

from pydantic import Field, field_validator

from edge.contract.events import EVENTS
from edge.contract.metrics import METRICS
from gateway.rules.duration import Duration
from gateway.rules.occurrence import known
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict


class AbsenceConfig(RuleBase):
    """`type = "absence"`."""

    type: Literal["absence"] = Field(description="A device has been silent for too long.")
    of: str = Field(description="The metric or event type that should keep coming.")
    for_s: Duration = Field(alias="for", ge=1, description="Silence after which it fires.")

    @field_validator("of")
    @classmethod
    def _known(cls, name: str) -> str | None:
        return known(name, {**METRICS, **EVENTS}, "metric or event type")


class Absence:
    """Fires after `for` of silence, ends at the next word. Silence that we could not have heard does not count."""

    ends: frozenset[str] = frozenset()
    of_silence = True

    def __init__(self, config: AbsenceConfig) -> None:
        self._config = config
        self.metrics = frozenset((config.of,)) & METRICS.keys()
        self.events = frozenset((config.of,)) & EVENTS.keys()

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """The device spoke. A reading sent again, because the series store is down, is no new word."""
        said_us = min(fact.time_us, fact.received_us)
        if said_us <= memory.get("said_us", 0) <= now_us:
            return None
        memory["said_us"] = said_us
        memory["heard_us"] = memory["listened_us"] = fact.received_us
        memory["deaf_us"] = 0
        return Verdict("ok", fact.received_us, reason=fact.name)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:
        """Silent too long?"""
        heard_us = memory.get("heard_us")
        if heard_us is None or listening_since_us is None:
            return None
        if heard_us > now_us:  # our own clock was ahead then
            heard_us = memory["heard_us"] = memory["listened_us"] = now_us
        # Time in which nobody listened is taken off, not counted from: a gateway that starts anew each night would
        # never get to the end of a day's silence.
        memory["deaf_us"] += max(listening_since_us - memory["listened_us"], 0)
        memory["listened_us"] = max(now_us, listening_since_us)
        if now_us - heard_us - memory["deaf_us"] < self._config.for_s * 1_000_000:
            return None
        return Verdict("firing", heard_us, str(heard_us), reason=f"no {self._config.of}")
