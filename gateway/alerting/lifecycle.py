"""The life of an alert: pending -> firing -> acknowledged -> resolved. The one table of who may move it, and what a move does.

verdict \\ state   none/resolved     pending            firing            acknowledged
ok                -                 resolved           resolved          resolved
pending           new, pending      -                  -                 -
firing            new, firing *     firing *           -                 -
another opening   -                 resolved, and then as with none

* and only here a message goes out: one a life, whatever is delivered, repeated or replayed afterwards.
A person acknowledges a firing alert; nothing else does. Another opening is another thing: a trap that sprang again while its
reset was still on the way.
"""

import json
import uuid
from dataclasses import dataclass, replace
from typing import Literal

from gateway.rules.verdict import Verdict

State = Literal["pending", "firing", "acknowledged", "shelved", "suppressed", "resolved"]

_NAMESPACE = uuid.UUID("6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d")


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert, as its row. `version` grows with every change; who changes it must have seen the newest."""

    id: str
    rule: str
    kind: str
    severity: str
    node: str
    device: str
    opening: str
    state: State
    since_us: int
    late: bool
    summary: str
    facts: str = "{}"
    count: int = 1
    fired_us: int | None = None
    acknowledged_us: int | None = None
    acknowledged_by: str | None = None
    shelved_until_us: int | None = None
    suppressed_by: str | None = None
    resolved_us: int | None = None
    version: int = 1


@dataclass(frozen=True, slots=True)
class Move:
    """A change of one alert: what it is now, what it was, why, and whether people must be told."""

    alert: Alert
    before: State | None
    why: str
    tell: bool


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about."""

    rule: str
    kind: str
    severity: str
    node: str
    device: str


def alert_id(subject: Subject, opening: str) -> str:
    """The same for the same thing, for ever: a UUID (RFC 9562, version 5) of rule, device and what opened it."""
    return str(uuid.uuid5(_NAMESPACE, f"{subject.rule}/{subject.node}/{subject.device}/{opening}"))


def advance(current: Alert | None, verdict: Verdict, subject: Subject, now_us: int) -> list[Move]:
    """What the verdict does to the device's open alert (None: none is open), in order; an empty list where it does nothing."""
    if current is not None and (verdict.level == "ok" or verdict.opening != current.opening):
        why = verdict.reason if verdict.level == "ok" else f"{verdict.reason} again"
        over = Move(_next(current, state="resolved", resolved_us=now_us), current.state, why, tell=False)
        return [over, *advance(None, verdict, subject, now_us)]
    if verdict.level == "ok":
        return []
    if current is None:
        firing = verdict.level == "firing"
        alert = Alert(
            alert_id(subject, verdict.opening),
            subject.rule,
            subject.kind,
            subject.severity,
            subject.node,
            subject.device,
            verdict.opening,
            "firing" if firing else "pending",
            verdict.since_us,
            verdict.late,
            verdict.reason,
            json.dumps(dict(verdict.facts), ensure_ascii=False),
            verdict.times,
            fired_us=now_us if firing else None,
        )
        return [Move(alert, None, verdict.reason, tell=firing)]
    if current.state == "pending" and verdict.level == "firing":
        return [Move(_next(current, state="firing", fired_us=now_us), "pending", verdict.reason, tell=True)]
    return []


def acknowledge(current: Alert, who: str, now_us: int) -> Alert | None:
    """The alert as acknowledged; None when it is not firing."""
    if current.state != "firing":
        return None
    return _next(current, state="acknowledged", acknowledged_us=now_us, acknowledged_by=who)


def _next(alert: Alert, **changes: object) -> Alert:
    return replace(alert, version=alert.version + 1, **changes)  # type: ignore[arg-type]
