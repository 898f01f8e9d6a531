"""From alerts to pages to messages: who is told, who is asked next, what they answered. Each step is ONE transaction.

`escalation` decides, here it is carried out: a page is read, `escalation.next` plans, and the page, its messages and its alerts
are written together. Messages have ids that come from page, contact and step, so whatever is repeated changes nothing. A page is
looked at when something happened (`changed`) or its time has come (`due_us`).
"""

import json
import logging
import uuid
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import Any, Literal, NamedTuple, Protocol, get_args

from sqlalchemy import BindParameter, Connection, Select, bindparam, case, func, insert, or_, select, update
from sqlalchemy.exc import OperationalError

from gateway.alerting import escalation
from gateway.alerting.escalation import AlertView, Memory, PageState, Plan, Said, Scripted, Tell, Told, View, Waited
from gateway.alerting.lifecycle import Alert, Move, acknowledge, resolve
from gateway.alerting.route import FAMILY, Channel, RouteConfig, StepConfig, route_for
from gateway.contacts import proof
from gateway.contacts.book import Shelf
from gateway.contacts.person import Person
from gateway.deployments import Deployments
from gateway.moves import write_move
from gateway.notify.message import Answer, Message, Severity
from gateway.notify.queue import RANK, mark_answered, queue
from gateway.picture_news import lacking
from gateway.rules.trial import TEST
from gateway.state import State
from gateway.state.tables import alert_history, alerts, answers, digest_pages, notifications, page_alerts, pages
from gateway.state.upsert import upsert
from gateway.telemetry import Telemetry
from gateway.telling import About, Teller

log = logging.getLogger(__name__)

HOLD_US = 60 * 1_000_000
"""After a start, or a return of the broker, what is not critical waits so long: a town that comes back is one message."""
MERGE_ABOVE = 3
"""So many first messages of one look may go to one person by themselves; more are one digest."""
LONGEST_TOLD_US = 72 * 3600 * 1_000_000
"""What is told and has no end to wait for is over then, whoever could not be told."""
OPEN = ("waiting", "asking", "answered", "exhausted")
"""States of a page that is not closed. Named, because an index finds what is named, and not what is excluded."""
STAFF = "staff:"
"""Before the name of somebody who answers by the API and was not asked."""
AT_ONCE = 2000
_IN = 500  # SQLite takes so many parameters in any build
_NAMESPACE = uuid.UUID("0c8f8b0e-3d5b-5a57-9c0a-706167657321")
_ALERT_COLUMNS = [alerts.c[name] for name in Alert.__slots__]
_ALIVE = frozenset(("sent", "seen", "answered"))
_SEVERITIES: tuple[Severity, ...] = ("critical", "warning", "info")

# Built once: a town that comes back is a thousand pages in one look.
_WRITTEN = (
    "state", "step", "round", "stepped_us", "answered_us", "due_us", "changed", "closed_us", "memory", "version",
)  # fmt: skip
_CHANGE = (
    update(pages)
    .where(pages.c.id == bindparam("key"), pages.c.version == bindparam("seen"))
    .values({name: bindparam(f"new_{name}") for name in _WRITTEN})
)
_TOLD = (
    update(page_alerts)
    .where(page_alerts.c.page == bindparam("its"), page_alerts.c.alert == bindparam("named"), page_alerts.c.told_us.is_(None))
    .values(told_us=bindparam("now_us"))
)

# What `_join` asks and writes for each alert that fires.
_OPEN_PAGE = (
    select(pages.c.id, pages.c.severity)
    .where(pages.c.route == bindparam("named"), pages.c.group_key == bindparam("group"), pages.c.state.in_(OPEN))
    .with_for_update()
)
_ADD_PAGE, _ADD_TO_PAGE = upsert(pages), upsert(page_alerts)
_ALERTS_ON = (
    select(alerts.c.id, alerts.c.state)
    .join(page_alerts, page_alerts.c.alert == alerts.c.id)
    .where(page_alerts.c.page == bindparam("its"))
)
_JOINED = update(pages).where(pages.c.id == bindparam("key")).values(changed=True, severity=bindparam("worst"))
_CHANGED_WITH = (
    update(pages)
    .where(pages.c.id.in_(select(page_alerts.c.page).where(page_alerts.c.alert == bindparam("named"))), pages.c.state != "closed")
    .values(changed=True)
)

# What belongs to some pages: `_Found`.
_ITS: BindParameter[Any] = bindparam("its", expanding=True)
_THEIR_PAGES = select(pages).where(pages.c.id.in_(_ITS), pages.c.state != "closed").with_for_update()
_THEIR_ALERTS = (
    select(page_alerts.c.page, page_alerts.c.told_us, *_ALERT_COLUMNS)
    .join(alerts, alerts.c.id == page_alerts.c.alert)
    .where(page_alerts.c.page.in_(_ITS))
    .order_by(page_alerts.c.joined_us, alerts.c.since_us, alerts.c.id)
)
_THEIR_ANSWERS = (
    select(answers, notifications.c.created_us)
    .join(notifications, notifications.c.id == answers.c.notification, isouter=True)
    .where(answers.c.page.in_(_ITS))
    .order_by(answers.c.id)
)
# Tried, overdue, and with no other address: it may arrive yet, but nobody waits for it.
_HANGS = (notifications.c.state == "queued") & (notifications.c.attempts > 0) & notifications.c.failover_us.is_(None)
_HOW_IT_WENT = (notifications.c.contact, case((_HANGS, "hangs"), else_=notifications.c.state))
_THEIR_MESSAGES = select(notifications.c.page, *_HOW_IT_WENT).distinct().where(notifications.c.page.in_(_ITS))
_THEIR_DIGESTS = (
    select(digest_pages.c.page, *_HOW_IT_WENT)
    .join(notifications, notifications.c.id == digest_pages.c.notification)
    .distinct()
    .where(digest_pages.c.page.in_(_ITS))
)

