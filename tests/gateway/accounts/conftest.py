"""A gateway with accounts, people in groups, and a clock of the test's; over https, as phones reach it."""

from dataclasses import replace
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import insert, select

from gateway.accounts import account as rows
from gateway.accounts.account import Account, role_of
from gateway.accounts.desk import Accounts
from gateway.accounts.links import make
from gateway.accounts.sessions import How
from gateway.contacts.book import Book
from gateway.contacts.config import GroupConfig, PeopleConfig
from gateway.contacts.desk import Desk
from gateway.contacts.join import Joining
from gateway.contacts.proof import Proof
from gateway.notify.message import Message
from gateway.state import tables
from tests.gateway.accounts.authenticator import Authenticator
from tests.gateway.api.conftest import NOW_US, Gateway, gateway

__all__ = ["gateway"]

URL = "https://gateway.example"
OWN = {"Origin": URL, "Sec-Fetch-Site": "same-origin"}
GROUPS = {
    "farmers": GroupConfig(label="北山のわな番", role="farmer"),
    "choir": GroupConfig(label="合唱団"),
    "helpers": GroupConfig(label="捜す人", role="volunteer"),
    "office": GroupConfig(label="農林課"),
}
ZONE = ZoneInfo("Asia/Tokyo")


class House:
    """The gateway, its accounts, and who lives there."""

    def __init__(self, gateway: Gateway, folder: Path, url: str = URL) -> None:
        self.gateway, self.state, self.url = gateway, gateway.state, url
        book = Book(GROUPS, [], ZONE)
        people = PeopleConfig(public_url=url, folder=folder, office="office")
        proving = Proof(gateway.state, book, people, ZONE)
        self.rung = 0
        self.accounts = Accounts(
            gateway.state,
            role_of(GROUPS),
            url,
            self.now_us,
            book,
            office="office",
            ring=self._ring,
        )
        desk = Desk(book, proving, Joining(GROUPS, people, proving), ZONE)
        gateway.deps = replace(gateway.deps, accounts=self.accounts, desk=desk)

    def now_us(self) -> int:
        return self.gateway.deps.now_us()

    def _ring(self) -> None:
        self.rung += 1

    def staff(self, *roles: str, name: str = "田中", contact: str | None = None) -> str:
        with self.state.write() as connection:
            return rows.add(connection, name, roles, "test", NOW_US, contact)

    def person(self, id_: str, *groups: str, mail: str | None = None, state: str = "proved") -> str:
        with self.state.write() as connection:
            row = {"id": id_, "name": f"名前{id_[:2]}", "language": "ja", "created_us": NOW_US, "created_by": "test"}
            connection.execute(insert(tables.contacts).values(row))
            for group in groups:
                connection.execute(insert(tables.memberships).values(team=group, contact=id_))
            if mail:
                connection.execute(
                    insert(tables.addresses).values(
                        id=f"{id_[:15]}a", contact=id_, channel="mail", address=mail, rank=0, state=state, created_us=NOW_US
                    )
                )
        return id_

    def account(self, id_: str) -> Account:
        with self.state.read() as connection:
            found = rows.get(connection, id_, self.accounts.group_roles)
        assert found is not None
        return found

    def link(self, account: str, via: How = "hand") -> str:
        with self.state.write() as connection:
            return f"/login/link/{make(connection, account, via, self.gateway.now_us)}"

    def browser(self, **headers: str) -> TestClient:
        """One that sends what a page of ours would make it send."""
        self.app = getattr(self, "app", None) or self.gateway.client(None).app
        return TestClient(self.app, self.url, headers=OWN | headers, raise_server_exceptions=False, follow_redirects=False)

    def signed_in(self, account: str, via: How = "hand") -> TestClient:
        browser = self.browser()
        answer = browser.post(self.link(account, via))
        assert (answer.status_code, answer.headers["Location"]) == (303, "/account"), answer.text
        return browser

    def login_by(self, account: str, how: How) -> TestClient:
        """Signed in by a link of this kind, or by a passkey."""
        if how != "passkey":
            return self.signed_in(account, how)
        _, device = self.with_passkey(account)
        browser = self.browser()
        assert self.login(device, browser).status_code == 200
        return browser

    def sent_link(self, mail: str) -> str:
        """What arrives after asking for a link by this address."""
        self.accounts.ask(mail)
        self.accounts.step(self.gateway.now_us)
        return self.messages()[-1].links[0].url.removeprefix(URL)

    def with_passkey(self, account: str) -> tuple[TestClient, Authenticator]:
        """Signed in by a link that was handed over, with a passkey made there."""
        browser, device = self.signed_in(account), Authenticator(self.url)
        assert self.register(browser, device).status_code == 201
        return browser, device

    def register(self, browser: TestClient, device: Authenticator, **wrong: Any) -> Any:
        begun = browser.post("/api/v1/account/passkeys/begin").json()
        said = {"ticket": begun["ticket"], "credential": device.make(begun["options"], **wrong)}
        return browser.post("/api/v1/account/passkeys", json=said)

    def login(self, device: Authenticator, browser: TestClient | None = None, **wrong: Any) -> Any:
        browser = browser or self.browser()
        begun = browser.post("/api/v1/login/passkey/begin").json()
        said = {"ticket": begun["ticket"], "credential": device.get(begun["options"], **wrong)}
        return browser.post("/api/v1/login/passkey", json=said)

    def messages(self) -> list[Message]:
        with self.state.read() as connection:
            return [Message.model_validate_json(body) for body in connection.scalars(select(tables.notifications.c.body))]

    def trail(self) -> list[tuple[str, str, str]]:
        columns = tables.audit_details.c
        with self.state.read() as connection:
            rows = connection.execute(select(columns.who, columns.action, columns.more).order_by(columns.id))
            return [(row.who, row.action, row.more) for row in rows if not row.action.startswith("account.own")]


@pytest.fixture
def house(gateway: Gateway, tmp_path: Path) -> House:
    return House(gateway, tmp_path)
