"""From committed facts to alerts: rules -> life cycle -> mute, in ONE transaction with the cursor and what follows from a move.

Facts come in the order of their commit. Events are read back from the table behind a cursor, so a crash between the facts'
commit and this one only repeats the work; an alert's id comes from what opened it, so the repetition changes nothing. Readings
are handed over by the pipeline before they are acknowledged.

What a rule said last stands beside what it remembers, and each tick compares it with the alerts' rows: whatever was missed, by a
crash, a restored database or a mistake, is mended by the level, not by an edge that never comes again. What a move leads to
(pages, messages) is `paging`'s.
"""

import json
import logging
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, replace
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple, Protocol

from sqlalchemy import Connection, and_, bindparam, func, or_, select, update
from sqlalchemy.exc import OperationalError

from gateway.alerting.lifecycle import OPEN, Alert, Move, Subject, advance, alert_id, facts_json, settle
from gateway.alerting.mute import FLAPPING, MODE, InForce, Muting, Openings, Silence, in_force, muted, still_inhibits
from gateway.deployments import Deployments
from gateway.flow.mode import TownMode, town_mode
from gateway.keeping.places import PLACES
from gateway.mimamori.enrolled import WATCHED
from gateway.moves import write_move
from gateway.notify.queue import RANK
from gateway.rules import SYNTHETIC, Fact, Memory, Rule, SubjectRule, Verdict
from gateway.silences import in_effect
from gateway.state import State, tables
from gateway.state.tables import alert_history, alerts, cursors, devices, erasures, events, rule_states
from gateway.state.upsert import upsert, upsert_rows
from gateway.telemetry import Telemetry

log = logging.getLogger(__name__)

_FACTS_AT_ONCE = 5000
_SAVE_ALL_US = 10 * 60 * 1_000_000  # what rules remember of time alone may be so old after a crash
_COMPARE_US = 60 * 1_000_000  # rows are read again so often even where no history says that somebody changed one
_ATTEMPTS = 3  # to move an alert that others move at the same moment
_BROKEN = "rule.%s failed on a fact and judges nothing where it fails"
_OWN = "watch"  # the watch's part of what is saved of a rule and subject
_ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_NEW = select(events).where(events.c.id > bindparam("cursor")).order_by(events.c.id).limit(_FACTS_AT_ONCE)
_ALL_OPEN = select(*_ALERT_COLUMNS).where(alerts.c.state.in_(OPEN)).order_by(alerts.c.since_us)
_OPEN = _ALL_OPEN.where(
    alerts.c.rule == bindparam("rule"), alerts.c.node == bindparam("node"), alerts.c.device == bindparam("device")
)
_ENDED = select(*_ALERT_COLUMNS).where(alerts.c.state == "resolved", alerts.c.resolved_us > bindparam("since_us"))
_KNOWN = select(alerts.c.id).where(alerts.c.id == bindparam("id"))
_KIND = select(devices.c.kind).where(devices.c.node == bindparam("node"), devices.c.device == bindparam("device"))
_CHANGES = select(func.max(alert_history.c.id))
_ERASED = select(func.count()).select_from(erasures)
_PEOPLE = select(tables.watched.c.id)
_REFRESH = (
    update(alerts)
    .where(alerts.c.id == bindparam("key"), alerts.c.state.in_(OPEN))
    .values(facts=bindparam("new_facts"), count=bindparam("new_count"))
)

_Key = tuple[str, str, str]  # rule, node, device
_Said = tuple["_Rule", _Key, Verdict]


class WatchedRule(NamedTuple):
    """A rule as configured."""

    name: str
    severity: str
    rule: Rule | SubjectRule
    kind: str | None = None  # only subjects of this kind
    mode: TownMode | None = None  # told only while the town is in this mode


class Paging(Protocol):
    """What follows from moves; gateway.paging.Paging is one."""

    def moved(self, connection: Connection, move: Move, now_us: int) -> None:
        """Called for every move, in its transaction; what it raises takes the move back with it."""
        ...

    def together(self, connection: Connection, now_us: int) -> AbstractContextManager[Callable[[], None]]:
        """The moves of the block are told together at its end, in one look; or when what it gives is called, up to there."""
        ...


class _Rule(NamedTuple):
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


class _OvertakenError(Exception):
    """Somebody else moved the alert between our look and our write."""