Via = Literal["line", "link", "keypad", "api", "visit"]


class Directory(Protocol):
    """Who can be told; gateway.contacts.book.Book is one."""

    def who(
        self, connection: Connection, name: str, now_us: int, by: Channel | None = None, shelf: Shelf | None = None
    ) -> list[Person]:
        """Everybody of a group, or a configured contact, who can be told now."""
        ...

    def person(self, connection: Connection, contact: str, now_us: int, *, shelf: Shelf | None = None) -> Person | None:
        """This contact; None where nothing reaches them."""
        ...

    def name_of(self, connection: Connection, contact: str) -> str:
        """What others are told of them."""
        ...


class Standing(NamedTuple):
    """What is so of a page now, for who answers it."""

    page: str
    kind: str
    state: PageState
    going: tuple[str, ...]
    """Names of those who go, in the order in which they said so."""
    missing: int
    """How many more are needed."""


class Answered(NamedTuple):
    """The answer is kept."""

    answer: Answer
    repeated: bool
    """They had said the same already."""
    now: Standing


class NotTaken(NamedTuple):
    """The answer is not kept, for this reason; `now` where there is such a page."""

    reason: Literal["unknown", "closed", "not_told", "not_asked"]
    now: Standing | None = None


OnAnswer = Callable[[Connection, Standing, Sequence[Alert], str, Answer, int], None]
"""on_answer(connection, page, its alerts, contact, answer, now_us), in the answer's transaction: a search is opened, a picture
corrected. Not called for a repetition."""
More = Callable[[Connection, Alert, str], Mapping[str, Any]]
"""more(connection, alert, contact): facts for the words beyond the alert's own, as this contact may know them."""


class _Ready(NamedTuple):
    """A message that is ready to be queued, or to be said together with others."""

    id: str
    person: Person
    tell: Tell
    about: About
    message: Message
    waited: Waited | None

    @property
    def may_merge(self) -> bool:
        """Whether it can be a line of a digest."""
        by_itself = self.about.severity == "critical" or self.about.kind == TEST or self.tell.by is not None
        return not by_itself and self.tell.kind in ("alert", "again")


class _OvertakenError(Exception):
    """Somebody else has written the page, or its alert, since it was read: it is looked at again."""


