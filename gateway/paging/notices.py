"""Pages that another room opens, words and ends: they have no steps, everybody is told at once."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from sqlalchemy import Connection, func, select

from gateway.alerting.escalation import Memory, Scripted, Tell, Told
from gateway.contacts.person import Person
from gateway.notify.message import Severity
from gateway.notify.queue import queue
from gateway.paging.ids import message_id, page_id
from gateway.paging.reading import Desk, Directory
from gateway.paging.writing import keep, open_page
from gateway.state.tables import answers, notifications, page_alerts, pages
from gateway.state.upsert import upsert
from gateway.telling import About, Teller

LONGEST_TOLD_US = 72 * 3600 * 1_000_000
"""What is told and has no end to wait for is over then, whoever could not be told."""


class Notices:
    """In whoever's transaction; safe on many threads."""

    def __init__(self, book: Directory, teller: Teller, office: str | None) -> None:
        """`office`: hears what nobody else can be told."""
        self._book, self._teller, self._office = book, teller, office

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
            page = page_id(route, group_key, earlier)
            open_page(connection, page, route, group_key, kind, severity, 0, now_us)
            row = connection.execute(select(pages).where(pages.c.id == page)).one()
        if alert is not None:
            connection.execute(upsert(page_alerts), {"page": row.id, "alert": alert, "joined_us": now_us, "told_us": now_us})
        memory = Memory.model_validate_json(row.memory)
        memory.scripted = Scripted(moment=moment, facts=dict(facts), ends_us=now_us + LONGEST_TOLD_US if ends else None)
        if anew:
            last = select(answers.c.contact, func.max(answers.c.id)).where(answers.c.page == row.id).group_by(answers.c.contact)
            memory.void.update({one[0]: one[1] for one in connection.execute(last)})
        desk = Desk(self._book, connection, now_us)
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
        keep(connection, row, memory, "asking", now_us, due_us=now_us if ends else None)
        return str(row.id)

    def close(
        self, connection: Connection, page: str, now_us: int, *, moment: str, facts: Mapping[str, Any], but: Collection[str] = ()
    ) -> bool:
        """Ends a page of `tell`: everybody who was told hears it, except `but`. False where it is closed, or there is none."""
        row = connection.execute(select(pages).where(pages.c.id == page, pages.c.state != "closed").with_for_update()).first()
        if row is None:
            return False
        memory, desk = Memory.model_validate_json(row.memory), Desk(self._book, connection, now_us)
        for contact in memory.told:
            person = desk.person(contact)
            if person is not None and contact not in but:
                self._say_to(connection, row, Tell(contact, "over", moment, "over", asks=False), person, facts, now_us)
        keep(connection, row, memory, "closed", now_us)
        return True

    def _say_to(
        self, connection: Connection, row: Any, tell: Tell, person: Person, facts: Mapping[str, Any], now_us: int
    ) -> None:
        id_ = message_id(row.id, tell.contact, tell.kind, tell.key)
        about = About(row.id, row.kind, row.severity, row.opened_us, (), facts=facts)
        queue(connection, person, self._teller.message(id_, person, tell, about, now_us), now_us, page=row.id)
