"""A village's people on a real state database; its clock is the test's."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, insert, select, update

from gateway.alerting.route import Channel
from gateway.contacts import people, proof
from gateway.contacts.address import AddressChannel
from gateway.contacts.book import Book, Unreachable
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joining
from gateway.contacts.person import Person
from gateway.state import open_state
from gateway.state.tables import addresses, notifications, pages

TOKYO = ZoneInfo("Asia/Tokyo")
S = 1_000_000
DAY_US = 86_400 * S
NOON_US = 1_780_455_600_000_000  # 2026-06-03 12:00 in Japan
GROUPS = {
    "farmers": GroupConfig(label="北山のわな番"),
    "hunters": GroupConfig(label="猟友会", language="ja-easy"),
    "families": GroupConfig.model_validate({"label": "家族", "quiet": [{"from": "21:00", "to": "06:00"}]}),
}


class Village:
    """People, and the gateway's rooms that know them."""

    def __init__(self, folder: Path) -> None:
        self.now_us = NOON_US
        self.state = open_state(f"sqlite:///{folder / 'state.db'}")
        self.told: list[list[Unreachable]] = []
        """What the office was told at each look."""
        config = PeopleConfig(public_url="https://gateway.example", folder=folder, office="office")
        book = Book(GROUPS, ["siren"], TOKYO)
        proof_ = proof.Proof(
            self.state,
            book,
            config,
            TOKYO,
            lambda id_, _expires_us: f"https://gateway.example/a/{id_}",
            lambda rows, _now_us: self.told.append(list(rows)),
        )
        self.desk = Desk(book, proof_, Joining(GROUPS, config, proof_), TOKYO)

    @contextmanager
    def open(self) -> Iterator[Connection]:
        with self.state.write() as connection:
            yield connection

    def add(self, name: str, *groups: str, proved: bool = True, **ways: str) -> str:
        """Somebody with addresses by channel, in the order in which they are tried; a microsecond after the one before."""
        self.now_us += 1
        with self.open() as connection:
            id_ = people.add(connection, name, "ja", groups, "tanaka", self.now_us)
            for channel, to in ways.items():
                self._address(connection, id_, channel, to, proved=proved)
        return id_

    def _address(self, connection: Connection, contact: str, channel: Any, to: str, *, proved: bool) -> None:
        address = people.add_address(connection, contact, channel, to, self.now_us)
        values = {"state": "proved", "proved_us": self.now_us, "heard_us": self.now_us, "tested_us": self.now_us}
        if proved:
            connection.execute(update(addresses).where(addresses.c.id == address).values(values))

    def address(self, contact: str, channel: AddressChannel) -> Any:
        """Its row."""
        with self.state.read() as connection:
            query = select(addresses).where(addresses.c.contact == contact, addresses.c.channel == channel)
            return connection.execute(query).one()

    def lose(self, contact: str, channel: AddressChannel, why: str = "unfollowed") -> None:
        id_ = self.address(contact, channel).id
        with self.open() as connection:
            proof.lost(connection, id_, why, self.now_us)

    def who(self, group: str, by: Channel | None = None) -> list[Person]:
        with self.state.read() as connection:
            return self.desk.book.who(connection, group, self.now_us, by)

    def names(self, group: str, by: Channel | None = None) -> list[str]:
        return [person.name for person in self.who(group, by)]

    def tests(self, state: str | None = None) -> list[dict[str, Any]]:
        """Tests in the outbox, the oldest first."""
        with self.state.read() as connection:
            query = select(notifications).where(notifications.c.kind == "test")
            rows = connection.execute(query.order_by(notifications.c.created_us, notifications.c.id)).mappings()
            return [{**row, "body": json.loads(row["body"])} for row in rows if state is None or row["state"] == state]

    def deliver(self) -> None:
        """All that is queued has gone out just now."""
        with self.open() as connection:
            queued = update(notifications).where(notifications.c.state == "queued")
            connection.execute(queued.values(state="sent", sent_us=self.now_us))

    def answer(self, test: dict[str, Any]) -> proof.Answered | None:
        with self.open() as connection:
            return proof.answered(connection, test["id"], self.now_us)

    def page(self, id_: str, *asked: str, state: str = "asking") -> None:
        """A page that asked these contacts."""
        with self.open() as connection:
            connection.execute(
                insert(pages).values(
                    id=id_, route="main", group_key="k", severity="critical", kind="trap", state=state, needed=1, step=1,
                    opened_us=self.now_us, changed=False, version=1,
                )
            )  # fmt: skip
            for contact in asked:
                connection.execute(
                    insert(notifications).values(
                        id=f"{id_}-{contact}", page=id_, contact=contact, state="sent", body="{}", created_us=self.now_us,
                        due_us=self.now_us, attempts=1, channel="line",
                    )
                )  # fmt: skip

    def is_changed(self, page: str) -> bool:
        with self.state.read() as connection:
            return bool(connection.scalar(select(pages.c.changed).where(pages.c.id == page)))


@pytest.fixture
def village(tmp_path: Path) -> Iterator[Village]:
    made = Village(tmp_path)
    yield made
    made.state.close()