class Paging:
    """`moved` in the watch's transaction, `tick` each second, `answer` in whoever's: safe on many threads."""

    def __init__(  # noqa: PLR0913 - wiring
        self,
        state: State,
        routes: Sequence[RouteConfig],
        deployments: Deployments,
        book: Directory,
        teller: Teller,
        *,
        office: str | None = None,
        say: Callable[[str, dict[str, Any]], None] = lambda _kind, _body: None,
        ring: Callable[[], None] = lambda: None,
        on_answer: OnAnswer | None = None,
        more: More | None = None,
        telemetry: Telemetry | None = None,
    ) -> None:
        """`office`: the group or contact that hears when nobody can be reached (`people.office`).

        `say(kind, body)` tells the live stream what was committed; `ring` says that messages were. `telemetry` None: nobody asks
        how long looking takes.
        """
        self._state, self._routes, self._deployments, self._book, self._teller = state, routes, deployments, book, teller
        self._office, self._say, self._ring, self._on_answer, self._more = office, say, ring, on_answer, more
        self._telemetry = telemetry or Telemetry()
        self._held_until_us = 0
        self._touched: set[str] = set()  # alerts that were moved here, to be told to the live stream once they are committed
        self._broken: set[str] = set()
        self._nobody: set[str] = set()
        self._together: tuple[Connection, dict[str, None]] | None = None  # pages that wait for the end of `together`
        self.looked_us: int | None = None
        """When `tick` last got through: without it nobody is asked any more. None before the first time."""

    def hold(self, until_us: int) -> None:
        """What is not critical and has not begun waits until then, and comes as one digest. Longer holds stand."""
        self._held_until_us = max(self._held_until_us, until_us)

    # --- what the watch says ------------------------------------------------------------------------

    def moved(self, connection: Connection, move: Move, now_us: int) -> None:
        """An alert has moved, in the watch's transaction. What is critical is told in the same one."""
        alert = move.alert
        page = self._join(connection, alert, tell=move.tell, now_us=now_us) if _fires(move) else None
        if page is None:
            connection.execute(_CHANGED_WITH, {"named": alert.id})
        elif alert.severity == "critical":
            if self._together is not None and self._together[0] is connection:
                self._together[1][page] = None
            else:
                self._look(connection, [page], now_us)

    @contextmanager
    def together(self, connection: Connection, now_us: int) -> Iterator[Callable[[], None]]:
        """What moves in the block, over this connection, is told at its end: one look for a hundred pages costs as ten do.

        Gives what tells it at once, up to there: for who moves one alert twice. One thread at a time, the watch's.
        """
        waiting: dict[str, None] = {}
        self._together = (connection, waiting)

        def tell_now() -> None:
            if waiting:
                ids = list(waiting)
                waiting.clear()
                self._look(connection, ids, now_us)

        try:
            yield tell_now
            tell_now()
        finally:
            self._together = None

    def _join(self, connection: Connection, alert: Alert, *, tell: bool, now_us: int) -> str | None:
        """The open page of the alert's group, or a new one. None where no route fits. `tell`: as of its move."""
        route = route_for(self._routes, asdict(alert))
        if route is None:
            who = "the office" if self._office else "nobody"
            log.error(
                "alert %s of rule.%s: no route fits, %s is told. Add a [[route]] without a match", alert.id, alert.rule, who
            )
            if self._office is None:
                return None
            route = self._of_office()
        place = self._deployments.of(alert.node, alert.device).place
        group = json.dumps([place if name == "place" else getattr(alert, name) for name in route.group_by], ensure_ascii=False)
        mine = {"named": route.name, "group": group}
        open_ = connection.execute(_OPEN_PAGE, mine).first()
        if open_ is not None and self._is_over(connection, open_.id, alert.id):
            self._look(connection, [open_.id], now_us)
            open_ = connection.execute(_OPEN_PAGE, mine).first()
        if open_ is None:
            page = str(uuid.uuid5(_NAMESPACE, f"{route.name}/{group}/{alert.id}/{alert.version}"))
            _open(connection, page, route.name, group, alert.kind, alert.severity, route.needed, now_us)
        else:
            page = str(open_.id)
            if tell:
                self._afresh(connection, page, alert.id, now_us)
            worst = min(open_.severity, alert.severity, key=_SEVERITIES.index)
            connection.execute(_JOINED, {"key": page, "worst": worst})
        connection.execute(_ADD_TO_PAGE, {"page": page, "alert": alert.id, "joined_us": now_us})
        return page

    @staticmethod
    def _is_over(connection: Connection, page: str, but: str) -> bool:
        """Whether all its alerts are: then it is closed first, and another thing is another page."""
        found = {row.id: row.state for row in connection.execute(_ALERTS_ON, {"its": page})}
        return but not in found and set(found.values()) == {"resolved"}

    @staticmethod
    def _afresh(connection: Connection, page: str, alert: str, now_us: int) -> None:
        """To be told anew, though it was told: a shelf's time is over, or that of the mute after it.

        Where the page has no other alert that people know of, it is told as for the first time.
        """
        before = select(page_alerts.c.told_us).where(page_alerts.c.page == page, page_alerts.c.alert == alert)
        if connection.scalar(before) is None:
            return
        others = select(alerts.c.id).join(page_alerts, page_alerts.c.alert == alerts.c.id)
        others = others.where(page_alerts.c.page == page, alerts.c.id != alert, alerts.c.state.in_(("firing", "acknowledged")))
        row = connection.execute(select(pages).where(pages.c.id == page)).one()
        connection.execute(
            update(page_alerts).where(page_alerts.c.page == page, page_alerts.c.alert == alert).values(told_us=None)
        )
        if connection.scalar(others.limit(1)) is not None:
            return
        last = connection.execute(
            select(answers.c.contact, func.max(answers.c.id)).where(answers.c.page == page).group_by(answers.c.contact)
        )
        memory = Memory(life=Memory.model_validate_json(row.memory).life + 1, void={one[0]: one[1] for one in last})
        connection.execute(
            update(pages)
            .where(pages.c.id == page)
            .values(state="waiting", step=0, round=0, opened_us=now_us, stepped_us=None, answered_us=None,
                    memory=memory.model_dump_json(exclude_defaults=True), version=pages.c.version + 1)
        )  # fmt: skip

    # --- time ---------------------------------------------------------------------------------------

    def tick(self, now_us: int, listening_since_us: int | None = None) -> None:
        """Looks at every page that is changed or due. `listening_since_us`: since when the broker is there, if it is."""
        if listening_since_us is not None:
            self.hold(listening_since_us + HOLD_US)
        with self._telemetry.turning("paging", now_us):
            with self._state.read() as connection:
                ids = list(connection.scalars(due_pages(now_us)))
            if ids:
                with self._state.write() as connection:
                    self._look(connection, ids, now_us)
                self._ring()
            self._say_touched(ids)
        self.looked_us = now_us

    def _say_touched(self, ids: Sequence[str]) -> None:
        """Tells the live stream of what is committed, as it is now."""
        touched, self._touched = self._touched, set()
        if not touched and not ids:
            return
        with self._state.read() as connection:
            for part in _parts(list(touched)):
                for row in connection.execute(select(*_ALERT_COLUMNS).where(alerts.c.id.in_(part))):
                    self._say("alert", dict(row._mapping))
            for part in _parts(list(ids)):
                for row in connection.execute(select(pages.c.id, pages.c.state, pages.c.severity).where(pages.c.id.in_(part))):
                    self._say("page", dict(row._mapping))

    def _look(self, connection: Connection, ids: Sequence[str], now_us: int) -> None:
        """Plans and writes each of the pages. One that fails stays as it was, and stops no other."""
        desk = _Desk(self._book, connection, now_us)
        ready: list[_Ready] = []
        for part in _parts(ids):
            found = _Found(connection, connection.execute(_THEIR_PAGES, {"its": part}).all())
            taken = {row.route for row in found.rows}
            desk.open(to for route in self._routes if route.name in taken for step in route.all_steps for to in step.to)
            for row in found.rows:
                try:
                    with connection.begin_nested():
                        ready += self._one(connection, row, found, desk, now_us)
                    self._broken.discard(row.id)
                except _OvertakenError:
                    continue  # it is still marked as changed
                except OperationalError:
                    raise
                except Exception:
                    if row.id not in self._broken:
                        self._broken.add(row.id)
                        log.exception("page %s can't be looked at; it is tried again each second", row.id)
        self._queue(connection, ready, now_us)

    def _one(self, connection: Connection, row: Any, found: "_Found", desk: "_Desk", now_us: int) -> list[_Ready]:
        mine = found.alerts[row.id]
        memory = Memory.model_validate_json(row.memory)
        route = self._route_of(row, [alert for alert, _ in mine], memory)
        people = [self._step_people(desk, step, mine) for step in route.all_steps]
        office = desk.who(self._office, None) if self._office else []
        unreachable = {contact for contact in memory.told if desk.person(contact) is None}
        view = View(
            kind=row.kind, state=row.state, needed=row.needed, step=row.step, round=row.round, opened_us=row.opened_us,
            stepped_us=row.stepped_us, answered_us=row.answered_us, memory=memory, route=route, zone=self._teller.zone,
            people=people, office=office, answers=found.answers[row.id],
            alerts=[AlertView(a.id, a.state, a.severity == "critical", told_us, a.acknowledged_by) for a, told_us in mine],
            lost=frozenset(found.lost[row.id] | unreachable),
            waits=row.id in found.waits,
            cooled_us=_cooled(connection, row) if route.cooldown and row.step == 0 else None,
            held_until_us=self._held_until_us,
            lacking=None if memory.pictured else lacking(connection, row.id, [(a.id, a.facts) for a, _ in reversed(mine)]),
        )  # fmt: skip
        plan = escalation.next(view, now_us)
        if plan.nobody and row.id not in self._nobody:
            self._nobody.add(row.id)
            log.error("page %s reaches nobody, and people.office neither. Add contacts, or mend those that are there", row.id)
        elif not plan.nobody:
            self._nobody.discard(row.id)
        # The words speak of the alerts as they were when somebody was to be told of them.
        ready = [one for tell in plan.messages if (one := self._made(connection, row, plan, tell, mine, found, desk, now_us))]
        self._write(connection, row, plan, [alert for alert, _ in mine], now_us)
        return ready

    def _route_of(self, row: Any, mine: Sequence[Alert], memory: Memory) -> RouteConfig:
        """The page's route as it is configured now; where it was removed, the one that its alerts would take."""
        if memory.scripted is None:
            named = [route for route in self._routes if route.name == row.route]
            alert = asdict(mine[0]) if mine else None
            first = [route for route in named if alert is not None and route.match.fits(alert)] or named
            if first:
                return first[0]
            if mine and (other := route_for(self._routes, asdict(mine[0]))):
                return other
        return self._of_office()

    def _of_office(self) -> RouteConfig:
        """What nobody else is for."""
        return RouteConfig(name="office", steps=[StepConfig(to=[self._office or "nobody"])], tell_end=True)

    @staticmethod
    def _step_people(desk: "_Desk", step: StepConfig, mine: Sequence[tuple[Alert, int | None]]) -> list[Person]:
        found: dict[str, Person] = {}
        for name in step.to:
            names = [name]
            if name == FAMILY:
                facts = (json.loads(alert.facts).get(FAMILY) for alert, _ in mine)
                names = list(dict.fromkeys(family for family in facts if isinstance(family, str)))
            for one in names:
                for person in desk.who(one, step.by):
                    found.setdefault(person.contact, person)
        return list(found.values())

    # --- what is said -------------------------------------------------------------------------------

    def _made(
        self,
        connection: Connection,
        row: Any,
        plan: Plan,
        tell: Tell,
        mine: Sequence[tuple[Alert, int | None]],
        found: "_Found",
        desk: "_Desk",
        now_us: int,
    ) -> _Ready | None:
        """The message, in its receiver's language. None where nothing reaches them any more."""
        person = desk.person(tell.contact, tell.by)
        if person is not None and tell.kind == "picture":
            person = _in_silence(person)
        elif person is not None and tell.by is None and not _rings(tell, found.answers[row.id]):
            person = _without_calls(person)
        if person is None:
            return None
        speaking = [alert for alert, _ in mine if alert.state in ("firing", "acknowledged")] or [alert for alert, _ in mine]
        said = [
            one
            for one in found.answers[row.id]
            if one.contact in tell.names or (tell.kind == "result" and one.contact == tell.contact)
        ]
        ended = [alert.resolved_us for alert in speaking if alert.resolved_us is not None]
        moment, severity = tell.moment, _worst(row.severity, speaking)
        when_us = said[-1].at_us if said else max(ended, default=None)
        if tell.kind == "picture":
            speaking, severity = [alert for alert in speaking if alert.id in tell.alerts] or speaking, "info"
            when_us = speaking[0].since_us
        if moment == "page.over" and row.kind == "trap" and _by_visit(connection, speaking):
            tell = tell._replace(moment="page.over_visit")
        about = About(
            page=row.id,
            kind=row.kind,
            severity=severity,
            opened_us=row.opened_us,
            alerts=speaking,
            names=[self._name(desk, one) for one in tell.names],
            when_us=when_us,
            facts=self._more(connection, speaking[0], tell.contact) if self._more and speaking else {},
        )
        id_ = message_id(row.id, tell.contact, tell.kind, tell.key)
        message = self._teller.message(id_, person, tell, about, now_us)
        return _Ready(id_, person, tell, about, message, plan.memory.waited)

    def _queue(self, connection: Connection, ready: Sequence[_Ready], now_us: int) -> None:
        """Writes the messages. What was held back, or comes in a heap, is one digest for each person."""
        heaps: dict[str, list[_Ready]] = defaultdict(list)
        for one in ready:
            if one.may_merge:
                heaps[one.person.contact].append(one)
        merged: set[str] = set()
        for heap in heaps.values():
            if len(heap) > (1 if all(one.waited for one in heap) else MERGE_ABOVE):
                # A digest asks nothing: of what asks, the most urgent come by themselves, so that there is something to answer.
                asking = sorted((one for one in heap if one.tell.asks), key=_urgency)[:MERGE_ABOVE]
                rest = [one for one in heap if one not in asking]
                if len(rest) > 1 and self._queue_digest(connection, rest, now_us):
                    merged.update(one.id for one in rest)
        for one in ready:
            if one.id not in merged:
                sleeps = one.tell.kind in ("office", "picture") and one.about.severity != "critical"
                quiet_us = one.person.quiet_until_us if sleeps else None
                queue(connection, one.person, one.message, now_us, page=one.about.page, by=one.tell.by, due_us=quiet_us)

    def _queue_digest(self, connection: Connection, heap: Sequence[_Ready], now_us: int) -> bool:
        """Whether it is one now. Where its words fail, each is said by itself: the pages are written as told already."""
        why = {one.waited for one in heap}
        about = {alert.id: alert for one in heap for alert in one.about.alerts}
        id_ = str(uuid.uuid5(_NAMESPACE, "/".join(sorted(one.id for one in heap))))
        first = sorted(about.values(), key=lambda alert: (_SEVERITIES.index(alert.severity), alert.since_us, alert.id))
        person = heap[0].person
        try:
            message = self._teller.digest(id_, person, first, why.pop() if len(why) == 1 else None, now_us)
        except Exception:
            log.exception("the words of a digest of %d alerts failed; each is told by itself", len(first))
            return False
        queue(connection, person, message, now_us)
        told = {one.about.page for one in heap}
        connection.execute(upsert(digest_pages), [{"notification": id_, "page": page} for page in sorted(told)])
        return True

    @staticmethod
    def _name(desk: "_Desk", contact: str) -> str:
        return contact.removeprefix(STAFF) if contact.startswith(STAFF) else desk.name_of(contact)

    # --- what is written ----------------------------------------------------------------------------

    def _write(self, connection: Connection, row: Any, plan: Plan, mine: Sequence[Alert], now_us: int) -> None:
        written = {
            "state": plan.state,
            "step": plan.step,
            "round": plan.round,
            "stepped_us": plan.stepped_us,
            "answered_us": plan.answered_us,
            "due_us": plan.due_us,
            "changed": False,
            "closed_us": now_us if plan.state == "closed" else None,
            "memory": plan.memory.model_dump_json(exclude_defaults=True),
            "version": row.version + 1,
        }
        values = {f"new_{name}": value for name, value in written.items()}
        if connection.execute(_CHANGE, {"key": row.id, "seen": row.version, **values}).rowcount != 1:
            raise _OvertakenError(row.id)
        if plan.told:
            connection.execute(_TOLD, [{"its": row.id, "named": alert, "now_us": now_us} for alert in plan.told])
        for alert in mine:
            if move := self._move_of(plan, alert, now_us):
                # The watch may have moved it just now (on a database that lets it): then the page is looked at once more.
                if not write_move(connection, move, now_us):
                    raise _OvertakenError(alert.id)
                self._touched.add(alert.id)

    @staticmethod
    def _move_of(plan: Plan, alert: Alert, now_us: int) -> Move | None:
        """What the answers do to an alert."""
        if plan.resolve is not None:
            if alert.id in plan.newer:
                return None
            return resolve(alert, plan.resolve.contact, plan.resolve.answer, now_us)
        if plan.acknowledge and alert.state == "firing" and alert.id not in plan.silent:
            who = ", ".join(plan.acknowledge)
            taken = acknowledge(alert, who, now_us)
            return Move(taken, alert.state, "going", tell=False, who=who) if taken else None
        return None

    # --- what people say ----------------------------------------------------------------------------

    def answer(
        self,
        connection: Connection,
        page: str,
        contact: str,
        answer: Answer,
        via: Via,
        notification: str | None,
        now_us: int,
    ) -> Answered | NotTaken:
        """What a contact says to a page, in the caller's transaction; the others are told in the same one.

        Said twice it is one answer. `notification`: the message that they answered; that they did is kept even where the answer
        is not. Somebody of the staff (`staff:<name>`, via `api`) may answer without having been told.
        """
        row = connection.execute(select(pages).where(pages.c.id == page).with_for_update()).first()
        if row is None or answer not in get_args(Answer):
            return NotTaken("unknown")
        memory = Memory.model_validate_json(row.memory)
        told = connection.execute(
            select(notifications.c.id, notifications.c.address)
            .where(notifications.c.page == page, notifications.c.contact == contact)
            .order_by(notifications.c.created_us.desc())
        ).all()
        is_staff = via == "api" and contact.startswith(STAFF)
        if not told and contact not in memory.told and not is_staff:
            return NotTaken("not_told", self._standing(connection, row, now_us))
        mine = [one for one in told if one.id == notification]
        if notification is not None and not mine:
            return NotTaken("not_told", self._standing(connection, row, now_us))
        for one in mine:
            mark_answered(connection, one.id, now_us)
            if one.address is not None:
                proof.heard(connection, one.address, now_us)
        if row.state == "closed":
            return NotTaken("closed", self._standing(connection, row, now_us))
        last = connection.execute(
            select(answers).where(answers.c.page == page, answers.c.contact == contact).order_by(answers.c.id.desc()).limit(1)
        ).first()
        asked_since = memory.result_us is not None and last is not None and last.at_us < memory.result_us
        repeated = last is not None and last.answer == answer and last.id > memory.void.get(contact, 0) and not asked_since
        if not repeated:
            connection.execute(
                insert(answers),
                {"page": page, "contact": contact, "answer": answer, "at_us": now_us, "via": via, "notification": notification},
            )
            if self._on_answer is not None:
                mine_alerts = [alert for alert, _ in _Found(connection, [row]).alerts[page]]
                self._on_answer(connection, self._standing(connection, row, now_us), mine_alerts, contact, answer, now_us)
            connection.execute(update(pages).where(pages.c.id == page).values(changed=True))
            self._look(connection, [page], now_us)
        row = connection.execute(select(pages).where(pages.c.id == page)).one()
        return Answered(answer, repeated, self._standing(connection, row, now_us))

    def answer_to(self, connection: Connection, notification: str, answer: Answer, via: Via, now_us: int) -> Answered | NotTaken:
        """The same for who knows the message only: its page and contact are in the ledger."""
        row = connection.execute(select(notifications).where(notifications.c.id == notification)).first()
        if row is None:
            return NotTaken("unknown")
        if row.page is None:
            return NotTaken("not_asked")
        return self.answer(connection, row.page, row.contact, answer, via, notification, now_us)

    def name_of(self, connection: Connection, contact: str) -> str:
        """What others are told of somebody who answered: a contact, or one of the staff."""
        return self._name(_Desk(self._book, connection, 0), contact)

    def standing(self, connection: Connection, page: str, now_us: int) -> Standing | None:
        """What is so of a page now; None where there is none. Names people: not for everybody."""
        row = connection.execute(select(pages).where(pages.c.id == page)).first()
        return self._standing(connection, row, now_us) if row is not None else None

    def _standing(self, connection: Connection, row: Any, now_us: int) -> Standing:
        found = _Found(connection, [row])
        desk = _Desk(self._book, connection, now_us)
        memory = Memory.model_validate_json(row.memory)
        going = escalation.who_go(found.answers[row.id], memory.void, row.kind)
        names = tuple(self._name(desk, one.contact) for one in going)
        return Standing(row.id, row.kind, row.state, names, max(row.needed - len(going), 0))

    # --- pages of other rooms -----------------------------------------------------------------------

    def tell(  # noqa: PLR0913 - a page's fields
        self,
        connection: Connection,
        *,
        route: str,
        group_key: str,
        kind: str,
        severity: Severity,
        to: Iterable[str],
        moment: str,
        facts: Mapping[str, Any],
        now_us: int,
        contacts: Iterable[str] = (),
        alert: str | None = None,
        key: str | None = None,
        asks: bool = True,
        anew: bool = False,
        ends: bool = False,
    ) -> str:
        """Tells everybody of the groups `to`, and the `contacts` themselves, at once: the id of the page.

        It is the page of (route, group_key) that is open, or a new one.

        Said again with the same `key` (without one: the moment) it tells only who was not told this yet, so that a case can be
        widened. The page has no steps; people's answers are kept and go to `on_answer`; it ends by `close`, or with `ends`,
        where nothing follows, once everybody was told: at the latest after 72 h.
        `anew`: a question that was asked before; who says the same as then is not taken to repeat it.
        """
        mine = select(pages).where(pages.c.route == route, pages.c.group_key == group_key)
        row = connection.execute(mine.where(pages.c.state != "closed").with_for_update()).first()
        if row is None:
            earlier = connection.scalar(select(func.count()).select_from(mine.subquery()))
            page = str(uuid.uuid5(_NAMESPACE, f"{route}/{group_key}/{earlier}"))
            _open(connection, page, route, group_key, kind, severity, 0, now_us)
            row = connection.execute(select(pages).where(pages.c.id == page)).one()
        if alert is not None:
            connection.execute(upsert(page_alerts), {"page": row.id, "alert": alert, "joined_us": now_us, "told_us": now_us})
        memory = Memory.model_validate_json(row.memory)
        memory.scripted = Scripted(moment=moment, facts=dict(facts), ends_us=now_us + LONGEST_TOLD_US if ends else None)
        if anew:
            last = select(answers.c.contact, func.max(answers.c.id)).where(answers.c.page == row.id).group_by(answers.c.contact)
            memory.void.update({one[0]: one[1] for one in connection.execute(last)})
        desk = _Desk(self._book, connection, now_us)
        people = {person.contact: person for name in to for person in desk.who(name, None)}
        people |= {person.contact: person for one in contacts if (person := desk.person(one)) is not None}
        kind_of = {contact: "update" if contact in memory.told else "alert" for contact in people}
        if not people and self._office:
            people = {person.contact: person for person in desk.who(self._office, None)}
            kind_of = dict.fromkeys(people, "office")
        for contact, person in people.items():
            tell = Tell(contact, kind_of[contact], moment, f"tell/{key or moment}", asks)  # type: ignore[arg-type]
            known = connection.scalar(
                select(notifications.c.id).where(
                    notifications.c.id.in_(message_id(row.id, contact, one, tell.key) for one in ("alert", "update", "office"))
                )
            )
            if known is None:
                self._say_to(connection, row, tell, person, facts, now_us)
                memory.told[contact] = Told(us=now_us)
        self._keep(connection, row, memory, "asking", now_us, due_us=now_us if ends else None)
        return str(row.id)

    def close(
        self, connection: Connection, page: str, now_us: int, *, moment: str, facts: Mapping[str, Any], but: Collection[str] = ()
    ) -> bool:
        """Ends a page of `tell`: everybody who was told hears it, except `but`. False where it is closed, or there is none."""
        row = connection.execute(select(pages).where(pages.c.id == page, pages.c.state != "closed").with_for_update()).first()
        if row is None:
            return False
        memory, desk = Memory.model_validate_json(row.memory), _Desk(self._book, connection, now_us)
        for contact in memory.told:
            person = desk.person(contact)
            if person is not None and contact not in but:
                self._say_to(connection, row, Tell(contact, "over", moment, "over", asks=False), person, facts, now_us)
        self._keep(connection, row, memory, "closed", now_us)
        return True

    def _say_to(
        self, connection: Connection, row: Any, tell: Tell, person: Person, facts: Mapping[str, Any], now_us: int
    ) -> None:
        id_ = message_id(row.id, tell.contact, tell.kind, tell.key)
        about = About(row.id, row.kind, row.severity, row.opened_us, (), facts=facts)
        queue(connection, person, self._teller.message(id_, person, tell, about, now_us), now_us, page=row.id)

    def _keep(
        self, connection: Connection, row: Any, memory: Memory, state: PageState, now_us: int, due_us: int | None = None
    ) -> None:
        done = connection.execute(
            update(pages)
            .where(pages.c.id == row.id, pages.c.version == row.version)
            .values(state=state, step=1, memory=memory.model_dump_json(exclude_defaults=True), version=row.version + 1,
                    due_us=due_us, closed_us=now_us if state == "closed" else None)
        )  # fmt: skip
        if done.rowcount != 1:
            raise _OvertakenError(row.id)


