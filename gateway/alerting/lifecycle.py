"""The life of an alert: the one table of who may move it, and what a move does. Pure: alerts in, moves out, `now` given.

what happens \\ state   none/resolved    pending       firing        acknowledged   shelved        suppressed
ok                     -                resolved      resolved      resolved       resolved       resolved
pending                new, pending     -             -             -              -              -
firing                 new, firing *    firing *      -             -              -              -
firing, while muted    new, suppressed  suppressed    -             -              -              -
another opening        -                resolved, and then as with none: another thing has begun
a mute begins          -                -             suppressed    -              -              (its reason)
the mute ends          -                -             -             -              -              firing **
the shelf's time ends  -                -             -             -              firing *       -
  the same, muted      -                -             -             -              suppressed     -
a person acknowledges  -                -             acknowledged  -              acknowledged   acknowledged
a person shelves       -                -             shelved       shelved        shelved        shelved
a person takes it off  -                -             -             -              its time ends  -
a person resolves      -                resolved      resolved      resolved       resolved       resolved

*  here people are told: once a life, and anew after a shelf, whatever is delivered, repeated or replayed afterwards.
** told here if never told before (or not since a shelf): a mute puts off the first word, it does not repeat it.

shelved: a person said "not before ..."; suppressed: by a silence, an inhibition, a maintenance window, flapping or the town's
mode (ISA-18.2's words). Acknowledged outlives every mute. Another opening is another thing: a trap that sprang again while its
reset was still on the way. What a person does needs the version that they saw, where they say it: an old tap never moves a
newer state.
"""

import json
import uuid
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from gateway.rules.verdict import Verdict

State = Literal["pending", "firing", "acknowledged", "shelved", "suppressed", "resolved"]

OPEN = ("pending", "firing", "acknowledged", "shelved", "suppressed")
RULE = "rule"
"""Who moved it, where no person did."""

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
    """A change of one alert: what it is now, what it was, why, by whom, and whether people must be told."""

    alert: Alert
    before: State | None
    why: str
    tell: bool
    who: str = RULE


@dataclass(frozen=True, slots=True)
class Subject:
    """What an alert is about."""

    rule: str
    kind: str
    severity: str
    node: str
    device: str


Mute = Callable[[Alert], str | None]
"""Why an alert must not be told now, as in `Alert.suppressed_by`; None: nothing mutes it."""


def alert_id(subject: Subject, opening: str) -> str:
    """The same for the same thing, for ever: a UUID (RFC 9562, version 5) of rule, device and what opened it."""
    return str(uuid.uuid5(_NAMESPACE, f"{subject.rule}/{subject.node}/{subject.device}/{opening}"))


def advance(current: Alert | None, verdict: Verdict, subject: Subject, now_us: int, muted: Mute = lambda _: None) -> list[Move]:
    """What the verdict does to the subject's open alert (None: none is open), in order; an empty list where it does nothing."""
    if current is not None and (verdict.level == "ok" or verdict.opening != current.opening):
        why = verdict.reason if verdict.level == "ok" else f"{verdict.reason} again"
        return [_over(current, why, RULE, now_us), *advance(None, verdict, subject, now_us, muted)]
    if verdict.level == "ok":
        return []
    if current is None:
        alert = Alert(
            alert_id(subject, verdict.opening),
            subject.rule,
            subject.kind,
            verdict.severity or subject.severity,
            subject.node,
            subject.device,
            verdict.opening,
            "pending",
            verdict.since_us,
            verdict.late,
            verdict.reason,
            facts_json(verdict),
            verdict.times,
        )
        if verdict.level == "pending":
            return [Move(alert, None, verdict.reason, tell=False)]
        return [_fire(alert, None, verdict.reason, muted(alert), now_us)]
    if current.state == "pending" and verdict.level == "firing":
        return [_fire(_next(current), "pending", verdict.reason, muted(current), now_us)]
    return []


def settle(current: Alert, now_us: int, reason: str | None) -> Move | None:
    """What time and mutes do to an open alert by themselves; `reason` is what mutes it now. None where nothing changes."""
    if current.state == "shelved" and now_us >= (current.shelved_until_us or 0):
        fresh = _next(current, shelved_until_us=None, fired_us=None, acknowledged_us=None, acknowledged_by=None)
        return _fire(fresh, "shelved", "its time is over", reason, now_us)
    if current.state == "suppressed" and reason is None:
        first = current.fired_us is None
        fired = _next(current, state="firing", suppressed_by=None, fired_us=now_us if first else current.fired_us)
        return Move(fired, "suppressed", f"{current.suppressed_by} ended", tell=first)
    if current.state in ("firing", "suppressed") and reason is not None and reason != current.suppressed_by:
        return Move(_next(current, state="suppressed", suppressed_by=reason), current.state, reason, tell=False)
    return None


def acknowledge(current: Alert, who: str, now_us: int) -> Alert | None:
    """The alert as acknowledged; None when it is not firing, shelved or suppressed."""
    if current.state not in ("firing", "shelved", "suppressed"):
        return None
    changes = {"acknowledged_us": now_us, "acknowledged_by": who, "shelved_until_us": None, "suppressed_by": None}
    return _next(current, state="acknowledged", **changes)


def shelve(current: Alert, until_us: int) -> Alert | None:
    """The alert as shelved until then; None when it is pending or over."""
    if current.state in ("pending", "resolved"):
        return None
    return _next(current, state="shelved", shelved_until_us=until_us, suppressed_by=None)


def unshelve(current: Alert, now_us: int) -> Alert | None:
    """The alert with its shelf's time ending now: whether it fires or is muted, the next tick says. None when not shelved."""
    return _next(current, shelved_until_us=now_us) if current.state == "shelved" else None


def resolve(current: Alert, who: str, why: str, now_us: int) -> Move | None:
    """A person says that it is over; None when it is already."""
    return None if current.state == "resolved" else _over(current, why, who, now_us)


def facts_json(verdict: Verdict) -> str:
    """The verdict's facts as an alert keeps them: the same text for the same facts. What is no JSON is kept as its text: a
    rule's mistake in what the words need must not cost the alert.
    """
    return json.dumps({str(name): fact for name, fact in verdict.facts.items()}, ensure_ascii=False, sort_keys=True, default=str)


def _fire(alert: Alert, before: State | None, why: str, reason: str | None, now_us: int) -> Move:
    if reason is not None:
        return Move(replace(alert, state="suppressed", suppressed_by=reason), before, f"{why}; {reason}", tell=False)
    return Move(replace(alert, state="firing", fired_us=now_us), before, why, tell=True)


def _over(alert: Alert, why: str, who: str, now_us: int) -> Move:
    over = _next(alert, state="resolved", resolved_us=now_us, shelved_until_us=None, suppressed_by=None)
    return Move(over, alert.state, why, tell=False, who=who)


def _next(alert: Alert, **changes: object) -> Alert:
    return replace(alert, version=alert.version + 1, **changes)  # type: ignore[arg-type]
