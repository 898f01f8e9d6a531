"""Paging on a real database with real people, and the test's own clock: alerts go in, what people are told is read back."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, Table, func, insert, select, text, update

from gateway.alerting.lifecycle import Alert, Move, State
from gateway.alerting.route import RouteConfig
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig
from gateway.deployments import Deployment, Deployments
from gateway.moves import write_move
from gateway.notify.message import Answer, Message
from gateway.paging import Answered, NotTaken, Paging
from gateway.state import open_state, tables
from gateway.telling import Teller

NOW_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z, 3 June 06:12 in Japan
SECOND_US, MINUTE_US, HOUR_US = 1_000_000, 60_000_000, 3_600_000_000
TRAP = {"name": "traps", "needed": 2, "tell_end": True, "steps": [
    {"to": "farmers"}, {"after": "10m", "to": "hunters"}, {"after": "20m", "to": "farmers", "by": "voice"},
    {"after": "30m", "to": "office"},
]}  # fmt: skip
PEOPLE: Mapping[str, Sequence[str]] = {
    "farmers": ("tanaka", "sato"), "hunters": ("suzuki", "ito"), "office": ("yakuba",), "family-1": ("hanako",),
}  # fmt: skip
ZONE = ZoneInfo("Asia/Tokyo")


class Paged:
    """One gateway's paging. Every contact is called by their id."""

    def __init__(self, folder: Path, *routes: Mapping[str, Any], office: str | None = "office", **paging: Any) -> None:
        self.begin(folder, routes or (TRAP,), office, **paging)
        with self.state.write() as connection:
            for group, names in PEOPLE.items():
                for name in names:
                    self.add(connection, group, name)

    def begin(self, folder: Path, routes: Sequence[Mapping[str, Any]], office: str | None = "office", **paging: Any) -> None:
        """On the database of the folder as it is, whoever is in it."""
        self.folder, self.now_us, self.office, self.paging_more = folder, NOW_US, office, paging
        self.routes = [RouteConfig.model_validate(route) for route in routes]
        self.groups: dict[str, GroupConfig] = {name: GroupConfig(label=name) for name in PEOPLE}
        self.said: list[tuple[str, dict[str, Any]]] = []
        self._seen: set[str] = set()
        self._openings = 0
        self._open()

    def _open(self) -> None:
        self.state = open_state(f"sqlite:///{self.folder / 'state.db'}")
        places = [
            Deployment(node="kitayama-03", device=f"trap-{number}", kind="trap", place="北尾根", label=f"{number}番")
            for number in range(1, 10)
        ]
        self.deployments = Deployments(places)
        self.book = Book(self.groups, ["hook"], ZONE)
        self.teller = Teller(self.deployments, ZONE, town="里山市")
        self.paging = Paging(
            self.state, self.routes, self.deployments, self.book, self.teller,
            office=self.office, say=lambda kind, body: self.said.append((kind, body)), **self.paging_more,
        )  # fmt: skip

    def __enter__(self) -> "Paged":
        return self

    def __exit__(self, *_: object) -> None:
        self.state.close()

    def restart(self) -> None:
        self.state.close()
        self._open()

    # People

    def add(self, connection: Connection, group: str, name: str) -> None:
        known = connection.scalar(select(tables.contacts.c.id).where(tables.contacts.c.id == name))
        if known is None:
            number = connection.scalar(select(func.count()).select_from(tables.contacts))
            connection.execute(insert(tables.contacts), {"id": name, "name": name, "created_us": number, "created_by": "test"})
            for rank, channel in enumerate(("line", "voice")):
                connection.execute(
                    insert(tables.addresses),
                    {"id": f"{name}-{channel}", "contact": name, "channel": channel, "address": f"{name}-{channel}", "rank": rank,
                     "state": "proved", "created_us": 0},
                )  # fmt: skip
        connection.execute(insert(tables.memberships), {"team": group, "contact": name})

    def reachable(self, *names: str, yes: bool = False) -> None:
        """As when all their addresses are lost, or found again."""
        with self.state.write() as connection:
            for name in names:
                connection.execute(
                    update(tables.addresses)
                    .where(tables.addresses.c.contact == name)
                    .values(state="proved" if yes else "unreachable")
                )
            connection.execute(update(tables.pages).values(changed=True))

    def quiet(self, name: str, from_: str, to: str) -> None:
        with self.state.write() as connection:
            hours = json.dumps([{"from": from_, "to": to}])
            connection.execute(update(tables.contacts).where(tables.contacts.c.id == name).values(quiet=hours))

    # Alerts

    def fire(self, device: str = "trap-3", *, severity: str = "critical", kind: str = "trap", rule: str = "sprung",
             summary: str = "trap_sprung", state: State = "firing", **facts: Any) -> Alert:  # fmt: skip
        self._openings += 1
        alert = Alert(
            f"00000000-0000-4000-8000-{self._openings:012}", rule, kind, severity, "kitayama-03", device, f"o:{self._openings}",
            state, self.now_us, False, summary, json.dumps(facts), fired_us=self.now_us if state == "firing" else None,
        )  # fmt: skip
        self.move(Move(alert, None, summary, tell=state == "firing"))
        return alert

    def move(self, *moves: Move) -> None:
        with self.state.write() as connection:
            for move in moves:
                assert write_move(connection, move, self.now_us)
                self.paging.moved(connection, move, self.now_us)

    def becomes(self, alert: Alert, state: State, why: str = "trap_reset", who: str = "rule", **more: Any) -> None:
        now = self.alert(alert)
        if state == "resolved":
            more["resolved_us"] = self.now_us
        tell = state == "firing" and (now.state == "shelved" or now.fired_us is None)
        self.move(Move(replace(now, state=state, version=now.version + 1, **more), now.state, why, tell=tell, who=who))

    def alert(self, alert: Alert) -> Alert:
        row = next(row for row in self.rows(tables.alerts) if row["id"] == alert.id)
        return Alert(**row)

    # Time, and what people do

    def tick(self) -> None:
        self.paging.tick(self.now_us)

    def later(self, us: int) -> None:
        """Time passes, with a tick at each moment for which a page waits, and one at the end."""
        until_us = self.now_us + us
        while True:
            due = [row["due_us"] for row in self.rows(tables.pages) if row["state"] != "closed" and row["due_us"] is not None]
            now_us = min([at_us for at_us in due if at_us <= until_us], default=until_us)
            self.now_us = max(self.now_us, now_us)
            self.tick()
            if now_us == until_us:
                return

    def answer(self, who: str, answer: Answer, page: str | None = None, **more: Any) -> Answered | NotTaken:
        with self.state.write() as connection:
            return self.paging.answers.answer(
                connection, page or self.page()["id"], who, answer, more.get("via", "line"), more.get("notification"), self.now_us
            )

    # What is so

    def rows(self, table: Table) -> list[dict[str, Any]]:
        with self.state.read() as connection:
            return [dict(row) for row in connection.execute(select(table)).mappings()]

    def page(self, number: int = -1) -> dict[str, Any]:
        """The newest page."""
        return sorted(self.rows(tables.pages), key=lambda row: (row["opened_us"], row["closed_us"] is None))[number]

    def messages(self) -> list[Message]:
        """All, in the order in which they were queued."""
        with self.state.read() as connection:
            query = select(tables.notifications.c.body).order_by(tables.notifications.c.created_us, text("rowid"))
            bodies = connection.scalars(query)
            return [Message.model_validate_json(body) for body in bodies]

    def ledger(self) -> list[dict[str, Any]]:
        with self.state.read() as connection:
            query = select(tables.notifications).order_by(tables.notifications.c.created_us, text("rowid"))
            return [dict(row) for row in connection.execute(query).mappings()]

    def new(self) -> list[tuple[str, str]]:
        """(who, kind) of what was queued since the last call."""
        rows = self.ledger()
        found = [(row["contact"], row["kind"]) for row in rows if row["id"] not in self._seen]
        self._seen = {row["id"] for row in rows}
        return sorted(found)

    def last(self, who: str) -> Message:
        return Message.model_validate_json([row["body"] for row in self.ledger() if row["contact"] == who][-1])

    def sent(self, state: str = "sent") -> None:
        """What is queued arrives (or, `dead`, never does)."""
        with self.state.write() as connection:
            connection.execute(
                update(tables.notifications)
                .where(tables.notifications.c.state == "queued")
                .values(state=state, sent_us=self.now_us if state == "sent" else None)
            )
            connection.execute(update(tables.pages).values(changed=True))


def asked(message: Message) -> list[str]:
    return [button.answer for button in message.buttons]