class _Found:
    """What belongs to some pages, read together."""

    def __init__(self, connection: Connection, rows: Sequence[Any]) -> None:
        """`rows`: at most as many as a statement takes parameters."""
        self.rows = rows
        its = {"its": [row.id for row in rows]}
        self.alerts: dict[str, list[tuple[Alert, int | None]]] = defaultdict(list)
        self.answers: dict[str, list[Said]] = defaultdict(list)
        self.lost: dict[str, set[str]] = defaultdict(set)
        self.waits: set[str] = set()
        for page, told_us, *values in connection.execute(_THEIR_ALERTS, its):
            self.alerts[page].append((Alert(**dict(zip(Alert.__slots__, values, strict=True))), told_us))
        for row in connection.execute(_THEIR_ANSWERS, its):
            self.answers[row.page].append(Said(row.id, row.contact, row.answer, row.at_us, row.created_us))
        states: dict[tuple[str, str], set[str]] = defaultdict(set)
        for query in (_THEIR_MESSAGES, _THEIR_DIGESTS):
            for page, contact, state in connection.execute(query, its):
                states[page, contact].add(state)
        for (page, contact), seen in states.items():
            if seen & {"queued", "hangs"}:
                self.waits.add(page)
            if seen & {"dead", "hangs"} and not seen & (_ALIVE | {"queued"}):
                self.lost[page].add(contact)


