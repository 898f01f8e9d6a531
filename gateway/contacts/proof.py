"""How we know that a message would arrive: each address is proved by an answered test, now and then anew.

What is known goes by level: addresses say what was heard over them, and the periodic look says who can't be reached. An answer of
any kind proves the address it came over, so who answers often is seldom tested. Nobody is woken by a test: those that are
due by the calendar go out by day and outside of quiet hours.
"""

import datetime as dt
import logging
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select, update

from gateway.contacts import people
from gateway.contacts.book import Book, Unreachable, unreachable
from gateway.contacts.config import PeopleConfig
from gateway.contacts.person import Address, Person
from gateway.notify.message import Language, Message
from gateway.notify.queue import mark_answered, queue
from gateway.state import State
from gateway.state.tables import addresses, notifications
from gateway.words import buttons_for, spoken, words

log = logging.getLogger(__name__)

BY_DAY = (dt.time(9), dt.time(18))
"""Between these, by the gateway's zone, tests go out that nobody waits for."""
REPEAT_US = 60 * 1_000_000
"""A test asked for again so soon is the same."""
DAY_US = 86_400 * 1_000_000
AT_ONCE = 20
"""Tests that one look sends at most: what a channel may send is for alerts first."""
FINAL = frozenset(("unfollowed", "bounced", "gone", "number"))
"""Why an address is not even tested: only what comes from it revives it."""
_IDS = uuid.UUID("5f0c5c5e-2a57-5d0f-9c39-1c6f0a8f2f11")


def lost(connection: Connection, address: str, why: str, now_us: int) -> bool:
    """This address (its id) leads nowhere: unfollowed, bounced, gone, unanswered. False where that was known, or there is none.

    Open pages that asked its contact are thought over at once. The office hears of it when the contact has no other.
    """
    row = connection.execute(select(addresses.c.contact).where(addresses.c.id == address)).first()
    if row is None:
        return False
    done = connection.execute(
        update(addresses)
        .where(addresses.c.id == address, addresses.c.state != "unreachable")
        .values(state="unreachable", why=why[:40])
    )
    if done.rowcount != 1:
        return False
    people.look_again(connection, row.contact)
    log.info("address %s of contact %s is unreachable since %d: %s", address, row.contact, now_us, why)
    return True


def heard(connection: Connection, address: str, now_us: int) -> bool:
    """Something that only its owner can say came over this address (its id): it is proved. False where there is none."""
    row = connection.execute(select(addresses).where(addresses.c.id == address)).first()
    if row is None:
        return False
    connection.execute(
        update(addresses)
        .where(addresses.c.id == address)
        .values(state="proved", why=None, proved_us=row.proved_us or now_us, heard_us=max(row.heard_us or 0, now_us))
    )
    if row.state != "proved":
        people.look_again(connection, row.contact)
    return True


class Answered(NamedTuple):
    """A test that its contact answered."""

    contact: str
    address: str
    first: bool
    """Whether the address was not proved before."""


def answered(connection: Connection, notification: str, now_us: int) -> Answered | None:
    """The answer to a test: its address is proved. None where the notification is no test of an address that is still there."""
    row = connection.execute(
        select(notifications.c.kind, notifications.c.address, addresses.c.contact, addresses.c.state)
        .join(addresses, addresses.c.id == notifications.c.address)
        .where(notifications.c.id == notification)
    ).first()
    if row is None or row.kind != "test":
        return None
    mark_answered(connection, notification, now_us)
    heard(connection, row.address, now_us)
    return Answered(row.contact, row.address, row.state != "proved")


