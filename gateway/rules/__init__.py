"""The kinds of rule: one module each, listed here and nowhere else.

A rule module holds one pydantic config (`type: Literal[...]`) and one class that is pure: it is handed what it remembers of one
device (`memory`, a JSON object), a fact or a tick, and `now`; it returns the verdict, and may change `memory`. It never
asks for the time, reads a table or sends anything.

    class Occurrence:
        events: frozenset[str]       # event types it wants facts of
        metrics: frozenset[str]      # metrics it wants facts of
        ends: frozenset[str]         # event types that, once committed with a later time, supersede an earlier fact
        def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None: ...
        def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None: ...
"""

from typing import Annotated, Protocol

from pydantic import Field

from gateway.rules.absence import Absence, AbsenceConfig
from gateway.rules.occurrence import Occurrence, OccurrenceConfig
from gateway.rules.rate import Rate, RateConfig
from gateway.rules.threshold import Threshold, ThresholdConfig
from gateway.rules.verdict import Fact, Memory, Verdict

RULES = (
    (OccurrenceConfig, Occurrence),
    (ThresholdConfig, Threshold),
    (AbsenceConfig, Absence),
    (RateConfig, Rate),
)

RuleConfig = Annotated[OccurrenceConfig | ThresholdConfig | AbsenceConfig | RateConfig, Field(discriminator="type")]


class Rule(Protocol):
    """What every rule is."""

    events: frozenset[str]
    metrics: frozenset[str]
    ends: frozenset[str]

    def on_fact(self, memory: Memory, fact: Fact, now_us: int) -> Verdict | None:
        """The verdict after a fact; None where the fact changes nothing."""
        ...

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None) -> Verdict | None:
        """The verdict as time passes; `listening_since_us` is None while the broker is not connected."""
        ...


def build_rule(config: RuleConfig) -> Rule:
    """The rule that a config describes."""
    return next(rule(config) for kind, rule in RULES if isinstance(config, kind))  # type: ignore[arg-type]


__all__ = ["RULES", "Fact", "Memory", "Rule", "RuleConfig", "Verdict", "build_rule"]