class _Desk:
    """The book, each page of it opened once a look."""

    def __init__(self, book: Directory, connection: Connection, now_us: int) -> None:
        self._book, self._connection, self._now_us = book, connection, now_us
        self._shelf = Shelf(connection)
        self._who: dict[tuple[str, Channel | None], list[Person]] = {}
        self._people: dict[str, Person | None] = {}
        self._names: dict[str, str] = {}

    def open(self, groups: Iterable[str]) -> None:
        """Everybody whom some pages may tell, read together."""
        self._shelf.open(set(groups))

    def who(self, name: str, by: Channel | None) -> list[Person]:
        if (name, by) not in self._who:
            self._who[name, by] = self._book.who(self._connection, name, self._now_us, by, self._shelf)
        return self._who[name, by]

    def person(self, contact: str, by: Channel | None = None) -> Person | None:
        """With the addresses of one channel only, where `by` says so."""
        if contact not in self._people:
            self._people[contact] = self._book.person(self._connection, contact, self._now_us, shelf=self._shelf)
        person = self._people[contact]
        if person is None or by is None:
            return person
        ways = tuple(address for address in person.addresses if address.channel == by)
        return person._replace(addresses=ways) if ways else None

    def name_of(self, contact: str) -> str:
        if contact not in self._names:
            self._names[contact] = self._book.name_of(self._connection, contact)
        return self._names[contact]


