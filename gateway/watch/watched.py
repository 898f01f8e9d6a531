"""A rule as the watch has it, what a subject is kept under, and what a rule says of one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gateway.alerting.lifecycle import Subject
from gateway.deployments import Deployments
from gateway.flow.mode import TownMode
from gateway.rules import SYNTHETIC, Fact, Rule, SubjectRule, Verdict

Key = tuple[str, str, str]
"""Rule, node, device."""
Said = tuple["Taken", Key, Verdict]


class WatchedRule(NamedTuple):
    """A rule as configured."""

    name: str
    severity: str
    rule: Rule | SubjectRule
    kind: str | None = None  # only subjects of this kind
    mode: TownMode | None = None  # told only while the town is in this mode


class Taken(NamedTuple):
    """A WatchedRule, and what it has beside what every rule has."""

    name: str
    severity: str
    rule: Any  # called with one argument more where `by_subject`
    kind: str | None
    mode: TownMode | None
    flaps: bool
    about: Callable[[Fact], Sequence[tuple[str, str]]] | None
    subjects: Callable[[], Iterable[tuple[str, str]]] | None
    by_subject: bool


def taken(one: WatchedRule) -> Taken:
    """With what it has of that."""
    about, subjects = getattr(one.rule, "about", None), getattr(one.rule, "subjects", None)
    flaps = getattr(one.rule, "flaps", True)
    by_subject = about is not None or subjects is not None
    return Taken(one.name, one.severity, one.rule, one.kind, one.mode, flaps, about, subjects, by_subject)


def subject_of(key: Key) -> Subject:
    """As far as an alert's identity goes."""
    rule, node, device = key
    return Subject(rule, "", "", node, device)


def kind_of(deployments: Deployments, node: str, device: str) -> str:
    """A subject's kind."""
    return node if node in SYNTHETIC else deployments.of(node, device).kind
