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

from sqlalchemy import Connection, and_, bindparam, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from gateway.alerting.lifecycle import Alert, Move, Subject, advance, alert_id
from gateway.alerting.route import RouteConfig, route_for
from gateway.deployments import Deployments
from gateway.rules import Fact, Memory, Rule, Verdict
from gateway.state import State
from gateway.state.tables import alert_history, alerts, cursors, devices, events, notifications, rule_states
from gateway.state.upsert import upsert, upsert_rows
from gateway.telemetry import Telemetry
from gateway.words import words_for

log = logging.getLogger(__name__)

_FACTS_AT_ONCE = 5000
_SAVE_ALL_US = 10 * 60 * 1_000_000  # what rules remember of time alone may be so old after a crash
_BROKEN = "rule.%s failed on a fact and judges nothing where it fails"
_ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_NEW = select(events).where(events.c.id > bindparam("cursor")).order_by(events.c.id).limit(_FACTS_AT_ONCE)
_OPEN = (
    select(*_ALERT_COLUMNS)
    .where(alerts.c.rule == bindparam("rule"), alerts.c.node == bindparam("node"), alerts.c.device == bindparam("device"))
    .where(alerts.c.state != "resolved")
)
_KNOWN = select(alerts.c.id).where(alerts.c.id == bindparam("id"))
_KIND = select(devices.c.kind).where(devices.c.node == bindparam("node"), devices.c.device == bindparam("device"))
_ADD_ALERT, _ADD_HISTORY, _ADD_NOTIFICATION = insert(alerts), insert(alert_history), insert(notifications)
_CHANGE_ALERT = update(alerts).where(alerts.c.id == bindparam("key"))

_Key = tuple[str, str, str]  # rule, node, device