def due_pages(now_us: int) -> Select[Any]:
    """Which pages are to be looked at now. Of the years of closed ones none is read."""
    due = or_(pages.c.changed.is_(True), pages.c.due_us <= now_us)
    return select(pages.c.id).where(pages.c.state.in_(OPEN), due).order_by(pages.c.opened_us, pages.c.id).limit(AT_ONCE)


def _rings(tell: Tell, said: Sequence[Said]) -> bool:
    """Whether this is worth a telephone call: what asks, and to who is on their way that it is over."""
    if tell.kind == "over":
        last = {one.contact: one.answer for one in said}
        return last.get(tell.contact) in ("going", "done")
    return tell.asks or tell.kind in ("alert", "office")


def _in_silence(person: Person) -> Person | None:
    """Over the first channel on which a second message costs nobody a ring; None for who has none such."""
    silent = [address.channel for address in person.addresses if address.channel in ("line", "push")]
    addresses = tuple(address for address in person.addresses if address.channel in silent[:1])
    return person._replace(addresses=addresses) if addresses else None


def _without_calls(person: Person) -> Person | None:
    """None for who has a telephone only."""
    addresses = tuple(address for address in person.addresses if address.channel != "voice")
    return person._replace(addresses=addresses) if addresses else None


def message_id(page: str, contact: str, kind: str, key: str) -> str:
    """The same for the same thing said to the same contact of the same page, for ever."""
    return str(uuid.uuid5(uuid.UUID(page), f"{contact}/{kind}/{key}"))


