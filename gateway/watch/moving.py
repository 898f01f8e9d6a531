"""What the rules say moves alerts, each written by itself, so that one that can't be stops no other."""

import logging
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import replace
from functools import partial
from typing import Protocol

from sqlalchemy import Connection, bindparam, select, update
from sqlalchemy.exc import OperationalError

from gateway.alerting.lifecycle import OPEN, Alert, Move, Subject, advance, alert_id, facts_json, settle
from gateway.alerting.mute import FLAPPING, InForce, Openings
from gateway.deployments import Deployments
from gateway.flow.mode import town_mode
from gateway.moves import write_move
from gateway.rules import Verdict
from gateway.silences import in_effect
from gateway.state.tables import alerts, devices
from gateway.telemetry import Telemetry
from gateway.watch.known import ALL_OPEN, Known
from gateway.watch.mutes import Mutes
from gateway.watch.watched import Key, Said, Taken, kind_of

log = logging.getLogger(__name__)

_ATTEMPTS = 3  # to move an alert that others move at the same moment

# Built once: SQLAlchemy takes longer to put such a statement together than SQLite to answer it.
_OPEN = ALL_OPEN.where(
    alerts.c.rule == bindparam("rule"), alerts.c.node == bindparam("node"), alerts.c.device == bindparam("device")
)
_KNOWN = select(alerts.c.id).where(alerts.c.id == bindparam("id"))
_KIND = select(devices.c.kind).where(devices.c.node == bindparam("node"), devices.c.device == bindparam("device"))
_REFRESH = (
    update(alerts)
    .where(alerts.c.id == bindparam("key"), alerts.c.state.in_(OPEN))
    .values(facts=bindparam("new_facts"), count=bindparam("new_count"))
)


class Paging(Protocol):
    """What follows from moves; gateway.paging.Paging is one."""

    def moved(self, connection: Connection, move: Move, now_us: int) -> None:
        """Called for every move, in its transaction; what it raises takes the move back with it."""
        ...

    def together(self, connection: Connection, now_us: int) -> AbstractContextManager[Callable[[], None]]:
        """The moves of the block are told together at its end, in one look; or when what it gives is called, up to there."""
        ...


class _OvertakenError(Exception):
    """Somebody else moved the alert between our look and our write."""


class Moving:
    """Used by the watch's thread only, in its transaction."""

    def __init__(self, deployments: Deployments, telemetry: Telemetry, paging: Paging, known: Known, mutes: Mutes) -> None:
        self._deployments, self._telemetry, self._paging, self._known, self._mutes = deployments, telemetry, paging, known, mutes
        self._stuck: set[Key] = set()  # whose alert could not be written down

    def forget(self, gone: set[Key]) -> None:
        """Lets go of who was erased."""
        self._stuck.difference_update(gone)

    def move_all(self, connection: Connection, changed: list[Said], unsettled: Sequence[Key], now_us: int) -> list[Move]:
        """As the verdicts say, then as time and mutes do."""
        silences = in_effect(connection, now_us)
        self._mutes.mode = town_mode(connection)
        sources = dict(self._mutes.sources)
        force = self._mutes.force(silences, sources, now_us)
        if len(changed) > 1:
            # What inhibits others goes first, so that a node that fell silent is told, and not each of its devices.
            # Sorting is stable, so that what one subject's facts do keeps its order.
            order = {key: not self._mutes.may_inhibit(watched, key) for watched, key, _ in changed}
            changed = sorted(changed, key=lambda said: order[said[1]])
        moves: list[Move] = []
        moved: set[Key] = set()
        with self._paging.together(connection, now_us) as tell_now:
            for watched, key, verdict in changed:
                if key in moved:
                    # Told as it was when it fired, not as it is a moment later: its page may speak of others by then.
                    tell_now()
                    moved.clear()
                moved.add(key)
                done = self._guarded(connection, key, partial(self._move, connection, watched, key, verdict, force, now_us))
                moves += done
                force = self._mutes.forced(force, sources, silences, done, now_us)
            if not moved.isdisjoint(unsettled):
                tell_now()
            for key in unsettled:
                moves += self._guarded(connection, key, partial(self._settle, connection, key, force, now_us))
        return moves

    def _guarded(self, connection: Connection, key: Key, move: Callable[[], list[Move]]) -> list[Move]:
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
            self._known.changes = None
            return []
        if key in self._stuck:
            self._stuck.discard(key)
            log.warning("the alert of rule.%s of %s/%s is written down", *key)
        return done

    def _move(
        self, connection: Connection, watched: Taken, key: Key, verdict: Verdict, force: InForce, now_us: int
    ) -> list[Move]:
        """Moves the subject's alert as the verdict says; writes alert and history, and what paging makes of it."""
        _, node, device = key
        kind = getattr(watched.rule, "alert_kind", None) or kind_of(self._deployments, node, device)
        if kind == "device":
            kind = connection.scalar(_KIND, {"node": node, "device": device}) or kind
        subject = Subject(watched.name, kind, watched.severity, node, device)
        current = _one_open(connection, key)
        if verdict.level != "ok" and (current is None or current.opening != verdict.opening):
            id_ = alert_id(subject, verdict.opening)
            if connection.scalar(_KNOWN, {"id": id_}):
                self._known.over.add(id_)
                return []  # this very thing was an alert already, and it is over
        fires = verdict.level == "firing" and (
            current is None or current.opening != verdict.opening or current.state == "pending"
        )
        before = self._known.openings.get(key)
        if fires and watched.flaps and (verdict.severity or watched.severity) != "critical":
            openings = self._known.openings[key] = Openings([], None) if before is None else replace(before)
            openings.opened(verdict.opening, now_us, self._mutes.muting.flapping)
        try:
            verdict = self._with_flapping(key, verdict)
            moves = advance(current, verdict, subject, now_us, lambda alert: self._mutes.reason(key, alert, force))
            for move in moves:
                self._write(connection, move, now_us)
        except BaseException:
            if before is None:
                self._known.openings.pop(key, None)
            else:
                self._known.openings[key] = before
            raise
        return moves

    def _settle(self, connection: Connection, key: Key, force: InForce, now_us: int) -> list[Move]:
        current = _one_open(connection, key)
        move = settle(current, now_us, self._mutes.reason(key, current, force)) if current is not None else None
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

    def _with_flapping(self, key: Key, verdict: Verdict) -> Verdict:
        """With the fact that it flaps, where this opening is the one that says so."""
        openings = self._known.openings.get(key)
        if openings is None or openings.told is None or openings.told != verdict.opening:
            return verdict
        return verdict._replace(facts={**verdict.facts, FLAPPING: True, "n": self._mutes.muting.flapping.count + 1})

    def refresh(self, connection: Connection, key: Key) -> bool:
        """Gives the open alert the facts and the count of what stands. That is no move, and tells nobody."""
        standing, alert = self._known.standing.get(key), self._known.open.get(key)
        if standing is None or alert is None or alert.opening != standing.opening:
            return False
        facts = facts_json(self._with_flapping(key, standing))
        if (facts, standing.times) == (alert.facts, alert.count):
            return False
        connection.execute(_REFRESH, {"key": alert.id, "new_facts": facts, "new_count": standing.times})
        self._known.open[key] = replace(alert, facts=facts, count=standing.times)
        return True


def _one_open(connection: Connection, key: Key) -> Alert | None:
    rule, node, device = key
    row = connection.execute(_OPEN, {"rule": rule, "node": node, "device": device}).first()
    return Alert(**row._mapping) if row else None
