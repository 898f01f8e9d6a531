"""What was committed, as memory has it: what rules remember and said last, and which alerts are open. And how it is saved."""

import json
import logging
from collections.abc import Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from gateway.alerting.lifecycle import OPEN, Alert, alert_id, facts_json
from gateway.alerting.mute import Openings
from gateway.keeping.places import PLACES
from gateway.mimamori.enrolled import WATCHED
from gateway.rules import Memory, Verdict
from gateway.state import tables
from gateway.state.tables import alert_history, alerts, cursors, rule_states
from gateway.state.upsert import upsert_rows
from gateway.watch.watched import Key, Said, Taken, subject_of

log = logging.getLogger(__name__)

ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]
_OWN = "watch"  # the watch's part of what is saved of a rule and subject

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
ALL_OPEN = select(*ALERT_COLUMNS).where(alerts.c.state.in_(OPEN)).order_by(alerts.c.since_us)
CHANGES = select(func.max(alert_history.c.id))
_PEOPLE = select(tables.watched.c.id)


class Known:
    """Used by the watch's thread only. What is changed here and not saved yet stands in `dirty`, `urgent` and `refresh`."""

    def __init__(self, rules: Mapping[str, Taken]) -> None:
        self._rules = rules
        self._orphans: set[str] = set()  # names of rules with alerts that no rule can end
        self.memory: dict[Key, Memory] = {}
        self.standing: dict[Key, Verdict] = {}  # the last verdict where it is not ok
        self.openings: dict[Key, Openings] = {}  # of what opened of late
        self.open: dict[Key, Alert] = {}
        self.over: set[str] = set()  # ids of what stands and is over all the same: a person said so
        self.cursor = 0
        self.dirty: set[Key] = set()  # to be saved at the next tick
        self.urgent: set[Key] = set()  # to be saved with the cursor, or with the alert that follows from it
        self.refresh: set[Key] = set()  # whose alert should get newer facts
        self.changes: int | None = None  # the newest line of history that `open` knows of; None: to be read anew

    def load(self, connection: Connection) -> None:
        """What was remembered, as last committed. At most a second of readings that moved no alert is not in it."""
        rows = connection.execute(select(rule_states)).all()
        self.cursor = connection.scalar(select(cursors.c.value).where(cursors.c.name == "watch")) or 0
        self.read_open(connection)
        self.memory, self.standing, self.openings = {}, {}, {}
        for row in rows:
            if row.rule in self._rules:
                self._remember((row.rule, row.node, row.device), json.loads(row.body))
        self._say_orphans()
        self.changes = None  # the next tick compares
        self.over.clear()
        self.dirty.clear()
        self.urgent.clear()
        self.refresh.clear()

    def read_open(self, connection: Connection) -> None:
        """Every alert that is open, and when that was so."""
        self.changes = connection.scalar(CHANGES) or 0
        self.open = {}
        for row in connection.execute(ALL_OPEN):
            alert = Alert(**row._mapping)
            self.open[alert.rule, alert.node, alert.device] = alert

    def _say_orphans(self) -> None:
        """Of a rule that was taken out of the configuration nobody says any more whether its alert is over: a person must."""
        orphans = {key[0] for key in self.open if key[0] not in self._rules}
        if orphans - self._orphans:
            log.warning("alerts of rules that are not configured any more stay open (%s): resolve them, or configure the rules",
                        ", ".join(sorted(orphans)))  # fmt: skip
        self._orphans = orphans

    def _remember(self, key: Key, body: dict[str, Any]) -> None:
        own = body.pop(_OWN, None)
        if own is None and body.keys() >= {"level", "opening"}:  # as earlier releases wrote it
            level, opening, row = body.pop("level"), body.pop("opening"), self.open.get(key)
            if level != "ok" and row is not None and row.opening == opening:
                facts = json.loads(row.facts)
                self.standing[key] = Verdict(level, row.since_us, opening, row.late, row.summary, facts, row.count)
        elif own is not None:
            if own["standing"] is not None:
                self.standing[key] = Verdict(*own["standing"])
            if own["openings"] is not None:
                self.openings[key] = Openings(*own["openings"])
        self.memory[key] = body

    # What is new

    def changed_by(self, verdicts: Iterable[Said]) -> list[Said]:
        """Those that can move an alert; each stands from now on, and is to be saved."""
        changed: list[Said] = []
        for said in verdicts:
            _, key, verdict = said
            if self._is_change(key, verdict):
                if verdict.level == "ok":
                    self.standing.pop(key, None)
                else:
                    self.standing[key] = verdict
                    self.refresh.add(key)
                self.urgent.add(key)
                changed.append(said)
        return changed

    def _is_change(self, key: Key, verdict: Verdict) -> bool:
        """Whether the verdict can move an alert: the common case is that it can't, and costs no query. Keeps what stands."""
        standing = self.standing.get(key)
        if verdict.level == "ok":
            return standing is not None or key in self.open
        if standing is None or standing.level != verdict.level or standing.opening != verdict.opening:
            return True
        if standing.times != verdict.times or standing.facts != verdict.facts:
            self.standing[key] = verdict
            self.dirty.add(key)
            self.refresh.add(key)
        row = self.open.get(key)
        missed = row is None or row.opening != verdict.opening or (row.state == "pending" and verdict.level == "firing")
        return missed and alert_id(subject_of(key), verdict.opening) not in self.over

    def against_rows(self) -> list[Said]:
        """What stands and what the rows say, where they disagree: an edge was missed.

        Of a subject that nothing is remembered of nobody can say that it is well: its alert stays.
        """
        found: list[Said] = []
        for key, alert in self.open.items():
            if key not in self.standing and self.memory.get(key) and key[0] in self._rules:
                found.append((self._rules[key[0]], key, Verdict("ok", alert.since_us, reason="no longer so")))
        for key, verdict in self.standing.items():
            row = self.open.get(key)
            same = row is not None and row.opening == verdict.opening
            if not (same and (row.state != "pending" or verdict.level == "pending")):  # type: ignore[union-attr]
                found.append((self._rules[key[0]], key, verdict))
        return found

    def moved(self, alert: Alert) -> None:
        """An alert was moved, and that is committed."""
        key = (alert.rule, alert.node, alert.device)
        if alert.state != "resolved":
            self.open[key] = alert
        elif key in self.open and self.open[key].id == alert.id:
            del self.open[key]
        self.changes = None  # others may have moved alerts in between: rows are read anew at the next tick

    # What is saved

    def save(self, connection: Connection) -> None:
        """What is urgent. `saved` says that it is committed."""
        if self.urgent:
            upsert_rows(connection, rule_states, ("body",), [(*key, self._body(key)) for key in self.urgent])

    def saved(self) -> None:
        """What was urgent is committed."""
        self.dirty -= self.urgent
        self.urgent.clear()

    def _body(self, key: Key) -> str:
        standing, openings = self.standing.get(key), self.openings.get(key)
        if standing is None and openings is None:
            return json.dumps(self.memory[key], default=str)
        own = {
            "standing": None if standing is None else [*standing[:5], json.loads(facts_json(standing)), *standing[6:]],
            "openings": None if openings is None else [openings.times_us, openings.told],
        }
        return json.dumps({**self.memory[key], _OWN: own}, ensure_ascii=False, default=str)

    # What is erased

    def forget_erased(self, connection: Connection) -> set[Key]:
        """Lets go of who is not watched over any more, so that nothing of them is written again; what that was of."""
        here = set(connection.scalars(_PEOPLE))
        known = {*self.memory, *self.standing, *self.openings, *self.open}
        gone = {key for key in known if key[1] == WATCHED and key[2] not in here}
        for held in (self.memory, self.standing, self.openings, self.open):
            for key in gone:
                held.pop(key, None)
        for keys in (self.dirty, self.urgent, self.refresh):
            keys.difference_update(gone)
        self._forget_places(connection)
        return gone

    def _forget_places(self, connection: Connection) -> None:
        """Where an erased tag was, of who carries another: gone from the row of what stands, it is not written there again.

        What the rules remember of the tag itself they let go of at their next tick.
        """
        for row in connection.execute(select(rule_states).where(rule_states.c.node == WATCHED)):
            key = (row.rule, row.node, row.device)
            saved, standing = json.loads(row.body).get(_OWN, {}).get("standing"), self.standing.get(key)
            if saved is not None and standing is not None:
                left = {name: fact for name, fact in standing.facts.items() if name not in PLACES or name in saved[5]}
                self.standing[key] = standing._replace(facts=left)
