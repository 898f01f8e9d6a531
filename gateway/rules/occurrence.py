"""occurrence: an event fires, another event ends it. A late event that later facts have overtaken does not fire."""

from typing import Literal

from pydantic import Field, field_validator

from edge.contract.events import EVENTS
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict


class OccurrenceConfig(RuleBase):
    """`type = "occurrence"`."""

    type: Literal["occurrence"]
    event: str = Field(description="The event type that fires.")
    until: str | None = Field(None, description="The event type that ends it; absent: a person ends it.")

    @field_validator("event", "until")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return known(name, EVENTS, "event type")


class Occurrence:
    """Fires from the event until its end."""

    metrics: frozenset[str] = frozenset()

    def __init__(self, config: OccurrenceConfig) -> None:
        self._config = config
        self.events = frozenset(filter(None, (config.event, config.until)))
        self.ends = frozenset(filter(None, (config.until,)))

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:  # noqa: ARG002 - every rule takes now
        """Firing at the event, ok at its end; nothing for an event that was over before it was known."""
        if fact.name == self._config.until:
            memory["ended_us"] = max(fact.time_us, memory.get("ended_us", 0))
            return Verdict("ok", fact.time_us, reason=fact.name) if fact.time_us >= memory.get("since_us", 0) else None
        if fact.time_us < memory.get("ended_us", 0) or (fact.late and fact.superseded):
            return None
        memory["since_us"] = fact.time_us
        return Verdict("firing", fact.time_us, fact.id, fact.late, fact.name)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """Time alone changes nothing."""
        return None


def known(name: str | None, table: object, what: str) -> str | None:
    """`name`, when it stands in the table. ValueError that lists what does."""
    if name is not None and name not in table:  # type: ignore[operator]
        raise ValueError(f"{name!r} is no {what}; there are: {', '.join(sorted(table))}")  # type: ignore[call-overload]
    return name
