"""From committed facts to alerts and notifications: rules -> life cycle -> route, in ONE transaction with the cursor.

Facts come in the order of their commit. Events are read back from the table behind a cursor, so a crash between the facts'
commit and this one only repeats the work; an alert's and a notification's id come from what opened it, so the
repetition changes nothing. Readings are handed over by the pipeline before they are acknowledged.
"""

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, bindparam, insert, select, update

from gateway.alerting.lifecycle import Alert, Move, Subject, advance, alert_id
from gateway.alerting.route import RouteConfig, contacts_for
from gateway.deployments import Deployments
from gateway.rules import Fact, Memory, Rule, Verdict
from gateway.state import State
from gateway.state.tables import alert_history, alerts, cursors, devices, events, notifications, rule_states
from gateway.state.upsert import upsert
from gateway.telemetry import Telemetry
from gateway.words import words_for

log = logging.getLogger(__name__)

_FACTS_AT_ONCE = 5000
_ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]

_Key = tuple[str, str, str]  # rule, node, device


class WatchedRule(NamedTuple):
    """A rule as configured."""

    name: str
    severity: str
    rule: Rule


class Watch:
    """Runs in one thread, the only one that moves alerts by verdicts."""

    def __init__(
        self,
        state: State,
        rules: Sequence[WatchedRule],
        routes: Sequence[RouteConfig],
        deployments: Deployments,
        zone: ZoneInfo,
        telemetry: Telemetry,
        say: Callable[[str, dict[str, Any]], None],
    ) -> None:
        """`say(kind, body)` tells the live stream what was committed."""
        self._state, self._routes, self._deployments, self._zone = state, routes, deployments, zone
        self._telemetry, self._say = telemetry, say
        self._rules = {rule.name: rule for rule in rules}
        self._on: dict[str, list[WatchedRule]] = defaultdict(list)
        for rule in rules:
            for name in rule.rule.events | rule.rule.metrics:
                self._on[name].append(rule)
        self.metrics = frozenset().union(*(rule.rule.metrics for rule in rules))
        """The metrics that some rule wants to see."""
        self._broken: set[str] = set()
        self._load()

    def _load(self) -> None:
        """What was remembered, as last committed."""
        self._memory: dict[_Key, Memory] = {}
        self._dirty: set[_Key] = set()
        with self._state.read() as connection:
            for row in connection.execute(select(rule_states)):
                if row.rule in self._rules:
                    self._memory[row.rule, row.node, row.device] = json.loads(row.body)
            cursor = connection.scalar(select(cursors.c.value).where(cursors.c.name == "watch"))
            self._cursor: int = cursor or 0

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges the readings and every committed event not judged yet; commits what follows from them."""
        verdicts = [
            (watched, fact.node, fact.device, verdict)
            for fact in readings
            for watched in self._on.get(fact.name, ())
            if (verdict := self._judge(watched, fact, now_us))
        ]
        try:
            while True:
                with self._state.read() as connection:
                    new = connection.execute(
                        select(events).where(events.c.id > self._cursor).order_by(events.c.id).limit(_FACTS_AT_ONCE)
                    ).all()
                    for row in new:
                        verdicts += self._judge_event(connection, row, now_us)
                self._commit(verdicts, now_us, new[-1].id if new else None)
                verdicts = []
                if len(new) < _FACTS_AT_ONCE:
                    return
        except BaseException:
            self._load()  # memory ran ahead of what was committed
            raise

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: absence, `for`. Also saves what rules remember, where no alert made that urgent."""
        verdicts = []
        for key, memory in self._memory.items():
            watched = self._rules[key[0]]
            if memory and (verdict := self._guarded(watched, memory, lambda w, m: w.rule.on_tick(m, now_us, listening_since_us))):
                verdicts.append((watched, key[1], key[2], verdict))
        try:
            self._commit(verdicts, now_us, None, save=True)
        except BaseException:
            self._load()
            raise

    def _judge_event(self, connection: Connection, row: Any, now_us: int) -> list[tuple[WatchedRule, str, str, Verdict]]:
        found = []
        for watched in self._on.get(row.type, ()):
            superseded = bool(row.late and watched.rule.ends) and (
                connection.execute(
                    select(events.c.id)
                    .where(events.c.node == row.node, events.c.device == row.device)
                    .where(events.c.time_us > row.time_us, events.c.type.in_(watched.rule.ends))
                    .limit(1)
                ).first()
                is not None
            )
            fact = Fact(
                row.node, row.device, row.type, 0, row.time_us, row.received_us, row.late, f"{row.epoch}:{row.seq}", superseded
            )
            if verdict := self._judge(watched, fact, now_us):
                found.append((watched, row.node, row.device, verdict))
        return found

    def _judge(self, watched: WatchedRule, fact: Fact, now_us: int) -> Verdict | None:
        key = (watched.name, fact.node, fact.device)
        memory = self._memory.setdefault(key, {})
        self._dirty.add(key)
        return self._guarded(watched, memory, lambda w, m: w.rule.on_fact(m, fact, now_us))

    def _guarded(
        self, watched: WatchedRule, memory: Memory, call: Callable[[WatchedRule, Memory], Verdict | None]
    ) -> Verdict | None:
        """One rule's mistake must not stop the others: it is logged once and counted each time."""
        try:
            return call(watched, memory)
        except Exception:
            self._telemetry.rule_errors.labels(watched.name).inc()
            if watched.name not in self._broken:
                self._broken.add(watched.name)
                log.exception("rule.%s failed on a fact and judges nothing where it fails", watched.name)
            return None

    def _commit(
        self, verdicts: list[tuple[WatchedRule, str, str, Verdict]], now_us: int, cursor: int | None, *, save: bool = False
    ) -> None:
        changed = []
        for watched, node, device, verdict in verdicts:
            memory = self._memory[watched.name, node, device]
            # Only a change of level can move an alert: the common case costs no query.
            if memory.get("level", "ok") != verdict.level or (verdict.level != "ok" and memory.get("opening") != verdict.opening):
                memory["level"], memory["opening"] = verdict.level, verdict.opening
                self._dirty.add((watched.name, node, device))
                changed.append((watched, node, device, verdict))
        if not changed and cursor is None and not (save and self._dirty):
            return
        moves: list[Move] = []
        with self._state.write() as connection:
            for watched, node, device, verdict in changed:
                if move := self._move(connection, watched, node, device, verdict, now_us):
                    moves.append(move)
            if cursor is not None:
                connection.execute(upsert(cursors, "value"), {"name": "watch", "value": cursor})
            if self._dirty:
                rows = [
                    {"rule": rule, "node": node, "device": device, "body": json.dumps(self._memory[rule, node, device])}
                    for rule, node, device in self._dirty
                ]
                connection.execute(upsert(rule_states, "body"), rows)
        self._dirty.clear()
        if cursor is not None:
            self._cursor = cursor
        for move in moves:
            self._say("alert", asdict(move.alert))

    def _move(
        self, connection: Connection, watched: WatchedRule, node: str, device: str, verdict: Verdict, now_us: int
    ) -> Move | None:
        """Moves the device's alert as the verdict says; writes alert, history and notifications."""
        deployment = self._deployments.of(node, device)
        kind = deployment.kind
        if kind == "device":
            kind = connection.scalar(select(devices.c.kind).where(devices.c.node == node, devices.c.device == device)) or kind
        subject = Subject(watched.name, kind, watched.severity, node, device)
        row = connection.execute(
            select(*_ALERT_COLUMNS)
            .where(alerts.c.rule == watched.name, alerts.c.node == node, alerts.c.device == device)
            .where(alerts.c.state != "resolved")
        ).first()
        current = Alert(**row._mapping) if row else None
        if current is None and verdict.level != "ok":
            known = connection.scalar(select(alerts.c.id).where(alerts.c.id == alert_id(subject, verdict.opening)))
            if known:
                return None  # this very thing was an alert already, and it is over
        move = advance(current, verdict, subject, now_us)
        if move is None:
            return None
        alert = move.alert
        if move.before is None:
            connection.execute(insert(alerts), asdict(alert))
        else:
            connection.execute(update(alerts).where(alerts.c.id == bindparam("key")), {"key": alert.id, **asdict(alert)})
        connection.execute(
            insert(alert_history),
            {"alert": alert.id, "at_us": now_us, "before": move.before, "after": alert.state, "who": "rule", "why": move.why},
        )
        if move.tell:
            self._telemetry.alerts.labels(alert.kind).inc()
            self._notify(connection, alert, now_us)
        return move

    def _notify(self, connection: Connection, alert: Alert, now_us: int) -> None:
        deployment = self._deployments.of(alert.node, alert.device)
        to = contacts_for(self._routes, {"kind": alert.kind, "rule": alert.rule, "severity": alert.severity,
                                         "node": alert.node, "device": alert.device})  # fmt: skip
        if not to:
            log.error("alert %s of rule.%s: no route fits, nobody is told", alert.id, alert.rule)
        title, text = words_for(alert, deployment, self._zone, now_us)
        for contact in to:
            id_ = notification_id(alert.id, contact)
            body = {
                "id": id_,
                "alert": alert.id,
                "kind": alert.kind,
                "rule": alert.rule,
                "severity": alert.severity,
                "title": title,
                "body": text,
                "late": alert.late,
                "place": deployment.place,
                "label": deployment.label,
                "node": alert.node,
                "device": alert.device,
                "event_time": iso(alert.since_us),
                "alert_time": iso(now_us),
            }
            connection.execute(
                insert(notifications),
                {"id": id_, "alert": alert.id, "contact": contact, "state": "queued", "created_us": now_us, "due_us": now_us,
                 "body": json.dumps(body, ensure_ascii=False), "attempts": 0},
            )  # fmt: skip


def notification_id(alert: str, contact: str) -> str:
    """The same for the same alert and contact, for ever."""
    return str(uuid.uuid5(uuid.UUID(alert), contact))


def iso(time_us: int) -> str:
    """2026-06-03T06:12:00.000Z."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
