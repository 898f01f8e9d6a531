"""The search for a missing person: opened, told to everybody at once, widened, renewed or paused, and ended. Nothing of pages.

A case is a row of `search_cases`, at most one unended for a person. What it does follows from the row and `now`: `tick` may be
repeated. Only `found` by family or office, or an officer, ends it. Each change is in `search_changes` with who and when. Where a
tag was stands in the state database only, and is forgotten with the sightings (gateway.keeping.places).
"""

import json
import logging
import uuid
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

from sqlalchemy import Connection, Row, func, insert, or_, select, update

from gateway.alerting.lifecycle import Alert, resolve
from gateway.contacts.book import Book
from gateway.deployments import Deployments
from gateway.mimamori.config import SearchConfig
from gateway.mimamori.enrolled import WATCHED
from gateway.moves import write_move
from gateway.notify.message import Answer
from gateway.paging import STAFF, Paging, Standing
from gateway.rules.presence import ENTERED, PRESSED, SEEN
from gateway.state import State
from gateway.state.tables import (
    alerts,
    contacts,
    events,
    memberships,
    notifications,
    rule_states,
    search_cases,
    search_changes,
    search_sightings,
    tags,
    watched,
)
from gateway.state.upsert import upsert
from gateway.words.refusal import Refusal

log = logging.getLogger(__name__)

SEARCH, HELP = "search", "search_help"
"""The kinds (and routes) of its two pages: that of family and office, that of everybody else who was asked."""
TIME = "time"
"""Who changed it where nobody did."""
UNENDED = ("open", "paused")
AT_ONCE = 2000
_MISSED = frozenset(("left home", "not seen", "tag button"))
"""Summaries of alerts that are over when the person is found."""
_HEARD = (ENTERED, SEEN, PRESSED)
_ARRIVED = frozenset(("sent", "seen", "answered"))

CaseState = Literal["open", "paused", "found", "closed"]


class NoSearchError(Refusal):
    """It can't be done."""


class NobodyError(NoSearchError):
    """There is no such person."""


class Opened(NamedTuple):
    """The case, and whether it is a new one."""

    case: str
    is_new: bool


class Reached(NamedTuple):
    """How many people its messages arrived at, of how many who should have them."""

    office: int
    office_all: int
    helpers: int
    helpers_all: int


class Audience(NamedTuple):
    """How many people would be told at once, of each group; who is in two of them counts in both."""

    family: int
    office: int
    volunteers: int


class Seen(NamedTuple):
    """Where a tag was heard while the case was open."""

    place: str
    first_us: int
    last_us: int