def _open(connection: Connection, page: str, route: str, group: str, kind: str, severity: str, needed: int, now_us: int) -> None:
    connection.execute(
        _ADD_PAGE,
        {"id": page, "route": route, "group_key": group, "severity": severity, "kind": kind, "state": "waiting", "needed": needed,
         "step": 0, "round": 0, "opened_us": now_us, "changed": True, "memory": "{}", "version": 1},
    )  # fmt: skip


def _fires(move: Move) -> bool:
    """Whether it is something that people may have to hear."""
    return move.alert.state == "firing" and move.before != "firing"


def _urgency(one: _Ready) -> tuple[int, int, str]:
    return _SEVERITIES.index(one.about.severity), one.about.opened_us, one.id


def _worst(severity: Severity, speaking: Sequence[Alert]) -> Severity:
    found = [severity, *(one for alert in speaking for one in _SEVERITIES if one == alert.severity)]
    return min(found, key=RANK.__getitem__)


def _cooled(connection: Connection, row: Any) -> int | None:
    """When the last message of an earlier page of this group was really sent."""
    earlier = select(pages.c.id).where(pages.c.route == row.route, pages.c.group_key == row.group_key, pages.c.id != row.id)
    last = select(func.max(notifications.c.sent_us))
    alone = last.where(notifications.c.page.in_(earlier), notifications.c.kind.in_(("alert", "again")))
    of_digest = last.join(digest_pages, digest_pages.c.notification == notifications.c.id)
    found = (connection.scalar(alone), connection.scalar(of_digest.where(digest_pages.c.page.in_(earlier))))
    return max((at_us for at_us in found if at_us is not None), default=None)


def _by_visit(connection: Connection, mine: Sequence[Alert]) -> bool:
    """Whether somebody's visit ended them."""
    why = connection.scalars(
        select(alert_history.c.why).where(
            alert_history.c.alert.in_([alert.id for alert in mine]), alert_history.c.after == "resolved"
        )
    )
    return any(one.startswith("trap_visited") for one in why)


def _parts(ids: Sequence[str]) -> list[Sequence[str]]:
    return [ids[at : at + _IN] for at in range(0, len(ids), _IN)]
