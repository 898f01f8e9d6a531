"""A delivery outbox on a real database with people in it; its clock is the test's, and what channels answer too."""

import random
import threading
from collections.abc import Callable, Sequence
from typing import Any

from sqlalchemy import insert, select, update

from gateway.contacts.person import Address, Person
from gateway.notify import Channel, Delivered, Outcome
from gateway.notify.deliver import Deliverer, Lost
from gateway.notify.message import Message
from gateway.notify.queue import queue
from gateway.state import State, tables
from gateway.telemetry import Telemetry
from tests.gateway.town import NOW_US

LINE, MAIL, VOICE = "aaaaaaaaaaaaaaaa", "bbbbbbbbbbbbbbbb", "cccccccccccccccc"
"""The addresses of `farmer`, in the order of their rank."""
FARMER = Person(
    "1111111111111111",
    "田中",
    "ja",
    (
        Address(LINE, "line", "U-farmer"),
        Address(MAIL, "mail", "farmer@example.jp"),
        Address(VOICE, "voice", "+815000000001"),
    ),
)
PAGE, ALERT = "p-1", "a-1"


def message(id_: str = "n-1", **changed: Any) -> Message:
    return Message.model_validate({"id": id_, "severity": "critical", "title": "【わな作動】", "body": "北尾根 3番。", **changed})


class Provider:
    """A channel that notes what it was given and answers what the test says."""

    def __init__(self, answer: Callable[[str], Outcome] = lambda _: Delivered(), *, knows_repetition: bool = True) -> None:
        self.answer, self.knows_repetition = answer, knows_repetition
        self.sent: list[tuple[str, str]] = []
        self.messages: list[Message] = []

    def send(self, id_: str, to: str, said: Message) -> Outcome:
        self.sent.append((id_, to))
        self.messages.append(said)
        return self.answer(id_)

    def close(self) -> None:
        """Nothing is open."""


class Asked(Provider):
    """One that can also be asked what it was given."""

    def __init__(self, found: Callable[[], Delivered | None], answer: Callable[[str], Outcome] = lambda _: Delivered()) -> None:
        super().__init__(answer, knows_repetition=False)
        self._found = found
        self.asked: list[tuple[str, str, int]] = []

    def find(self, id_: str, to: str, _said: Message, intent_us: int, _taken: Callable[[str], bool]) -> Delivered | None:
        self.asked.append((id_, to, intent_us))
        return self._found()


class Ledger:
    """A deliverer over a real outbox, a page that is asking, and the farmer with three proved addresses."""

    def __init__(self, state: State, lost: Lost | None = None, **channels: Channel) -> None:
        self.state, self.now_us = state, NOW_US
        self.channels: dict[str, Channel] = dict(channels)
        self.telemetry = Telemetry()
        self.deliverer = self.another(lost)

    def another(self, lost: Lost | None = None) -> Deliverer:
        """One that knows nothing but what is durable: as after a crash."""
        return Deliverer(self.state, self.channels, self.telemetry, random.Random(1), lambda: self.now_us, lost)

    def queue(self, said: Message, person: Person = FARMER, **more: Any) -> str | None:
        with self.state.write() as connection:
            return queue(connection, person, said, self.now_us, **{"page": PAGE, **more})

    def step(self) -> int:
        return self.deliverer.step()

    def later(self, seconds: float) -> None:
        self.now_us += int(seconds * 1e6)

    def row(self, id_: str = "n-1") -> dict[str, Any]:
        return {row["id"]: row for row in self.rows()}[id_]

    def rows(self) -> list[dict[str, Any]]:
        with self.state.read() as connection:
            query = select(tables.notifications).order_by(tables.notifications.c.created_us, tables.notifications.c.due_us)
            return [dict(row) for row in connection.execute(query).mappings()]

    def states(self) -> list[tuple[str, str]]:
        """(channel, state) of each row."""
        return sorted((row["channel"], row["state"]) for row in self.rows())

    def set(self, table: str, id_: str, **values: Any) -> None:
        one = tables.metadata.tables[table]
        with self.state.write() as connection:
            connection.execute(update(one).where(one.c.id == id_).values(**values))

    def page(self) -> dict[str, Any]:
        with self.state.read() as connection:
            return dict(connection.execute(select(tables.pages)).mappings().one())


def people(state: State, addresses: Sequence[Address] = FARMER.addresses) -> None:
    """Writes the farmer, an open page and its alert."""
    with state.write() as connection:
        connection.execute(
            insert(tables.contacts), {"id": FARMER.contact, "name": FARMER.name, "created_us": 0, "created_by": "test"}
        )
        for rank, one in enumerate(addresses):
            connection.execute(
                insert(tables.addresses),
                {"id": one.id, "contact": FARMER.contact, "channel": one.channel, "address": one.to, "rank": rank,
                 "state": "proved", "created_us": 0},
            )  # fmt: skip
        connection.execute(
            insert(tables.alerts),
            {"id": ALERT, "rule": "r", "kind": "trap", "severity": "critical", "node": "n", "device": "d", "opening": "o",
             "state": "firing", "since_us": 0, "late": False, "summary": "s", "fired_us": NOW_US, "version": 1},
        )  # fmt: skip
        connection.execute(
            insert(tables.pages),
            {"id": PAGE, "route": "main", "group_key": "g", "severity": "critical", "kind": "trap", "state": "asking",
             "needed": 2, "step": 1, "opened_us": NOW_US, "changed": False, "version": 1},
        )  # fmt: skip


class Hanging(Provider):
    """Takes what it is given and says nothing until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.released, self.began = threading.Event(), threading.Semaphore(0)

    def send(self, id_: str, to: str, said: Message) -> Outcome:
        self.began.release()
        self.released.wait(20)
        return super().send(id_, to, said)
