"""A look at some pages: each is read, `escalation.next` plans, and its messages, itself and its alerts are written together."""

import logging
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from gateway.alerting import escalation
from gateway.alerting.escalation import AlertView, Memory, View
from gateway.paging.messages import Messages, More, Ready
from gateway.paging.reading import THEIR_PAGES, Desk, Directory, Found, cooled_us, parts
from gateway.paging.routes import Routes
from gateway.paging.writing import OvertakenError, write_plan
from gateway.picture_news import lacking
from gateway.telling import Teller

log = logging.getLogger(__name__)


class Looking:
    """Safe on many threads, as far as their transactions are."""

    def __init__(self, routes: Routes, book: Directory, teller: Teller, more: More | None) -> None:
        self._routes, self._book, self._zone, self._messages = routes, book, teller.zone, Messages(teller, more)
        self.held_until_us = 0
        """What is not critical and has not begun waits until then."""
        self.moved: dict[str, int] = {}
        """Alerts that were moved here, and the version each came to: told to the live stream once that is committed."""
        self._broken: set[str] = set()
        self._nobody: set[str] = set()

    def look(self, connection: Connection, ids: Sequence[str], now_us: int) -> None:
        """Plans and writes each of the pages. One that fails stays as it was, and stops no other."""
        desk = Desk(self._book, connection, now_us)
        ready: list[Ready] = []
        for part in parts(ids):
            found = Found(connection, connection.execute(THEIR_PAGES, {"its": part}).all())
            desk.open(self._routes.groups_of({row.route for row in found.rows}))
            for row in found.rows:
                try:
                    with connection.begin_nested():
                        ready += self._one(connection, row, found, desk, now_us)
                    self._broken.discard(row.id)
                except OvertakenError:
                    continue  # it is still marked as changed
                except OperationalError:
                    raise
                except Exception:
                    if row.id not in self._broken:
                        self._broken.add(row.id)
                        log.exception("page %s can't be looked at; it is tried again each second", row.id)
        self._messages.put(connection, ready, now_us)

    def _one(self, connection: Connection, row: Any, found: Found, desk: Desk, now_us: int) -> list[Ready]:
        mine = found.alerts[row.id]
        memory = Memory.model_validate_json(row.memory)
        route = self._routes.of_page(row, [alert for alert, _ in mine], memory)
        people = [desk.of_step(step, mine) for step in route.all_steps]
        office = desk.who(self._routes.office, None) if self._routes.office else []
        unreachable = {contact for contact in memory.told if desk.person(contact) is None}
        view = View(
            kind=row.kind, state=row.state, needed=row.needed, step=row.step, round=row.round, opened_us=row.opened_us,
            stepped_us=row.stepped_us, answered_us=row.answered_us, memory=memory, route=route, zone=self._zone,
            people=people, office=office, answers=found.answers[row.id],
            alerts=[AlertView(a.id, a.state, a.severity == "critical", told_us, a.acknowledged_by) for a, told_us in mine],
            lost=frozenset(found.lost[row.id] | unreachable),
            waits=row.id in found.waits,
            cooled_us=cooled_us(connection, row) if route.cooldown and row.step == 0 else None,
            held_until_us=self.held_until_us,
            lacking=None if memory.pictured else lacking(connection, row.id, [(a.id, a.facts) for a, _ in reversed(mine)]),
        )  # fmt: skip
        plan = escalation.next(view, now_us)
        if plan.nobody and row.id not in self._nobody:
            self._nobody.add(row.id)
            log.error("page %s reaches nobody, and people.office neither. Add contacts, or mend those that are there", row.id)
        elif not plan.nobody:
            self._nobody.discard(row.id)
        # The words speak of the alerts as they were when somebody was to be told of them.
        made = self._messages.made
        ready = [one for tell in plan.messages if (one := made(connection, row, plan, tell, found, desk, now_us))]
        self.moved.update(write_plan(connection, row, plan, [alert for alert, _ in mine], now_us))
        return ready
