"""An office that works with people over the API: a client with an operator's token, and the gateway behind it."""

from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

from fastapi.testclient import TestClient
from sqlalchemy import select

from gateway.contacts import proof
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joining
from gateway.state.tables import notifications
from tests.gateway.api.conftest import Gateway

GROUPS = {"farmers": GroupConfig(label="北山のわな番"), "hunters": GroupConfig(label="猟友会")}
TANAKA = {"name": "田中", "groups": ["farmers"], "addresses": [{"channel": "mail", "address": "tanaka@example.jp"}]}


class Office:
    """A client with an operator's token, and the gateway behind it."""

    def __init__(self, gateway: Gateway, folder: Path) -> None:
        self.gateway = gateway
        config = PeopleConfig(public_url="https://gateway.example", folder=folder, office="office")
        zone = ZoneInfo("Asia/Tokyo")
        book = Book(GROUPS, [], zone)
        proving = proof.Proof(gateway.state, book, config, zone)
        self.desk = Desk(book, proving, Joining(GROUPS, config, proving), zone)
        self.client: TestClient = gateway.client(desk=self.desk)

    def ask(self, method: str, path: str, body: Any = None, status: int = 200) -> Any:
        answer = self.client.request(method, f"/api/v1/{path}", json=body)
        assert answer.status_code == status, answer.text
        return answer.json() if answer.content else None

    def add(self, **changed: Any) -> dict[str, Any]:
        made: dict[str, Any] = self.ask("POST", "contacts", {**TANAKA, **changed}, 201)
        return made

    def prove(self, contact: dict[str, Any]) -> None:
        with self.gateway.state.write() as connection:
            for address in contact["addresses"]:
                proof.heard(connection, address["id"], self.gateway.now_us)

    def names(self, query: str = "") -> list[str]:
        return [one["name"] for one in self.ask("GET", f"contacts{query}")["contacts"]]

    def tests(self) -> list[tuple[str, str]]:
        with self.gateway.state.read() as connection:
            rows = connection.execute(select(notifications).where(notifications.c.kind == "test"))
            return [(row.channel, row.state) for row in rows]