class Proof:
    """Sends tests and looks what came of them. Safe on many threads."""

    def __init__(
        self,
        state: State,
        book: Book,
        config: PeopleConfig,
        zone: ZoneInfo,
        answer_url: Callable[[str, int], str] | None = None,
        tell: Callable[[Sequence[Unreachable], int], None] = lambda _rows, _now_us: None,
        ring: Callable[[], None] = lambda: None,
    ) -> None:
        """`answer_url(notification, expires_us)`: the signed page. `tell(rows, now_us)`: at each look, whom no address reaches.

        `ring`: something was queued.
        """
        self._state, self._book, self._config, self._zone = state, book, config, zone
        self._answer_url, self._tell, self._ring = answer_url, tell, ring
        self._within_us, self._every_us = config.test_within * 1_000_000, config.test_every * 1_000_000

    @property
    def book(self) -> Book:
        """Who is who."""
        return self._book

    def test(self, connection: Connection, address: str, now_us: int, *, wait: bool = False, again_us: int = REPEAT_US) -> str:
        """Queues a test of this address (its id), at once, or (`wait`) after its contact's quiet hours; the notification's id.

        Repeated within `again_us` it is the same test. NotDone where there is no such address.
        """
        row = connection.execute(select(addresses).where(addresses.c.id == address)).first()
        if row is None:
            raise people.NotDone("unknown", "why.no_address")
        if row.tested_us is not None and 0 <= now_us - row.tested_us < again_us:
            return test_id(address, row.tested_us)
        known = people.require(connection, row.contact)
        person = self._book.person(connection, row.contact, now_us, testing=True)
        language: Language = person.language if person else "ja"
        id_ = test_id(address, now_us)
        queue(
            connection,
            Person(row.contact, known.name, language, (Address(row.id, row.channel, row.address),)),
            self._message(id_, language, now_us, first=row.proved_us is None),
            now_us,
            due_us=person.quiet_until_us if wait and person else None,
        )
        connection.execute(update(addresses).where(addresses.c.id == address).values(tested_us=now_us))
        self._ring()
        return id_

    def run(self, now_us: int) -> None:
        """One look: what was tested and never answered, what is due to be tested, whom nothing reaches."""
        with self._state.write() as connection:
            rows = connection.execute(select(addresses).order_by(addresses.c.tested_us, addresses.c.id)).all()
            for row in rows:
                why = self._fault(connection, row, now_us)
                if why:
                    lost(connection, row.id, why, now_us)
            if self._is_day(now_us):
                self._test_due(connection, now_us)
        with self._state.read() as connection:
            found = unreachable(connection)
        self._tell(found, now_us)

    def _fault(self, connection: Connection, row: Any, now_us: int) -> str | None:
        """Why an address is lost now by its last test; None where it is not, or was already."""
        if row.state == "unreachable" or row.tested_us is None or _is_answered(row):
            return None
        test = _test_of(connection, row)
        if test is not None and test.state == "queued":
            return None  # not their silence: it has not left us
        if test is not None and test.sent_us is not None:
            return "unanswered" if now_us >= test.sent_us + self._within_us else None
        # It could not be sent at all, and was tried again each day since.
        last_us = row.created_us if row.heard_us is None else row.heard_us + self._every_us
        return "undelivered" if now_us >= max(last_us, row.created_us) + self._within_us else None

    def _test_due(self, connection: Connection, now_us: int) -> None:
        sent = 0
        for row in connection.execute(select(addresses).order_by(addresses.c.tested_us, addresses.c.id)).all():
            if sent < AT_ONCE and self._is_due(connection, row, now_us):
                person = self._book.person(connection, row.contact, now_us, testing=True)
                if person is None or person.quiet_until_us is None:
                    self.test(connection, row.id, now_us)
                    sent += 1

    def _is_due(self, connection: Connection, row: Any, now_us: int) -> bool:
        if row.why in FINAL:
            return False
        if row.tested_us is None:
            return True
        if now_us - max(row.tested_us, row.heard_us or 0) >= self._every_us:
            return True
        if _is_answered(row) or row.state == "unreachable" or now_us - row.tested_us < DAY_US:
            return False
        test = _test_of(connection, row)
        return test is None or (test.sent_us is None and test.state != "queued")

    def _is_day(self, now_us: int) -> bool:
        return BY_DAY[0] <= dt.datetime.fromtimestamp(now_us / 1e6, self._zone).time() < BY_DAY[1]

    def _message(self, id_: str, language: Language, now_us: int, *, first: bool) -> Message:
        until_us = now_us + self._within_us
        said = words(language, "contact.test" if first else "contact.test_again", zone=self._zone, when=until_us)
        called = words(language, "contact.test").spoken  # by telephone nobody reads a date, and every test is the same
        buttons = buttons_for("test", "test", language)
        return Message(
            id=id_,
            kind="test",
            severity="info",
            language=language,
            title=said.title,
            body=said.body,
            spoken=spoken(self._config.town, called, [button.answer for button in buttons], language),
            buttons=buttons,
            answer_url=self._answer_url(id_, until_us) if self._answer_url else None,
        )


def test_id(address: str, tested_us: int) -> str:
    """The notification of the test sent then."""
    return str(uuid.uuid5(_IDS, f"{address}:{tested_us}"))


def _test_of(connection: Connection, row: Any) -> Any:
    columns = select(notifications.c.state, notifications.c.sent_us)
    return connection.execute(columns.where(notifications.c.id == test_id(row.id, row.tested_us))).first()


def _is_answered(row: Any) -> bool:
    return row.heard_us is not None and row.heard_us >= row.tested_us