class Search:
    """Safe on many threads. Everything but `tick` works in the caller's transaction."""

    def __init__(
        self,
        state: State,
        config: SearchConfig,
        book: Book,
        deployments: Deployments,
        paging: Callable[[], Paging],
        *,
        office: str | None,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`paging` is asked for when somebody is to be told: it asks us back. `ring` says that messages were committed."""
        self._state, self._config, self._book, self._deployments = state, config, book, deployments
        self._paging, self._office, self._ring = paging, office, ring
        self._broken: set[str] = set()

    @property
    def office(self) -> str | None:
        """The contact or group that is the office."""
        return self._office

    # --- what people do -------------------------------------------------------------------------------

    def open(self, connection: Connection, id_: str, reason: str, who: str, now_us: int) -> Opened:
        """Opens a case for this person and tells everybody. Who is second finds the first one's, and renews it where it paused.

        NobodyError where there is no such person, NoSearchError where there is no reason.
        """
        person = self._person(connection, id_)
        if not reason.strip():
            raise NoSearchError("why.search_why")
        case = str(uuid.uuid4())
        values = {"id": case, "watched": id_, "state": "open", "reason": reason.strip(), "opened_us": now_us, "opened_by": who,
                  "step": 0, "renewed_us": now_us, "cursor": connection.scalar(select(func.max(events.c.id))) or 0}  # fmt: skip
        if connection.execute(upsert(search_cases), values).rowcount != 1:
            row = self.unended(connection, id_)
            if row is None:
                raise NoSearchError("why.search_again")
            if row.state == "paused":
                self.renew(connection, row.id, who, now_us)
            return Opened(row.id, is_new=False)
        self._note(connection, case, now_us, who, "opened", reason.strip())
        row = self.case(connection, case)
        facts = self._facts(connection, row, person, now_us)
        page = self._tell_keepers(connection, row, person, "search.opened", facts, now_us, asks=True)
        helpers = None
        if self._config.volunteers:
            helpers = self._tell_helpers(connection, row, [self._config.volunteers], "search.opened", facts, now_us, asks=True)
        connection.execute(update(search_cases).where(search_cases.c.id == case).values(page=page, helpers_page=helpers))
        return Opened(case, is_new=True)

    def audience(self, connection: Connection, id_: str, now_us: int) -> Audience:
        """Whom `open` would tell now: those that something reaches, and who stands in for who is away.

        NobodyError where there is no such person.
        """
        groups = (self._person(connection, id_).family, self._office, self._config.volunteers)
        told = (self._book.who(connection, one, now_us) if one else [] for one in groups)
        return Audience(*(len({person.contact for person in people}) for people in told))

    def renew(self, connection: Connection, case: str, who: str, now_us: int) -> bool:
        """It goes on; a paused one is open again, and its volunteers know. False where it is over."""
        row = self.case(connection, case)
        changed = {"state": "open", "renewed_us": now_us, "asked_us": None}
        if row.state not in UNENDED or not self._set(connection, row, **changed):
            return False
        self._note(connection, case, now_us, who, "renewed", "")
        person = self._person(connection, row.watched)
        facts = self._facts(connection, row, person, now_us)
        if row.state == "paused" or row.asked_us is not None:
            self._tell_keepers(connection, row, person, "search.renewed", facts, now_us, key=f"renewed/{now_us}")
        if row.state == "paused" and row.helpers_page is not None:
            self._tell_helpers(connection, row, self._asked_groups(row), "search.renewed", facts, now_us, key=f"renewed/{now_us}")
        return True

    def found(self, connection: Connection, case: str, who: str, now_us: int) -> bool:
        """They are found: everybody who was told hears it, and the alerts that missed them are over. False where it is over."""
        return self._end(connection, case, "found", who, "", now_us)

    def close(self, connection: Connection, case: str, who: str, why: str, now_us: int) -> bool:
        """An officer ends it. False where it is over."""
        return self._end(connection, case, "closed", who, why, now_us)

    def on_answer(
        self, connection: Connection, page: Standing, mine: Sequence[Alert], contact: str, answer: Answer, now_us: int
    ) -> None:
        """What family or office answer to a message (gateway.paging.OnAnswer). Of anybody else it is an answer and no more."""
        if answer not in ("search", "found"):
            return
        if page.kind == SEARCH:
            row = connection.execute(select(search_cases).where(search_cases.c.page == page.page)).first()
            ids = [] if row is None else [row.watched]
        else:
            ids = list(dict.fromkeys(alert.device for alert in mine if alert.node == WATCHED))
        for id_ in ids:
            if not self.may_keep(connection, id_, contact, now_us):
                log.warning("search: an answer of somebody who is neither family nor office of a person changes nothing")
                continue
            row = self.unended(connection, id_)
            if answer == "found" and row is not None:
                self.found(connection, row.id, contact, now_us)
            elif answer == "search" and row is not None:
                self.renew(connection, row.id, contact, now_us)
            elif answer == "search":
                why = ", ".join(dict.fromkeys(alert.summary for alert in mine)) or "answer"
                self.open(connection, id_, why, contact, now_us)

    # --- who may, and what they see --------------------------------------------------------------------

    def may_keep(self, connection: Connection, id_: str, contact: str, now_us: int) -> bool:
        """Whether they are family of this person, or office, or stand in for one of those; or staff, who come by the API."""
        if contact.startswith(STAFF):
            return True
        family = connection.scalar(select(watched.c.family).where(watched.c.id == id_))
        groups = [one for one in (family, self._office) if one is not None]
        return family is not None and self._is_one_of(connection, groups, contact, now_us)

    def is_family(self, connection: Connection, id_: str, contact: str, now_us: int) -> bool:
        """Whether they are family of this person, or stand in for one, whatever else they are."""
        family = connection.scalar(select(watched.c.family).where(watched.c.id == id_))
        return family is not None and self._is_one_of(connection, [family], contact, now_us)

    def _is_one_of(self, connection: Connection, groups: Sequence[str], contact: str, now_us: int) -> bool:
        if contact in groups:
            return True
        is_member = select(memberships.c.contact).join(contacts, contacts.c.id == memberships.c.contact)
        is_member = is_member.where(memberships.c.contact == contact, memberships.c.team.in_(groups))
        if connection.scalar(is_member.where(contacts.c.removed_us.is_(None)).limit(1)) is not None:
            return True
        return any(person.contact == contact for one in groups for person in self._book.who(connection, one, now_us))

    def was_asked(self, connection: Connection, row: Row[Any], contact: str) -> bool:
        """Whether this contact was asked to help in the case."""
        query = select(notifications.c.id).where(notifications.c.page == row.helpers_page, notifications.c.contact == contact)
        return row.helpers_page is not None and connection.scalar(query.limit(1)) is not None

    def withheld(self, connection: Connection, notification: Row[Any]) -> str | None:
        """Why a volunteer may no longer read this message: an id below `screen.`; None where they may, or it is none of ours."""
        state = connection.scalar(select(search_cases.c.state).where(search_cases.c.helpers_page == notification.page))
        if notification.page is None or state is None or state == "open":
            return None
        return "screen.search_paused" if state == "paused" else "screen.search_over"

    def case(self, connection: Connection, case: str) -> Row[Any]:
        """Its row. NoSearchError where there is none."""
        row = connection.execute(select(search_cases).where(search_cases.c.id == case)).first()
        if row is None:
            raise NoSearchError("why.no_search")
        return row

    @staticmethod
    def unended(connection: Connection, id_: str) -> Row[Any] | None:
        """The open or paused case of a person."""
        query = select(search_cases).where(search_cases.c.watched == id_, search_cases.c.state.in_(UNENDED))
        return connection.execute(query).first()

    def pauses_us(self, row: Row[Any]) -> int | None:
        """When it pauses unless somebody renews it; None where it is not open."""
        return row.renewed_us + int(self._config.renew_every * 1e6) if row.state == "open" else None

    def reached(self, connection: Connection, row: Row[Any]) -> Reached:
        """By the delivery ledger: what a provider took counts as arrived, what is queued does not."""
        office, office_all = set[str](), set[str]()
        if self._office is not None:
            office_all = self._members(connection, [self._office])
            office = self._arrived(connection, row.page) & office_all
        helpers_all = self._members(connection, self._asked_groups(row)) if row.helpers_page else set()
        helpers_all |= self._told(connection, row.helpers_page)
        return Reached(len(office), len(office_all), len(self._arrived(connection, row.helpers_page)), len(helpers_all))

    def sightings(self, connection: Connection, case: str) -> list[Seen]:
        """Where the tags were heard while it was open, the newest first."""
        query = select(search_sightings).where(search_sightings.c.case == case).order_by(search_sightings.c.last_us.desc())
        found: dict[str, Seen] = {}
        for row in connection.execute(query):
            place = self._deployments.of(row.node, row.device).place
            known = found.get(place)
            first_us = min(row.first_us, known.first_us) if known else row.first_us
            found[place] = Seen(place, first_us, max(row.last_us, known.last_us) if known else row.last_us)
        return list(found.values())

    # --- time ------------------------------------------------------------------------------------------

    def tick(self, now_us: int) -> None:
        """Looks at every unended case: a chore of a few seconds. One that fails is logged once, and stops no other."""
        with self._state.read() as connection:
            ids = connection.scalars(select(search_cases.c.id).where(search_cases.c.state.in_(UNENDED))).all()
        for id_ in ids:
            try:
                with self._state.write() as connection:
                    self._look(connection, self.case(connection, id_), now_us)
                self._broken.discard(id_)
            except Exception:
                if id_ not in self._broken:
                    self._broken.add(id_)
                    log.exception("search %s can't be looked at; it is tried again", id_)
        if ids:
            self._ring()

    def _look(self, connection: Connection, row: Row[Any], now_us: int) -> None:
        if row.state not in UNENDED:
            return
        person, config = self._person(connection, row.watched), self._config
        self._gather(connection, row)
        if row.state == "paused":
            return  # what is heard meanwhile is there when somebody goes on
        self._tell_sightings(connection, row, person, now_us)
        if row.counted_us is None and now_us >= row.opened_us + config.count_after * 1e6:
            self._tell_count(connection, row, person, now_us)
        row = self._widen(connection, row, person, now_us)
        pause_us = row.renewed_us + int(config.renew_every * 1e6)
        if now_us >= pause_us:
            self._pause(connection, row, person, now_us)
        elif row.asked_us is None and now_us >= pause_us - int(config.ask_before * 1e6):
            self._ask(connection, row, person, now_us)

    def _gather(self, connection: Connection, row: Row[Any]) -> None:
        """Takes note of where the tags were heard since the last look."""
        query = select(events.c.id, events.c.node, events.c.device, events.c.time_us, events.c.body)
        query = query.where(events.c.id > row.cursor, events.c.type.in_(_HEARD)).order_by(events.c.id).limit(AT_ONCE)
        theirs = set(connection.scalars(select(tags.c.tag).where(tags.c.watched == row.watched)))
        new = connection.execute(query).all()
        last = connection.execute(
            select(search_sightings).where(search_sightings.c.case == row.id).order_by(search_sightings.c.last_us.desc())
        ).all()
        known = {(one.node, one.device): one._asdict() for one in last}
        at = (last[0].node, last[0].device) if last else None
        changed = set()
        for event in new:
            if json.loads(event.body).get("tag") not in theirs:
                continue
            here = (event.node, event.device)
            one = known.setdefault(
                here, {"case": row.id, "node": event.node, "device": event.device, "first_us": event.time_us, "last_us": 0}
            )
            if event.time_us <= one["last_us"]:
                continue
            one["last_us"] = event.time_us
            if at is None or event.time_us >= known[at]["last_us"]:
                one["told"] = one.get("told", False) if here == at else False
                at = here
            one.setdefault("told", False)
            changed.add(here)
        if changed:
            rows = [known[one] for one in sorted(changed)]
            connection.execute(upsert(search_sightings, "last_us", "told"), rows)
        if new:
            connection.execute(update(search_cases).where(search_cases.c.id == row.id).values(cursor=new[-1].id))

    def _tell_sightings(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> None:
        if row.told_us is not None and now_us - row.told_us < self._config.sightings_every * 1e6:
            return
        if self.is_stopped(connection, person.id):
            return
        mine = search_sightings.c.case == row.id
        new = connection.execute(
            select(search_sightings).where(mine, search_sightings.c.told.is_(False)).order_by(search_sightings.c.last_us)
        ).all()
        for one in new:
            place = self._deployments.of(one.node, one.device).place
            facts = {**self._base(person, row), "place": place, "when": one.last_us, "age": max(now_us - one.last_us, 0)}
            key = f"sighting/{one.node}/{one.device}/{one.last_us}"
            self._tell_keepers(connection, row, person, "search.sighting", facts, now_us, key=key, asks=True)
        if new:
            connection.execute(update(search_sightings).where(mine).values(told=True))
            connection.execute(update(search_cases).where(search_cases.c.id == row.id).values(told_us=now_us))

    def _tell_count(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> None:
        reached = self.reached(connection, row)
        facts = {**self._base(person, row), "office_reached": reached.office, "office_all": reached.office_all,
                 "helpers_reached": reached.helpers, "helpers_all": reached.helpers_all}  # fmt: skip
        self._tell_keepers(connection, row, person, "search.delivered", facts, now_us)
        connection.execute(update(search_cases).where(search_cases.c.id == row.id).values(counted_us=now_us))

    def _widen(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> Row[Any]:
        steps = self._config.step
        while row.step < len(steps) and now_us >= row.opened_us + int(steps[row.step].after * 1e6):
            step = steps[row.step]
            if not self._set(connection, row, step=row.step + 1):
                return self.case(connection, row.id)
            labels = [self._book.label_of(name) for name in step.to]
            self._note(connection, row.id, now_us, TIME, "widened", ", ".join(step.to))
            facts = {**self._facts(connection, row, person, now_us), "when": row.opened_us}
            helpers = self._tell_helpers(connection, row, step.to, "search.opened", facts, now_us, asks=True)
            if row.helpers_page is None and helpers is not None:
                connection.execute(update(search_cases).where(search_cases.c.id == row.id).values(helpers_page=helpers))
            self._tell_keepers(
                connection, row, person, "search.widened", {**facts, "area": "・".join(labels)}, now_us, key=f"widened/{row.step}"
            )
            row = self.case(connection, row.id)
        return row

    def _ask(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> None:
        if not self._set(connection, row, asked_us=now_us):
            return
        self._note(connection, row.id, now_us, TIME, "asked", "")
        facts, key = {**self._base(person, row), "age": now_us - row.opened_us}, f"renew/{row.renewed_us}"
        self._tell_keepers(connection, row, person, "search.renew", facts, now_us, key=key, asks=True, anew=True)

    def _pause(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> None:
        if not self._set(connection, row, state="paused", asked_us=now_us):
            return
        self._note(connection, row.id, now_us, TIME, "paused", "")
        facts, key = self._base(person, row), f"paused/{row.renewed_us}"
        self._tell_keepers(connection, row, person, "search.paused", facts, now_us, key=key, asks=True, anew=True)
        if row.helpers_page is not None:
            self._tell_helpers(connection, row, self._asked_groups(row), "search.suspended", facts, now_us, key=key)

    # --- inside ----------------------------------------------------------------------------------------

    def _end(self, connection: Connection, case: str, state: CaseState, who: str, why: str, now_us: int) -> bool:
        row = self.case(connection, case)
        if row.state not in UNENDED or not self._set(connection, row, state=state, ended_us=now_us, ended_by=who):
            return False
        self._note(connection, case, now_us, who, state, why)
        facts, paging = self._base(self._person(connection, row.watched), row), self._paging()
        for page in (row.page, row.helpers_page):
            if page is not None:
                paging.notices.close(connection, page, now_us, moment=f"search.{state}", facts=facts, but=(who,))
        if state == "found":
            self._resolve_missed(connection, row.watched, who, now_us)
        return True

    def _resolve_missed(self, connection: Connection, id_: str, who: str, now_us: int) -> None:
        columns = [alerts.c[name] for name in Alert.__slots__]
        mine = select(*columns).where(alerts.c.node == WATCHED, alerts.c.device == id_, alerts.c.state != "resolved")
        for row in connection.execute(mine.where(alerts.c.summary.in_(_MISSED))).all():
            move = resolve(Alert(**row._mapping), who, "found", now_us)
            if move is not None and write_move(connection, move, now_us):
                self._paging().moved(connection, move, now_us)

    def _tell_keepers(  # noqa: PLR0913 - what is said
        self, connection: Connection, row: Row[Any], person: Row[Any], moment: str, facts: Mapping[str, Any], now_us: int, *,
        key: str | None = None, asks: bool = False, anew: bool = False,
    ) -> str:  # fmt: skip
        to = [person.family, *([self._office] if self._office else [])]
        return self._paging().notices.tell(
            connection, route=SEARCH, group_key=row.id, kind=SEARCH, severity="critical", to=to, moment=moment, facts=facts,
            now_us=now_us, key=key, asks=asks, anew=anew,
        )  # fmt: skip

    def _tell_helpers(
        self, connection: Connection, row: Row[Any], to: Sequence[str], moment: str, facts: Mapping[str, Any], now_us: int, *,
        key: str | None = None, asks: bool = False,
    ) -> str | None:  # fmt: skip
        """None where nobody of them can be told: then it is not said to anybody else."""
        if not any(self._book.who(connection, name, now_us) for name in to):
            return None
        return self._paging().notices.tell(
            connection, route=HELP, group_key=row.id, kind=HELP, severity="critical", to=to, moment=moment, facts=facts,
            now_us=now_us, key=key, asks=asks,
        )  # fmt: skip

    def _asked_groups(self, row: Row[Any]) -> list[str]:
        """The groups that were asked to help so far."""
        names = [self._config.volunteers] if self._config.volunteers else []
        return list(dict.fromkeys([*names, *(name for step in self._config.step[: row.step] for name in step.to)]))

    def _base(self, person: Row[Any], row: Row[Any]) -> dict[str, Any]:
        return {"watched": person.id, "search": row.id, "who": person.name}

    def _facts(self, connection: Connection, row: Row[Any], person: Row[Any], now_us: int) -> dict[str, Any]:
        """With where a tag was heard last, before the case or in it."""
        place, seen_us = self.last_seen(connection, person.id)
        known = [] if self.is_stopped(connection, person.id) else self.sightings(connection, row.id)
        for one in known[:1]:
            if seen_us is None or one.last_us >= seen_us:
                place, seen_us = one.place, one.last_us
        return {**self._base(person, row), "place": place, "seen_us": seen_us, "never_seen": seen_us is None, "when": now_us}

    @staticmethod
    def is_stopped(connection: Connection, id_: str) -> bool:
        """Whether a tag of theirs was reported, and no officer has decided yet: till then nobody else sees where it was."""
        stopped = select(tags.c.tag).where(tags.c.watched == id_, tags.c.stopped_us.is_not(None))
        return connection.scalar(stopped.limit(1)) is not None

    def last_seen(self, connection: Connection, id_: str) -> tuple[str | None, int | None]:
        """Where a tag of this person was heard last, as the rules remember, and when."""
        best: tuple[str | None, int | None] = (None, None)
        if self.is_stopped(connection, id_):
            return best
        query = select(rule_states.c.body).where(rule_states.c.node == WATCHED, rule_states.c.device == id_)
        for body in connection.scalars(query):
            memory = json.loads(body)
            if "seen_at" in memory and (best[1] is None or memory["seen_us"] > best[1]):
                node, _, device = memory["seen_at"].partition("/")
                best = (self._deployments.of(node, device).place, memory["seen_us"])
        return best

    def _person(self, connection: Connection, id_: str) -> Row[Any]:
        row = connection.execute(select(watched).where(watched.c.id == id_)).first()
        if row is None:
            raise NobodyError("why.nobody")
        return row

    @staticmethod
    def _set(connection: Connection, row: Row[Any], **values: Any) -> bool:
        """Compare-and-set: False where somebody else has changed it since it was read."""
        same = (search_cases.c.state == row.state, search_cases.c.renewed_us == row.renewed_us, search_cases.c.step == row.step)
        return connection.execute(update(search_cases).where(search_cases.c.id == row.id, *same).values(**values)).rowcount == 1

    @staticmethod
    def _note(connection: Connection, case: str, now_us: int, who: str, what: str, why: str) -> None:
        connection.execute(insert(search_changes), {"case": case, "at_us": now_us, "who": who, "what": what, "why": why})

    def _members(self, connection: Connection, groups: Sequence[str]) -> set[str]:
        """Everybody who should be reached: members, those included whom nothing reaches; a configured contact is one."""
        query = select(memberships.c.contact).join(contacts, contacts.c.id == memberships.c.contact)
        query = query.where(memberships.c.team.in_(groups), contacts.c.removed_us.is_(None))
        found = set(connection.scalars(query))
        return found | {person.contact for name in groups for person in self._book.who(connection, name, 0, "webhook")}

    @staticmethod
    def _told(connection: Connection, page: str | None) -> set[str]:
        if page is None:
            return set()
        return set(connection.scalars(select(notifications.c.contact).where(notifications.c.page == page)))

    @staticmethod
    def _arrived(connection: Connection, page: str | None) -> set[str]:
        """Contacts whom some message of the page has arrived at."""
        if page is None:
            return set()
        took = or_(notifications.c.state.in_(_ARRIVED), notifications.c.sent_us.is_not(None))
        return set(connection.scalars(select(notifications.c.contact).where(notifications.c.page == page, took)))