class Watch:
    """Runs in one thread, the only one that moves alerts by verdicts, by time and by mutes."""

    def __init__(
        self,
        state: State,
        rules: Sequence[WatchedRule],
        deployments: Deployments,
        telemetry: Telemetry,
        say: Callable[[str, dict[str, Any]], None],
        paging: Paging,
        muting: Muting | None = None,
    ) -> None:
        """`say(kind, body)` tells the live stream what was committed. `muting` None: only what is built in."""
        self._state, self._deployments, self._telemetry, self._say = state, deployments, telemetry, say
        self._paging, self._muting = paging, muting or Muting()
        self._rules = {one.name: _with_subjects(one) for one in rules}
        self._on: dict[str, list[_Rule]] = defaultdict(list)
        for rule in self._rules.values():
            for name in rule.rule.events | rule.rule.metrics:
                self._on[name].append(rule)
        self.metrics = frozenset[str]().union(*(rule.rule.metrics for rule in rules))
        """The metrics that some rule wants to see."""
        self._of_silence = frozenset(one.name for one in rules if getattr(one.rule, "of_silence", False))
        self._broken: set[str] = set()
        self._orphans: set[str] = set()  # names of rules with alerts that no rule can end
        self._stuck: set[_Key] = set()  # whose alert could not be written down
        # What was committed, as memory has it; `_ahead`: it is not, and is read anew before it is used.
        self._ahead = True
        self._memory: dict[_Key, Memory] = {}
        self._standing: dict[_Key, Verdict] = {}  # the last verdict where it is not ok
        self._openings: dict[_Key, Openings] = {}  # of what opened of late
        self._open: dict[_Key, Alert] = {}
        self._sources: dict[str, Alert] = {}  # alerts that may inhibit others, by id
        self._mode: TownMode = "normal"
        self._over: set[str] = set()  # ids of what stands and is over all the same: a person said so
        self._cursor = 0
        self._dirty: set[_Key] = set()  # to be saved at the next tick
        self._urgent: set[_Key] = set()  # to be saved with the cursor, or with the alert that follows from it
        self._refresh: set[_Key] = set()  # whose alert should get newer facts
        self._changes: int | None = None  # the newest line of history that `_open` knows of; None: to be read anew
        self._mark: tuple[Any, ...] | None = None  # the mutes by which all open alerts were settled
        self._compared_us = self._saved_all_us = 0
        self._erased: int | None = None  # how many erasures are known here

    def _load(self, now_us: int) -> None:
        """What was remembered, as last committed. At most a second of readings that moved no alert is not in it."""
        with self._state.read() as connection:
            rows = connection.execute(select(rule_states)).all()
            self._cursor = connection.scalar(select(cursors.c.value).where(cursors.c.name == "watch")) or 0
            self._open, self._sources = {}, {}
            self._read_open(connection, now_us)
            for row in connection.execute(_ENDED, {"since_us": now_us - self._muting.longest_hold_us}):
                self._note_source(self._sources, Alert(**row._mapping))
        self._memory, self._standing, self._openings = {}, {}, {}
        for row in rows:
            if row.rule in self._rules:
                self._remember((row.rule, row.node, row.device), json.loads(row.body))
        self._say_orphans()
        self._changes = None  # the next tick compares
        self._over.clear()
        self._dirty.clear()
        self._urgent.clear()
        self._refresh.clear()
        self._ahead = False

    def _say_orphans(self) -> None:
        """Of a rule that was taken out of the configuration nobody says any more whether its alert is over: a person must."""
        orphans = {key[0] for key in self._open if key[0] not in self._rules}
        if orphans - self._orphans:
            log.warning("alerts of rules that are not configured any more stay open (%s): resolve them, or configure the rules",
                        ", ".join(sorted(orphans)))  # fmt: skip
        self._orphans = orphans

    def _remember(self, key: _Key, body: dict[str, Any]) -> None:
        own = body.pop(_OWN, None)
        if own is None and body.keys() >= {"level", "opening"}:  # as earlier releases wrote it
            level, opening, row = body.pop("level"), body.pop("opening"), self._open.get(key)
            if level != "ok" and row is not None and row.opening == opening:
                facts = json.loads(row.facts)
                self._standing[key] = Verdict(level, row.since_us, opening, row.late, row.summary, facts, row.count)
        elif own is not None:
            if own["standing"] is not None:
                self._standing[key] = Verdict(*own["standing"])
            if own["openings"] is not None:
                self._openings[key] = Openings(*own["openings"])
        self._memory[key] = body

    def _saved(self, key: _Key) -> str:
        standing, openings = self._standing.get(key), self._openings.get(key)
        if standing is None and openings is None:
            return json.dumps(self._memory[key], default=str)
        own = {
            "standing": None if standing is None else [*standing[:5], json.loads(facts_json(standing)), *standing[6:]],
            "openings": None if openings is None else [openings.times_us, openings.told],
        }
        return json.dumps({**self._memory[key], _OWN: own}, ensure_ascii=False, default=str)

    def _read_open(self, connection: Connection, now_us: int) -> None:
        """Every alert that is open, and when that was so."""
        before = self._open
        self._changes = connection.scalar(_CHANGES) or 0
        self._open = {}
        for row in connection.execute(_ALL_OPEN):
            alert = Alert(**row._mapping)
            self._open[alert.rule, alert.node, alert.device] = alert
        ids = {alert.id for alert in self._open.values()}
        for source in list(self._sources.values()):
            if source.id not in ids and source.state != "resolved":  # a person ended it
                self._sources[source.id] = replace(source, state="resolved", resolved_us=now_us)
        for key, alert in self._open.items():
            if before.get(key) != alert:
                self._note_source(self._sources, alert)
        self._compared_us = now_us
        self._mark = None

    # What comes in

    def run(self, readings: Iterable[Fact], now_us: int) -> None:
        """Judges the readings and every committed event not judged yet; commits what follows from them.

        After an error nothing of it has happened: the same readings may be handed over again.
        """
        with self._telemetry.judge_seconds.time():
            self._run(readings, now_us)

    def _run(self, readings: Iterable[Fact], now_us: int) -> None:
        if self._ahead:
            self._load(now_us)
        self._ahead = True
        verdicts: list[_Said] = []
        on, dirty, judge = self._on.get, self._dirty, self._judge
        for fact in readings:
            node, device, name = fact[:3]
            for watched in on(name, ()):
                if watched.by_subject:
                    verdicts += self._judge_subjects(watched, fact, now_us, dirty)
                    continue
                key = (watched.name, node, device)
                verdict = judge(watched, key, fact, now_us, dirty)
                # That one more reading is well is the common case and no news, as long as nothing here waits to be committed.
                if verdict is not None and (verdicts or verdict[0] != "ok" or key in self._standing or key in self._open):
                    verdicts.append((watched, key, verdict))
        self._judge_new(verdicts, now_us)
        self._ahead = False

    def tick(self, now_us: int, listening_since_us: int | None) -> None:
        """Lets time pass: events that the gateway made, absence, `for`, shelves, mutes; and compares what stands with the rows.

        Also saves what rules remember, where no alert made that urgent.
        """
        with self._telemetry.turning("rules", now_us):
            self._tick(now_us, listening_since_us)
        self._count_open()

    def _tick(self, now_us: int, listening_since_us: int | None) -> None:
        if self._ahead:
            self._load(now_us)
        self._ahead = True
        self._judge_new([], now_us)
        verdicts = self._judge_time(now_us, listening_since_us)
        with self._state.read() as connection:
            silences = in_effect(connection, now_us)
            self._mode = town_mode(connection)
            changes = connection.scalar(_CHANGES) or 0
            compare = changes != self._changes or not 0 <= now_us - self._compared_us < _COMPARE_US
            if compare:
                self._read_open(connection, now_us)
        if compare:
            said = {key for _, key, _ in verdicts}
            verdicts += [one for one in self._standing_against_rows() if one[1] not in said]
        for key, openings in list(self._openings.items()):
            if openings.is_quiet(now_us, self._muting.flapping):
                del self._openings[key]
                self._dirty.add(key)
        self._sources = {id_: one for id_, one in self._sources.items() if still_inhibits(one, self._muting, now_us)}
        if now_us - self._saved_all_us > _SAVE_ALL_US:
            self._dirty.update(key for key, memory in self._memory.items() if memory)
            self._saved_all_us = now_us
        force = in_force(self._muting, silences, self._sources.values(), self._of_silence, now_us)
        self._commit(verdicts, now_us, None, save=True, unsettled=self._unsettled(force, now_us))
        self._ahead = False

    def _judge_new(self, verdicts: list[_Said], now_us: int) -> None:
        """Judges every committed event behind the cursor, after the verdicts that wait already, and commits."""
        began_s = perf_counter()
        while True:
            with self._state.read() as connection:
                new = connection.execute(_NEW, {"cursor": self._cursor}).all()
                for row in new:
                    verdicts += self._judge_event(connection, row, now_us)
            self._commit(verdicts, now_us, new[-1].id if new else None)
            if new:
                waited_s = (now_us - min(row.received_us for row in new)) / 1e6
                self._telemetry.judge_lag.observe(max(waited_s, 0) + perf_counter() - began_s)
            verdicts = []
            if len(new) < _FACTS_AT_ONCE:
                break

    def _count_open(self) -> None:
        count: Counter[tuple[str, str]] = Counter((alert.state, alert.severity) for alert in self._open.values())
        for state in OPEN:
            for severity in RANK:
                self._telemetry.alerts_open.labels(state, severity).set(count[state, severity])

    def _judge_time(self, now_us: int, listening_since_us: int | None) -> list[_Said]:
        for watched in self._rules.values():
            if watched.subjects is not None:
                for node, device in watched.subjects():
                    if watched.kind is None or self._kind(node, device) == watched.kind:
                        self._memory.setdefault((watched.name, node, device), {})
        verdicts: list[_Said] = []
        for key, memory in self._memory.items():
            watched = self._rules[key[0]]
            if not memory and not watched.by_subject:
                continue
            known = bool(memory)
            try:
                if watched.by_subject:
                    verdict = watched.rule.on_tick(memory, now_us, listening_since_us, key[1:])
                else:
                    verdict = watched.rule.on_tick(memory, now_us, listening_since_us)
            except Exception:
                if self._is_news(watched):
                    log.exception(_BROKEN, watched.name)
                continue
            if known and not memory:
                self._dirty.add(key)  # it has forgotten a subject, and so must its row
            if verdict:
                verdicts.append((watched, key, verdict))
        return verdicts

    def _judge_event(self, connection: Connection, row: Any, now_us: int) -> list[_Said]:
        found: list[_Said] = []
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
            if watched.by_subject:
                found += self._judge_subjects(watched, fact, now_us, self._urgent)
            elif verdict := self._judge(watched, (watched.name, row.node, row.device), fact, now_us, self._urgent):
                found.append((watched, (watched.name, row.node, row.device), verdict))
        return found

    def _judge_subjects(self, watched: _Rule, fact: Fact, now_us: int, changed: set[_Key]) -> list[_Said]:
        try:
            subjects = [(fact.node, fact.device)] if watched.about is None else watched.about(fact)
        except Exception:
            if self._is_news(watched):
                log.exception(_BROKEN, watched.name)
            return []
        keys = [(watched.name, node, device) for node, device in subjects]
        judged = [(key, self._judge(watched, key, fact, now_us, changed)) for key in keys]
        return [(watched, key, verdict) for key, verdict in judged if verdict is not None]

    def _judge(self, watched: _Rule, key: _Key, fact: Fact, now_us: int, changed: set[_Key]) -> Verdict | None:
        if watched.kind is not None and self._kind(key[1], key[2]) != watched.kind:
            return None
        memory = self._memory.get(key)
        if memory is None:
            memory = self._memory[key] = {}
        changed.add(key)
        verdict: Verdict | None
        try:
            if watched.by_subject:
                verdict = watched.rule.on_fact(memory, fact, now_us, key[1:])
            else:
                verdict = watched.rule.on_fact(memory, fact, now_us)
        except Exception:
            if self._is_news(watched):
                log.exception(_BROKEN, watched.name)
            return None
        return verdict

    def _kind(self, node: str, device: str) -> str:
        return node if node in SYNTHETIC else self._deployments.of(node, device).kind

    def _is_news(self, watched: _Rule) -> bool:
        """One rule's mistake must not stop the others: it is counted each time, and True the first time, to be logged."""
        self._telemetry.rule_errors.labels(watched.name).inc()
        is_news = watched.name not in self._broken
        self._broken.add(watched.name)
        return is_news

    # By level

    def _standing_against_rows(self) -> list[_Said]:
        """What stands and what the rows say, where they disagree: an edge was missed.

        Of a subject that nothing is remembered of nobody can say that it is well: its alert stays.
        """
        found: list[_Said] = []
        for key, alert in self._open.items():
            if key not in self._standing and self._memory.get(key) and key[0] in self._rules:
                found.append((self._rules[key[0]], key, Verdict("ok", alert.since_us, reason="no longer so")))
        for key, verdict in self._standing.items():
            row = self._open.get(key)
            same = row is not None and row.opening == verdict.opening
            if not (same and (row.state != "pending" or verdict.level == "pending")):  # type: ignore[union-attr]
                found.append((self._rules[key[0]], key, verdict))
        return found

    def _is_change(self, key: _Key, verdict: Verdict) -> bool:
        """Whether the verdict can move an alert: the common case is that it can't, and costs no query. Keeps what stands."""
        standing = self._standing.get(key)
        if verdict.level == "ok":
            return standing is not None or key in self._open
        if standing is None or standing.level != verdict.level or standing.opening != verdict.opening:
            return True
        if standing.times != verdict.times or standing.facts != verdict.facts:
            self._standing[key] = verdict
            self._dirty.add(key)
            self._refresh.add(key)
        row = self._open.get(key)
        missed = row is None or row.opening != verdict.opening or (row.state == "pending" and verdict.level == "firing")
        return missed and alert_id(_subject_of(key), verdict.opening) not in self._over

    def _unsettled(self, force: InForce, now_us: int) -> list[_Key]:
        """The open alerts that time or a mute moves now. All are looked at only where a mute or an alert has changed."""
        mark = (
            self._mode,
            *force.mark,
            tuple(sorted((key, one.told) for key, one in self._openings.items() if one.told is not None)),
        )
        same, self._mark = mark == self._mark, mark
        return [
            key
            for key, alert in self._open.items()
            if (alert.state == "shelved" or (not same and alert.state in ("firing", "suppressed")))
            and settle(alert, now_us, self._reason(key, alert, force)) is not None
        ]

    def _reason(self, key: _Key, alert: Alert, force: InForce) -> str | None:
        openings, rule = self._openings.get(key), self._rules.get(key[0])
        if rule is not None and rule.mode not in (None, self._mode):
            return MODE
        return muted(alert, force) or (FLAPPING if openings is not None and openings.mutes(alert) else None)

    def _note_source(self, sources: dict[str, Alert], alert: Alert) -> None:
        if alert.id in sources or self._muting.sources(alert, self._of_silence):
            sources[alert.id] = alert

    # What is committed

    def _commit(
        self,
        verdicts: Sequence[_Said],
        now_us: int,
        cursor: int | None,
        *,
        save: bool = False,
        unsettled: Sequence[_Key] = (),
    ) -> None:
        changed: list[_Said] = []
        for said in verdicts:
            _, key, verdict = said
            if self._is_change(key, verdict):
                if verdict.level == "ok":
                    self._standing.pop(key, None)
                else:
                    self._standing[key] = verdict
                    self._refresh.add(key)
                self._urgent.add(key)
                changed.append(said)
        refresh = [key for key in self._refresh if key in self._open] if save else []
        if save:
            self._urgent |= self._dirty
        if not changed and cursor is None and not self._urgent and not unsettled:
            return
        moves: list[Move] = []
        with self._state.write() as connection:
            if (erased := connection.scalar(_ERASED)) != self._erased:
                gone = self._forget_erased(connection)
                self._forget_places(connection)
                changed = [said for said in changed if said[1] not in gone]
                unsettled = [key for key in unsettled if key not in gone]
                refresh = [key for key in refresh if key not in gone]
                self._erased = erased
            if changed or unsettled:
                moves = self._move_all(connection, changed, unsettled, now_us)
            refreshed = [key for key in refresh if self._refresh_facts(connection, key)]
            if cursor is not None:
                connection.execute(upsert(cursors, "value"), {"name": "watch", "value": cursor})
            if self._urgent:
                rows = [(*key, self._saved(key)) for key in self._urgent]
                upsert_rows(connection, rule_states, ("body",), rows)
        self._dirty -= self._urgent
        self._urgent.clear()
        if save:
            self._refresh.clear()
        if cursor is not None:
            self._cursor = cursor
        for move in moves:
            self._moved(move)
        for key in refreshed:
            self._say("alert", asdict(self._open[key]))

    def _forget_erased(self, connection: Connection) -> set[_Key]:
        """Lets go of who is not watched over any more, so that nothing of them is written again; what that was of."""
        here = set(connection.scalars(_PEOPLE))
        known = {*self._memory, *self._standing, *self._openings, *self._open}
        gone = {key for key in known if key[1] == WATCHED and key[2] not in here}
        for held in (self._memory, self._standing, self._openings, self._open):
            for key in gone:
                held.pop(key, None)
        for keys in (self._dirty, self._urgent, self._refresh, self._stuck):
            keys.difference_update(gone)
        self._sources = {id_: one for id_, one in self._sources.items() if (one.rule, one.node, one.device) not in gone}
        return gone

    def _forget_places(self, connection: Connection) -> None:
        """Where an erased tag was, of who carries another: gone from the row of what stands, it is not written there again.

        What the rules remember of the tag itself they let go of at their next tick.
        """
        for row in connection.execute(select(rule_states).where(rule_states.c.node == WATCHED)):
            key = (row.rule, row.node, row.device)
            saved, standing = json.loads(row.body).get(_OWN, {}).get("standing"), self._standing.get(key)
            if saved is not None and standing is not None:
                left = {name: fact for name, fact in standing.facts.items() if name not in PLACES or name in saved[5]}
                self._standing[key] = standing._replace(facts=left)

    def _moved(self, move: Move) -> None:
        alert = move.alert
        key = (alert.rule, alert.node, alert.device)
        if alert.state != "resolved":
            self._open[key] = alert
        elif key in self._open and self._open[key].id == alert.id:
            del self._open[key]
        self._note_source(self._sources, alert)
        self._changes = None  # others may have moved alerts in between: rows are read anew at the next tick
        self._say("alert", asdict(alert))

    def _move_all(self, connection: Connection, changed: list[_Said], unsettled: Sequence[_Key], now_us: int) -> list[Move]:
        silences = in_effect(connection, now_us)
        self._mode = town_mode(connection)
        sources = dict(self._sources)
        force = in_force(self._muting, silences, sources.values(), self._of_silence, now_us)
        if len(changed) > 1:
            # What inhibits others goes first, so that a node that fell silent is told, and not each of its devices.
            # Sorting is stable, so that what one subject's facts do keeps its order.
            order = {key: not self._may_inhibit(watched, key) for watched, key, _ in changed}
            changed = sorted(changed, key=lambda said: order[said[1]])
        moves: list[Move] = []
        moved: set[_Key] = set()
        with self._paging.together(connection, now_us) as tell_now:
            for watched, key, verdict in changed:
                if key in moved:
                    # Told as it was when it fired, not as it is a moment later: its page may speak of others by then.
                    tell_now()
                    moved.clear()
                moved.add(key)
                done = self._guarded(connection, key, partial(self._move, connection, watched, key, verdict, force, now_us))
                moves += done
                force = self._forced(force, sources, silences, done, now_us)
            if not moved.isdisjoint(unsettled):
                tell_now()
            for key in unsettled:
                moves += self._guarded(connection, key, partial(self._settle, connection, key, force, now_us))
        return moves

    def _may_inhibit(self, watched: _Rule, key: _Key) -> bool:
        name, node, device = key
        alert = Alert("", name, self._kind(node, device), watched.severity, node, device, "", "firing", 0, late=False, summary="")
        return self._muting.sources(alert, self._of_silence)

    def _forced(
        self, force: InForce, sources: dict[str, Alert], silences: Iterable[Silence], moves: Iterable[Move], now_us: int
    ) -> InForce:
        before = dict(sources)
        for move in moves:
            self._note_source(sources, move.alert)
        if sources == before:
            return force
        return in_force(self._muting, silences, sources.values(), self._of_silence, now_us)

    def _guarded(self, connection: Connection, key: _Key, move: Callable[[], list[Move]]) -> list[Move]:
        """What `move` did, or nothing at all: one alert that can't be moved stops no other. The next tick tries again."""
        try:
            for attempt in range(_ATTEMPTS):
                try:
                    with connection.begin_nested():
                        done = move()
                    break
                except _OvertakenError:
                    if attempt == _ATTEMPTS - 1:
                        raise
        except OperationalError:
            raise
        except Exception:
            self._telemetry.rule_errors.labels(key[0]).inc()
            if key not in self._stuck:
                log.exception("an alert of rule.%s of %s/%s could not be written down; trying again", *key)
            self._stuck.add(key)
            self._changes = None
            return []
        if key in self._stuck:
            self._stuck.discard(key)
            log.warning("the alert of rule.%s of %s/%s is written down", *key)
        return done

    def _move(
        self, connection: Connection, watched: _Rule, key: _Key, verdict: Verdict, force: InForce, now_us: int
    ) -> list[Move]:
        """Moves the subject's alert as the verdict says; writes alert and history, and what paging makes of it."""
        _, node, device = key
        kind = getattr(watched.rule, "alert_kind", None) or self._kind(node, device)
        if kind == "device":
            kind = connection.scalar(_KIND, {"node": node, "device": device}) or kind
        subject = Subject(watched.name, kind, watched.severity, node, device)
        current = _one_open(connection, key)
        if verdict.level != "ok" and (current is None or current.opening != verdict.opening):
            id_ = alert_id(subject, verdict.opening)
            if connection.scalar(_KNOWN, {"id": id_}):
                self._over.add(id_)
                return []  # this very thing was an alert already, and it is over
        fires = verdict.level == "firing" and (
            current is None or current.opening != verdict.opening or current.state == "pending"
        )
        before = self._openings.get(key)
        if fires and watched.flaps and (verdict.severity or watched.severity) != "critical":
            openings = self._openings[key] = Openings([], None) if before is None else replace(before)
            openings.opened(verdict.opening, now_us, self._muting.flapping)
        try:
            verdict = self._with_flapping(key, verdict)
            moves = advance(current, verdict, subject, now_us, lambda alert: self._reason(key, alert, force))
            for move in moves:
                self._write(connection, move, now_us)
        except BaseException:
            if before is None:
                self._openings.pop(key, None)
            else:
                self._openings[key] = before
            raise
        return moves

    def _settle(self, connection: Connection, key: _Key, force: InForce, now_us: int) -> list[Move]:
        current = _one_open(connection, key)
        move = settle(current, now_us, self._reason(key, current, force)) if current is not None else None
        if move is None:
            return []
        self._write(connection, move, now_us)
        return [move]

    def _write(self, connection: Connection, move: Move, now_us: int) -> None:
        if not write_move(connection, move, now_us):
            raise _OvertakenError(move.alert.id)
        if move.tell:
            self._telemetry.alerts.labels(move.alert.kind).inc()
        self._paging.moved(connection, move, now_us)

    def _with_flapping(self, key: _Key, verdict: Verdict) -> Verdict:
        """With the fact that it flaps, where this opening is the one that says so."""
        openings = self._openings.get(key)
        if openings is None or openings.told is None or openings.told != verdict.opening:
            return verdict
        return verdict._replace(facts={**verdict.facts, FLAPPING: True, "n": self._muting.flapping.count + 1})

    def _refresh_facts(self, connection: Connection, key: _Key) -> bool:
        """Gives the open alert the facts and the count of what stands. That is no move, and tells nobody."""
        standing, alert = self._standing.get(key), self._open.get(key)
        if standing is None or alert is None or alert.opening != standing.opening:
            return False
        facts = facts_json(self._with_flapping(key, standing))
        if (facts, standing.times) == (alert.facts, alert.count):
            return False
        connection.execute(_REFRESH, {"key": alert.id, "new_facts": facts, "new_count": standing.times})
        self._open[key] = replace(alert, facts=facts, count=standing.times)
        return True


def _with_subjects(one: WatchedRule) -> _Rule:
    about, subjects = getattr(one.rule, "about", None), getattr(one.rule, "subjects", None)
    flaps = getattr(one.rule, "flaps", True)
    by_subject = about is not None or subjects is not None
    return _Rule(one.name, one.severity, one.rule, one.kind, one.mode, flaps, about, subjects, by_subject)


def _one_open(connection: Connection, key: _Key) -> Alert | None:
    rule, node, device = key
    row = connection.execute(_OPEN, {"rule": rule, "node": node, "device": device}).first()
    return Alert(**row._mapping) if row else None


def _subject_of(key: _Key) -> Subject:
    """As far as an alert's identity goes."""
    rule, node, device = key
    return Subject(rule, "", "", node, device)
