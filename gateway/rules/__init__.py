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

What a rule judges is a subject (node, device), by default the device that a fact came from. A rule may judge others:

        def about(self, fact: Fact) -> Sequence[tuple[str, str]]: ...       # which subjects a fact concerns
        def subjects(self) -> Iterable[tuple[str, str]]: ...                # judged by ticks even before any fact

With either of them `on_fact` and `on_tick` take one argument more, `subject`. What is no device has one of SYNTHETIC as its
node, which is its kind too: ("watched", a person's id), ("area", a name), ("gateway", a part). A rule's `kind` filters by the
subject's kind. A rule whose verdicts only say that nothing was heard has `of_silence = True`: it is muted while broker or node
are known to be down. One that counts what repeats by itself has `flaps = False`. One whose alerts are of a kind of their own,
whatever stands there, has `alert_kind = "..."`.

The same opening never alerts twice; another opening is another alert, and told. `facts` and `times` of a verdict refresh the open
alert, at most once a second, and tell nobody. `severity` counts when an alert opens.
"""

from collections.abc import Callable
from typing import Annotated, Any, Protocol

from pydantic import Field

from gateway.rules.absence import Absence, AbsenceConfig
from gateway.rules.crowd import Crowd, CrowdConfig
from gateway.rules.detection import Detection, DetectionConfig
from gateway.rules.dossier import Dossier, DossierConfig
from gateway.rules.occurrence import Occurrence, OccurrenceConfig
from gateway.rules.presence import Presence, PresenceConfig
from gateway.rules.rate import Rate, RateConfig
from gateway.rules.round import Round, RoundConfig
from gateway.rules.stuck import Stuck, StuckConfig
from gateway.rules.surroundings import Surroundings
from gateway.rules.threshold import Threshold, ThresholdConfig
from gateway.rules.trap import Trap, TrapConfig
from gateway.rules.trial import Trial, TrialConfig
from gateway.rules.verdict import Fact, Memory, Verdict

RULES: tuple[tuple[type[Any], Callable[[Any, Surroundings], Any]], ...] = (
    (OccurrenceConfig, lambda config, _: Occurrence(config)),
    (ThresholdConfig, lambda config, _: Threshold(config)),
    (AbsenceConfig, lambda config, _: Absence(config)),
    (RateConfig, lambda config, _: Rate(config)),
    (TrapConfig, lambda config, town: Trap(config, town.deployments, pictures_told=town.pictures_told)),
    (RoundConfig, lambda config, town: Round(config, town.deployments, town.zone)),
    (DossierConfig, lambda config, _: Dossier(config)),
    (DetectionConfig, lambda config, town: Detection(config, town.deployments)),
    (CrowdConfig, lambda config, town: Crowd(config, town.areas, town.zone)),
    (StuckConfig, lambda config, town: Stuck(config, town.zone)),
    (PresenceConfig, lambda config, town: Presence(config, town.deployments, town.enrolled, town.zone, town.keep_sightings_s)),
    (TrialConfig, lambda config, _: Trial(config)),
)

RuleConfig = Annotated[
    OccurrenceConfig
    | ThresholdConfig
    | AbsenceConfig
    | RateConfig
    | TrapConfig
    | RoundConfig
    | DossierConfig
    | DetectionConfig
    | CrowdConfig
    | StuckConfig
    | PresenceConfig
    | TrialConfig,
    Field(discriminator="type"),
]


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


class SubjectRule(Protocol):
    """A rule that says what it judges, by `about` or `subjects` or both."""

    events: frozenset[str]
    metrics: frozenset[str]
    ends: frozenset[str]

    def on_fact(self, memory: Memory, fact: Fact, now_us: int, subject: tuple[str, str]) -> Verdict | None:
        """As of a Rule, for one of the subjects that the fact concerns."""
        ...

    def on_tick(self, memory: Memory, now_us: int, listening_since_us: int | None, subject: tuple[str, str]) -> Verdict | None:
        """As of a Rule, for one subject."""
        ...


SYNTHETIC = frozenset({"watched", "area", "gateway"})
"""Nodes of subjects that are no devices; no real node may be called so."""

OWN = "gateway"
"""The rule of the gateway's own parts (gateway.own); no rule of the configuration may be called so."""


def build_rule(config: RuleConfig, town: Surroundings = Surroundings()) -> Rule:  # noqa: B008 - it is immutable
    """The rule that a config describes. What it is told of the town it may not change."""
    rule: Rule = next(make(config, town) for kind, make in RULES if isinstance(config, kind))
    return rule


__all__ = [
    "OWN",
    "RULES",
    "SYNTHETIC",
    "Fact",
    "Memory",
    "Rule",
    "RuleConfig",
    "SubjectRule",
    "Surroundings",
    "Verdict",
    "build_rule",
]
