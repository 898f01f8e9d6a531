"""The dead-man inside: once a day a real test alarm walks the whole way, from the broker to a named phone, and is answered there.

It is published like any node's record, under a name that no node can have, and is known as arrived by nothing but the ledger: not
sent in time, or not answered in time, is a condition of the gateway that the office is told of. Goes by level: each look says
what is so now, so that a restart changes nothing.
"""

import datetime as dt
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from pydantic import BaseModel, ConfigDict, Field
from sqlalchemy import Connection, or_, select

from edge.contract.events import AlarmTest
from edge.contract.messages import Batch, encode
from edge.contract.names import Name
from edge.contract.topics import Channel, Topic, topic_for
from gateway.alerting.route import Match, RouteConfig
from gateway.rules.duration import Duration, TimeOfDay
from gateway.rules.trial import TrialConfig
from gateway.state import State
from gateway.state.tables import alerts, answers, cursors, events, notifications, page_alerts
from gateway.state.upsert import upsert

CANARY = "canary"
"""Its node, its device, its rule, its route. No real node may be called so, and brokers let the gateway speak for it."""

EVERY_S = 10.0
_EPOCH, _BOOT = "ca0a7e11ca0a7e11", "ca0a7e11ca0a7e12"
_DAY, _SEQ, _BEGUN = "canary day", "canary seq", "canary begun_us"
_UNANSWERED = 3
"""It may stay unanswered for so many times `within`."""

Publish = Callable[[str, bytes], None]
Condition = Callable[[str, str, str, Mapping[str, Any], str], object]
"""condition(part, level, reason, facts, opening): a part of the gateway is `ok` or `firing`. gateway.own has one."""


class CanaryConfig(BaseModel):
    """`[canary]`: a test alarm each day, the whole way to a phone."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    at: TimeOfDay = Field("09:00", description="When, in the gateway's `time_zone`.")
    to: Name = Field(description="The group or contact that gets it, and answers that it came.")
    within: Duration = Field(1800, description="How long it may take to the phone; three times that, to the answer.")

    @property
    def rule(self) -> TrialConfig:
        """The rule that is built in for it, named `canary`. It fits an installer's test alarm too."""
        return TrialConfig(type="trial", severity="warning", hold=_UNANSWERED * self.within + 600)

    @property
    def route(self) -> RouteConfig:
        """The route that is built in for it, before those of the configuration."""
        return RouteConfig(name=CANARY, match=Match(rule=CANARY), to=[self.to])


class _Run(NamedTuple):
    """One day's canary."""

    seq: int
    begun_us: int


class Canary:
    """`run` is a chore."""

    def __init__(self, state: State, config: CanaryConfig, zone: ZoneInfo, publish: Publish, condition: Condition) -> None:
        """`publish(topic, payload)`: to the gateway's own broker, when that is connected; may be lost."""
        self._state, self._zone, self._publish, self._condition = state, zone, publish, condition
        self._at = dt.time.fromisoformat(config.at)
        self._within_us = config.within * 1_000_000

    def run(self, now_us: int) -> None:
        """Begins today's when it is time, publishes it until it is durable, and says what is known of it."""
        current = self._begin(now_us)
        if current is None:
            return
        with self._state.read() as connection:
            arrived = _has_arrived(connection, current)
            sent, answered = _told(connection, current) if arrived else (False, False)
        age_us = now_us - current.begun_us
        if not arrived and age_us < self._within_us:
            self._publish(*message(current.seq, current.begun_us, now_us))
        facts, opening = {"at_us": current.begun_us}, str(current.seq)
        if sent or answered:
            self._condition("canary_lost", "ok", "the test alarm arrived", facts, opening)
        elif age_us >= self._within_us:
            where = "was not sent to a phone" if arrived else "did not come back from the broker"
            self._condition("canary_lost", "firing", f"the test alarm {where}", facts, opening)
        if answered:
            self._condition("canary", "ok", "the test alarm was answered", facts, opening)
        elif sent and age_us >= _UNANSWERED * self._within_us:
            self._condition("canary", "firing", "the test alarm was not answered", facts, opening)

    def _begin(self, now_us: int) -> _Run | None:
        """The newest one: today's, begun now when its time has come, and otherwise an earlier day's. None where none ever was."""
        day = due_day(now_us, self._at, self._zone)
        with self._state.read() as connection:
            known = _known(connection)
        if day is None or known.get(_DAY, 0) >= day:
            return _Run(known[_SEQ], known[_BEGUN]) if _SEQ in known else None
        begun = _Run(known.get(_SEQ, 0) + 1, now_us)
        with self._state.write() as connection:
            # Durable before it is published: whatever happens from here on, this day has had its one.
            rows = [{"name": name, "value": value} for name, value in ((_DAY, day), (_SEQ, begun.seq), (_BEGUN, now_us))]
            connection.execute(upsert(cursors, "value"), rows)
        return begun


def due_day(now_us: int, at: dt.time, zone: ZoneInfo) -> int | None:
    """Today, as a date's ordinal, once `at` has come there; None before. An hour that a day lacks comes with the next one,
    and of one that it has twice the first counts.
    """
    now = dt.datetime.fromtimestamp(now_us / 1e6, dt.UTC)
    today = now.astimezone(zone).date()
    due = dt.datetime.combine(today, at, tzinfo=zone).astimezone(dt.UTC)
    return today.toordinal() if now >= due else None


def message(seq: int, begun_us: int, now_us: int) -> tuple[str, bytes]:
    """Topic and payload of one test alarm: the same record however often it is said."""
    # Its monotonic clock is the gateway's own, so that every batch agrees on when it was 0.
    batch = Batch(
        v=1, epoch=_EPOCH, boot=_BOOT, clock="sync", t0=begun_us, mono0=begun_us, sent=now_us, sent_mono=now_us,
        readings=[], lost=[], events=[AlarmTest.model_validate(
            {"seq": seq, "dt": 0, "device": CANARY, "type": "test_alarm", "class": "alarm", "token": f"{seq:016x}"}
        )],
    )  # fmt: skip
    return topic_for(Topic(CANARY, Channel.LIVE)), encode(batch)


def _known(connection: Connection) -> dict[str, int]:
    rows = connection.execute(select(cursors).where(cursors.c.name.in_((_DAY, _SEQ, _BEGUN))))
    return {row.name: row.value for row in rows}


def _has_arrived(connection: Connection, run: _Run) -> bool:
    query = select(events.c.id).where(events.c.node == CANARY, events.c.epoch == _EPOCH, events.c.seq == run.seq)
    return connection.execute(query).first() is not None


def _told(connection: Connection, run: _Run) -> tuple[bool, bool]:
    """Whether a phone was sent it, and whether somebody answered."""
    mine = (alerts.c.rule == CANARY, alerts.c.node == CANARY, alerts.c.opening == f"{_EPOCH}:{run.seq}")
    alert = select(alerts.c.id).where(*mine).scalar_subquery()
    paged = select(page_alerts.c.page).where(page_alerts.c.alert == alert)
    rows = connection.execute(
        select(notifications.c.sent_us, notifications.c.seen_us, notifications.c.answered_us).where(
            or_(notifications.c.alert == alert, notifications.c.page.in_(paged)), notifications.c.kind != "office"
        )
    ).all()
    said = connection.execute(select(answers.c.id).where(answers.c.page.in_(paged))).first() is not None
    answered = said or any(row.answered_us is not None or row.seen_us is not None for row in rows)
    return any(row.sent_us is not None for row in rows), answered
