"""「留守にします」 and 「戻りました」: who is not there, until when, and who is told meanwhile."""

import datetime as dt
from typing import Final, Literal, NamedTuple
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, update

from gateway.contacts import people
from gateway.contacts.book import Book
from gateway.contacts.quiet import wall_us
from gateway.state.tables import contacts

LONGEST_US = 366 * 86_400 * 1_000_000
Choice = Literal["today", "tomorrow", "week"]
_DAYS: dict[Choice, int] = {"today": 1, "tomorrow": 2, "week": 8}
SAME: Final = ""
"""In place of a deputy: the one they named before."""


class Away(NamedTuple):
    """What was noted."""

    until_us: int
    deputy: str | None
    """Who is told meanwhile, by their contact id: the first of the chain of deputies who is there. None: nobody is."""
    deputy_name: str | None


def away(connection: Connection, book: Book, contact: str, until_us: int, now_us: int, deputy: str | None = SAME) -> Away:
    """Somebody is not there from now until then. `deputy`: a contact's id, None for nobody, SAME for who it was before.

    NotDone for a time that is over or more than a year away, and for a deputy who can't be one.
    """
    if not now_us < until_us <= now_us + LONGEST_US:
        raise people.NotDone("wrong", "why.away_until")
    people.change(connection, contact, {} if deputy == SAME else {"deputy": deputy})
    connection.execute(update(contacts).where(contacts.c.id == contact).values(away_until_us=until_us))
    people.look_again(connection, contact)
    person = book.deputy(connection, contact, now_us)
    return Away(until_us, person.contact if person else None, person.name if person else None)


def back(connection: Connection, contact: str) -> bool:
    """They are there again; False for who was not away. The deputy is remembered for the next time."""
    people.require(connection, contact)
    there = update(contacts).where(contacts.c.id == contact, contacts.c.away_until_us.is_not(None))
    done = connection.execute(there.values(away_until_us=None))
    if done.rowcount:
        people.look_again(connection, contact)
    return done.rowcount == 1


def until(choice: Choice, now_us: int, zone: ZoneInfo) -> int:
    """The end of today, of tomorrow, or of the same weekday of the next week, in the zone; UTC µs."""
    today = dt.datetime.fromtimestamp(now_us / 1e6, zone).date()
    return wall_us(today + dt.timedelta(days=_DAYS[choice]), dt.time(), zone)