class WatchedRule(NamedTuple):
    """A rule as configured."""

    name: str
    severity: str
    rule: Rule
    kind: str | None = None  # only devices deployed as this


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
        self._memory: dict[_Key, Memory] = {}
        self._dirty: set[_Key] = set()  # to be saved at the next tick
        self._urgent: set[_Key] = set()  # to be saved with the cursor, or with the alert that follows from it
        self._cursor = 0
        self._ahead = False  # memory is not what was committed: to be read again before it is used
        self._saved_all_us = 0
        self._load()

    def _load(self) -> None:
        """What was remembered, as last committed. At most a second of readings that moved no alert is not in it."""
        with self._state.read() as connection:
            rows = connection.execute(select(rule_states)).all()
            self._cursor = connection.scalar(select(cursors.c.value).where(cursors.c.name == "watch")) or 0
        self._memory = {(row.rule, row.node, row.device): json.loads(row.body) for row in rows if row.rule in self._rules}
        self._dirty.clear()
        self._urgent.clear()
        self._ahead = False

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges the readings and every committed event not judged yet; commits what follows from them.

        After an error nothing of it has happened: the same readings may be handed over again.
        """
        if self._ahead:
            self._load()
        self._ahead = True
        verdicts: list[tuple[WatchedRule, str, str, Verdict]] = []
        for fact in readings:
            for watched in self._on.get(fact.name, ()):
                verdict = self._judge(watched, fact, now_us, self._dirty, only_news=not verdicts)
                # That one more reading is well is the common case and no news, as long as nothing here waits to be committed.
                if verdict is not None:
                    verdicts.append((watched, fact.node, fact.device, verdict))
        while True:
            with self._state.read() as connection:
                new = connection.execute(_NEW, {"cursor": self._cursor}).all()
                for row in new:
                    verdicts += self._judge_event(connection, row, now_us)
            self._commit(verdicts, now_us, new[-1].id if new else None)
            verdicts = []
            if len(new) < _FACTS_AT_ONCE:
                break
        self._ahead = False

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: absence, `for`. Also saves what rules remember, where no alert made that urgent."""
        if self._ahead:
            self._load()
        self._ahead = True
        verdicts = []
        for key, memory in self._memory.items():
            if not memory:
                continue
            watched = self._rules[key[0]]
            try:
                verdict = watched.rule.on_tick(memory, now_us, listening_since_us)
            except Exception:
                if self._is_news(watched):
                    log.exception(_BROKEN, watched.name)
                continue
            if verdict:
                verdicts.append((watched, key[1], key[2], verdict))
        if now_us - self._saved_all_us > _SAVE_ALL_US:
            self._dirty.update(key for key, memory in self._memory.items() if memory)
            self._saved_all_us = now_us
        self._commit(verdicts, now_us, None, save=True)
        self._ahead = False

    def _judge_event(self, connection: Connection, row: Any, now_us: int) -> list[tuple[WatchedRule, str, str, Verdict]]:
        found = []
        for watched in self._on.get(row.type, ()):
            superseded = bool(row.late and watched.rule.ends) and (
                connection.execute(
                    select(events.c.id)
                    .where(events.c.node == row.node, events.c.device == row.device)
                    .where(events.c.type.in_(watched.rule.ends))
                    .where(
                        or_(
                            and_(events.c.epoch == row.epoch, events.c.seq > row.seq),
                            and_(events.c.epoch != row.epoch, events.c.id > row.id),
                        )
                    )
                    .limit(1)
                ).first()
                is not None
            )
            fact = Fact(
                row.node,
                row.device,
                row.type,
                0,
                row.time_us,
                row.received_us,
                row.late,
                f"{row.epoch}:{row.seq}",
                superseded,
                '"found":true' in row.body,
                row.body,
            )
            if verdict := self._judge(watched, fact, now_us, self._urgent):
                found.append((watched, row.node, row.device, verdict))
        return found

    def _judge(
        self, watched: WatchedRule, fact: Fact, now_us: int, changed: set[_Key], *, only_news: bool = False
    ) -> Verdict | None:
        if watched.kind is not None and self._deployments.of(fact.node, fact.device).kind != watched.kind:
            return None
        key = (watched.name, fact.node, fact.device)
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = {}
        changed.add(key)
        try:
            verdict = watched.rule.on_fact(memory, fact, now_us)
        except Exception:
            if self._is_news(watched):
                log.exception(_BROKEN, watched.name)
            return None
        if only_news and verdict is not None and verdict.level == "ok" and memory.get("level", "ok") == "ok":
            return None
        return verdict

    def _is_news(self, watched: WatchedRule) -> bool:
        """One rule's mistake must not stop the others: it is counted each time, and True the first time, to be logged."""
        self._telemetry.rule_errors.labels(watched.name).inc()
        is_news = watched.name not in self._broken
        self._broken.add(watched.name)
        return is_news

    def _commit(
        self, verdicts: list[tuple[WatchedRule, str, str, Verdict]], now_us: int, cursor: int | None, *, save: bool = False
    ) -> None:
        changed = []
        for watched, node, device, verdict in verdicts:
            memory = self._memory[watched.name, node, device]
            # Only a change of level can move an alert: the common case costs no query.
            if memory.get("level", "ok") != verdict.level or (verdict.level != "ok" and memory.get("opening") != verdict.opening):
                memory["level"], memory["opening"] = verdict.level, verdict.opening
                self._urgent.add((watched.name, node, device))
                changed.append((watched, node, device, verdict))
        if save:
            self._urgent |= self._dirty
        if not changed and cursor is None and not self._urgent:
            return
        moves: list[Move] = []
        with self._state.write() as connection:
            for watched, node, device, verdict in changed:
                moves += self._move_guarded(connection, watched, node, device, verdict, now_us)
            if cursor is not None:
                connection.execute(upsert(cursors, "value"), {"name": "watch", "value": cursor})
            if self._urgent:
                rows = [(*key, json.dumps(self._memory[key])) for key in self._urgent]
                upsert_rows(connection, rule_states, ("body",), rows)
        self._dirty -= self._urgent
        self._urgent.clear()
        if cursor is not None:
            self._cursor = cursor
        for move in moves:
            self._say("alert", asdict(move.alert))

    def _move_guarded(
        self, connection: Connection, watched: WatchedRule, node: str, device: str, verdict: Verdict, now_us: int
    ) -> list[Move]:
        """As `_move`, or nothing at all: one alert that can't be moved must not stop the others."""
        try:
            with connection.begin_nested():
                return self._move(connection, watched, node, device, verdict, now_us)
        except OperationalError:
            raise
        except Exception:
            self._telemetry.rule_errors.labels(watched.name).inc()
            log.exception("rule.%s says %s of %s/%s, which could not be written down", watched.name, verdict, node, device)
            self._memory[watched.name, node, device].pop("level", None)  # so that the next verdict tries again
            return []

    def _move(
        self, connection: Connection, watched: WatchedRule, node: str, device: str, verdict: Verdict, now_us: int
    ) -> list[Move]:
        """Moves the device's alert as the verdict says; writes alert, history and notifications."""
        deployment = self._deployments.of(node, device)
        kind = deployment.kind
        if kind == "device":
            kind = connection.scalar(_KIND, {"node": node, "device": device}) or kind
        subject = Subject(watched.name, kind, watched.severity, node, device)
        row = connection.execute(_OPEN, {"rule": watched.name, "node": node, "device": device}).first()
        current = Alert(**row._mapping) if row else None
        if verdict.level != "ok" and (current is None or current.opening != verdict.opening):
            known = connection.scalar(_KNOWN, {"id": alert_id(subject, verdict.opening)})
            if known:
                return []  # this very thing was an alert already, and it is over
        moves = advance(current, verdict, subject, now_us)
        for move in moves:
            self._write_move(connection, move, now_us)
        return moves

    def _write_move(self, connection: Connection, move: Move, now_us: int) -> None:
        alert = move.alert
        if move.before is None:
            connection.execute(_ADD_ALERT, asdict(alert))
        else:
            connection.execute(_CHANGE_ALERT, {"key": alert.id, **asdict(alert)})
        connection.execute(
            _ADD_HISTORY,
            {"alert": alert.id, "at_us": now_us, "before": move.before, "after": alert.state, "who": "rule", "why": move.why},
        )
        if move.tell:
            self._telemetry.alerts.labels(alert.kind).inc()
            self._notify(connection, alert, now_us)

    def _notify(self, connection: Connection, alert: Alert, now_us: int) -> None:
        deployment = self._deployments.of(alert.node, alert.device)
        route = route_for(self._routes, asdict(alert))
        to = list(dict.fromkeys(route.all_steps[0].to)) if route else []
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
                _ADD_NOTIFICATION,
                {"id": id_, "alert": alert.id, "contact": contact, "state": "queued", "created_us": now_us, "due_us": now_us,
                 "severity_rank": ("critical", "warning", "info").index(alert.severity),
                 "body": json.dumps(body, ensure_ascii=False), "attempts": 0},
            )  # fmt: skip


def notification_id(alert: str, contact: str) -> str:
    """The same for the same alert and contact, for ever."""
    return str(uuid.uuid5(uuid.UUID(alert), contact))


def iso(time_us: int) -> str:
    """2026-06-03T06:12:00.000Z."""
    return datetime.fromtimestamp(time_us / 1e6, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
