"""What people say to a page, and what is so of it then."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Connection, insert, select, update

from gateway.alerting import escalation
from gateway.alerting.escalation import Memory, PageState
from gateway.alerting.lifecycle import Alert
from gateway.contacts import proof
from gateway.notify.message import Answer
from gateway.notify.queue import mark_answered
from gateway.paging.reading import STAFF, Desk, Directory, Found
from gateway.state.tables import answers, notifications, pages

Via = Literal["line", "link", "keypad", "api", "visit"]


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


class Answers:
    """In whoever's transaction; safe on many threads."""

    def __init__(
        self, book: Directory, look: Callable[[Connection, Sequence[str], int], None], on_answer: OnAnswer | None
    ) -> None:
        """`look(connection, pages, now_us)` tells the others what was said."""
        self._book, self._look, self._on_answer = book, look, on_answer

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
        """What a contact says to a page, in the caller's transaction; who may have to go is told in the same one.

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
                mine_alerts = [alert for alert, _ in Found(connection, [row]).alerts[page]]
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
        return Desk(self._book, connection, 0).name_of(contact)

    def standing(self, connection: Connection, page: str, now_us: int) -> Standing | None:
        """What is so of a page now; None where there is none. Names people: not for everybody."""
        row = connection.execute(select(pages).where(pages.c.id == page)).first()
        return self._standing(connection, row, now_us) if row is not None else None

    def _standing(self, connection: Connection, row: Any, now_us: int) -> Standing:
        found = Found(connection, [row])
        desk = Desk(self._book, connection, now_us)
        memory = Memory.model_validate_json(row.memory)
        going = escalation.who_go(found.answers[row.id], memory.void, row.kind)
        names = tuple(desk.name_of(one.contact) for one in going)
        return Standing(row.id, row.kind, row.state, names, max(row.needed - len(going), 0))
