"""occurrence: an event fires, another event ends it. A late event that later facts have overtaken does not fire."""

from typing import Literal

from pydantic import Field, field_validator

from edge.contract.events import EVENTS
from gateway.rules.duration import Duration
from gateway.rules.verdict import Fact, Memory, RuleBase, Verdict


class OccurrenceConfig(RuleBase):
    """`type = "occurrence"`."""

    type: Literal["occurrence"] = Field(description="An event has happened.")
    event: str = Field(description="The event type that fires.")
    until: str | None = Field(None, description="The event type that ends it; absent: `hold` ends it.")
    hold: Duration = Field(600, description="Without `until`: it ends so long after the last such event; told once.")

    @field_validator("event", "until")
    @classmethod
    def _known(cls, name: str | None) -> str | None:
        return known(name, EVENTS, "event type")


class Occurrence:
    """Fires from the event until its end.

    With `until`, a second event means that an end is on its way behind it: it is another thing, and told. Without, events that
    follow each other within `hold` are one thing, and told once.
    """

    metrics: frozenset[str] = frozenset()

    def __init__(self, config: OccurrenceConfig) -> None:
        self._config = config
        self.events = frozenset(filter(None, (config.event, config.until)))
        self.ends = frozenset(filter(None, (config.until,)))
        self.of_silence = config.event == "device_down"

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:  # noqa: ARG002 - every rule takes now
        """Firing at the event, ok at its end; nothing for an event that was over before it was known.

        Order is that of the node's numbers, never of its clock: a clock that was wrong once must not make a trap deaf.
        """
        opened, ended = memory.get("opened"), memory.get("ended")
        if fact.name == self._config.until:
            if fact.is_newer_than(ended):
                memory["ended"] = fact.id
            if not fact.is_newer_than(opened):
                return None  # it ended something that another event has followed
            memory.pop("open", None)
            return Verdict("ok", fact.time_us, reason=fact.name)
        if not fact.is_newer_than(ended) or (fact.late and fact.superseded):
            return None
        if self._config.until is None:
            memory["seen_us"] = max(fact.received_us, memory.get("seen_us", 0))
            if "open" in memory:
                return None
        elif not fact.is_newer_than(opened):
            return None  # a newer one was told already
        elif fact.found and "open" in memory:
            memory["opened"] = fact.id
            return None  # told already: the agent only found it so when it started anew
        memory["opened"], memory["open"] = fact.id, True
        return Verdict("firing", fact.time_us, fact.id, fact.late, fact.name)

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:  # noqa: ARG002
        """Without `until`, quiet for `hold` is the end."""
        if self._config.until is not None or "open" not in memory:
            return None
        memory["seen_us"] = min(memory["seen_us"], now_us)
        if now_us - memory["seen_us"] < self._config.hold * 1_000_000:
            return None
        del memory["open"]
        return Verdict("ok", now_us, reason=f"no more {self._config.event}")


def known(name: str | None, table: object, what: str) -> str | None:
    """`name`, when it stands in the table. ValueError that lists what does."""
    if name is not None and name not in table:  # type: ignore[operator]
        raise ValueError(f"{name!r} is no {what}; there are: {', '.join(sorted(table))}")  # type: ignore[call-overload]
    return name
