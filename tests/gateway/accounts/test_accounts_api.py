"""Who may make whom: over the API as an officer, and from the command line for the first of them."""

import json
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient
from sqlalchemy import event, insert, select

from gateway.api.qr import qr_svg
from gateway.cli import main
from gateway.state import open_state, tables
from gateway.words import text
from tests.gateway.accounts.conftest import URL, House
from tests.gateway.api.conftest import NOW_US
from tests.gateway.contacts.test_contacts_cli import config

__all__ = ["config"]

ACCOUNTS = "/api/v1/accounts"


@pytest.fixture
def officer(house: House) -> TestClient:
    """Signed in as the first officer, who is no operator."""
    return house.signed_in(house.staff("officer"))


def made(client: TestClient, status: int = 201, **wanted: Any) -> Any:
    answer = client.post(ACCOUNTS, json={"name": "佐藤", **wanted})
    assert answer.status_code == status, answer.text
    return answer.json()


def test_an_officer_makes_an_account_and_hands_over_its_link(house: House, officer: TestClient) -> None:
    contact = house.person("ab" * 8, "farmers")
    one = made(officer, roles=["installer", "officer"], contact=contact)
    assert (one["roles"], one["by_groups"], one["passkeys"]) == (["installer", "officer"], ["farmer"], 0)

    link = officer.post(f"{ACCOUNTS}/{one['id']}/link")
    assert link.json()["svg"] == qr_svg(link.json()["url"])
    assert link.status_code == 201
    browser = house.browser()
    assert browser.post(link.json()["url"].removeprefix(URL)).status_code == 303

    assert browser.get("/api/v1/account").json()["roles"] == ["farmer", "installer", "officer"]
    shown = officer.get(f"{ACCOUNTS}/{one['id']}").json()
    assert [session["how"] for session in shown["open_sessions"]] == ["hand"]
    assert {row["id"] for row in officer.get(ACCOUNTS).json()["accounts"]} >= {one["id"]}
    made(officer, 409, contact=contact)  # a contact has one account
    made(officer, 404, contact="0" * 16)


def test_nobody_gives_what_they_do_not_have(house: House, officer: TestClient) -> None:
    """An officer is no operator, and does not become one by a second account or somebody else's link."""
    operator = house.staff("operator", name="技術")
    both = house.staff("operator", "officer", name="両方")
    made(officer, 403, roles=["operator"])
    made(officer, 422, roles=["node"])
    assert made(officer, 422, roles=["king"])["detail"].startswith("'king' という役割はありません。")
    one = made(officer, roles=["viewer"])["id"]
    for id_, roles in ((one, ["operator"]), (operator, ["officer"]), (operator, []), (both, ["officer"])):
        assert officer.patch(f"{ACCOUNTS}/{id_}", json={"roles": roles}).status_code == 403, (id_, roles)
    for id_ in (operator, both):
        assert officer.post(f"{ACCOUNTS}/{id_}/link").status_code == 403
    assert house.account(one).own == {"viewer"}

    assert officer.patch(f"{ACCOUNTS}/{one}", json={"roles": ["officer"]}).json()["roles"] == ["officer"]
    assert house.gateway.client().patch(f"{ACCOUNTS}/{one}", json={"roles": ["operator"]}).status_code == 200


def test_nobody_changes_their_own_account(house: House, officer: TestClient) -> None:
    mine = officer.get("/api/v1/account").json()["account"]
    house.staff("officer", name="佐藤")
    for answer in (
        officer.patch(f"{ACCOUNTS}/{mine}", json={"roles": ["officer", "viewer"]}),
        officer.patch(f"{ACCOUNTS}/{mine}", json={"enabled": False}),
        officer.delete(f"{ACCOUNTS}/{mine}"),
        officer.post(f"{ACCOUNTS}/{mine}/link"),
    ):
        assert answer.status_code == 403
    assert house.account(mine).own == {"officer"}


def test_the_last_officer_stays(house: House, officer: TestClient) -> None:
    mine = officer.get("/api/v1/account").json()["account"]
    other = made(officer, roles=["officer"])["id"]
    assert officer.delete(f"{ACCOUNTS}/{other}").status_code == 204

    staff = house.gateway.client()  # a token that may all
    refused = staff.delete(f"{ACCOUNTS}/{mine}")
    assert (refused.status_code, refused.json()["detail"]) == (409, text("ja", "why.last_officer"))
    assert staff.patch(f"{ACCOUNTS}/{mine}", json={"roles": ["viewer"]}).status_code == 409
    assert officer.get(ACCOUNTS).status_code == 200

    assert staff.patch(f"{ACCOUNTS}/{other}", json={"enabled": True}).status_code == 200
    assert staff.delete(f"{ACCOUNTS}/{mine}").status_code == 204
    assert officer.get(ACCOUNTS).status_code == 401


def test_an_officer_ends_sessions_one_by_one_and_all(house: House, officer: TestClient) -> None:
    account = house.staff("viewer", name="画面")
    browsers = [house.signed_in(account) for _ in range(3)]
    (first,) = [one["id"] for one in browsers[0].get("/api/v1/account").json()["sessions"] if one["here"]]

    assert officer.delete(f"{ACCOUNTS}/{account}/sessions/{first}").status_code == 204
    assert [one.get("/api/v1/devices").status_code for one in browsers] == [401, 200, 200]
    assert officer.delete(f"{ACCOUNTS}/{account}/sessions/{first}").status_code == 404
    assert officer.delete(f"{ACCOUNTS}/{account}/sessions").status_code == 204
    assert [one.get("/api/v1/devices").status_code for one in browsers] == [401, 401, 401]


def test_who_is_no_officer_sees_no_accounts(house: House) -> None:
    for role in ("operator", "viewer", "farmer", "installer"):
        client = house.signed_in(house.staff(role, name=role))
        assert client.get(ACCOUNTS).status_code == 403, role
        assert client.post(ACCOUNTS, json={"name": "x"}).status_code == 403, role


def test_what_was_changed_stands_in_the_trail_without_names(house: House, officer: TestClient) -> None:
    one = made(officer, roles=["viewer"])["id"]
    officer.patch(f"{ACCOUNTS}/{one}", json={"roles": ["installer"], "name": "新しい名前"})
    officer.delete(f"{ACCOUNTS}/{one}")
    found = [(action, json.loads(more)) for _, action, more in house.trail() if action.startswith("account.")]
    assert [(action, more.get("roles")) for action, more in found] == [
        ("account.add", ["viewer"]), ("account.change", ["installer"]), ("account.disable", None),
    ]  # fmt: skip
    assert "新しい名前" not in str(found)


def test_a_long_list_takes_as_many_questions_as_a_short_one(house: House, officer: TestClient) -> None:
    statements: list[str] = []

    @event.listens_for(house.state._engine, "before_cursor_execute")
    def heard(_c: object, _d: object, statement: str, *_: object) -> None:
        statements.append(statement)

    asked = []
    for at in range(3, 6):
        for one in range(at * 3):
            house.staff("viewer", contact=house.person(f"{at:08x}{one:08x}", "farmers"))
        officer.get("/api/v1/devices")
        statements.clear()
        listed = officer.get(ACCOUNTS).json()["accounts"]
        assert all(one["by_groups"] == ["farmer"] for one in listed if one["contact"])
        asked.append(len(statements))
    assert asked == [asked[0]] * 3


def test_accounts_are_read_page_by_page(house: House, officer: TestClient) -> None:
    ids = [row["id"] for row in officer.get(ACCOUNTS).json()["accounts"]]
    ids += sorted(house.staff("viewer", name=f"{at}") for at in range(4))  # all made at the same moment
    ids.sort()
    found, after = [], ""
    while True:
        page = officer.get(f"{ACCOUNTS}?limit=2{after}").json()
        found += [row["id"] for row in page["accounts"]]
        if page["next_after"] is None:
            break
        after = f"&after={page['next_after']}"
    assert found == ids
    assert officer.get(f"{ACCOUNTS}?after={'0' * 16}").status_code == 404
    assert officer.get(f"{ACCOUNTS}?after=x").status_code == 422


def test_a_family_members_link_is_found_by_whom_they_watch_over(house: House, officer: TestClient) -> None:
    person = "fa" * 8
    with house.state.write() as connection:
        row = {"id": person, "name": "花子", "family": "family-hana", "homes": "[]", "created_us": NOW_US, "created_by": "test"}
        connection.execute(insert(tables.watched).values(row))
    account = house.staff(contact=house.person("ab" * 8, "family-hana"))
    assert officer.post(f"{ACCOUNTS}/{account}/link").status_code == 201
    [one] = officer.get(f"/api/v1/audit?thing=watched/{person}").json()["entries"]
    mine = officer.get("/api/v1/account").json()["account"]
    assert (one["who"], one["action"], one["thing"]) == (f"account:{mine}", "account.link", f"account/{account}")


def test_an_erased_contact_leaves_no_way_in(house: House) -> None:
    contact = house.person("ab" * 8, "farmers", mail="farmer@example.jp")
    browser = house.browser()
    browser.post(house.sent_link("farmer@example.jp"))
    account = browser.get("/api/v1/account").json()["account"]

    assert house.gateway.client().delete(f"/api/v1/contacts/{contact}").status_code == 204

    assert browser.get("/api/v1/account").status_code == 401
    with house.state.read() as connection:
        assert connection.scalar(select(tables.accounts.c.id).where(tables.accounts.c.id == account)) is None
    house.accounts.ask("farmer@example.jp")
    house.accounts.step(house.gateway.now_us)
    assert [one for one in house.messages() if one.links] == []


# --- From the command line --------------------------------------------------------------------------


def told(capsys: pytest.CaptureFixture[str], config: Path, what: str, *words: str, code: int = 0) -> dict[str, Any]:
    capsys.readouterr()
    assert main(["account", what, str(config), *words, "--json"]) == code
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_the_first_officer_comes_in_by_a_printed_link(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["account", "add", str(config), "--name", "田中", "--role", "officer", "--role", "operator"]) == 0
    printed = capsys.readouterr().out
    assert "https://gateway.example/login/link/" in printed
    (one,) = told(capsys, config, "list")["accounts"]
    assert (one["name"], one["roles"]) == ("田中", ["officer", "operator"])

    assert told(capsys, config, "link", one["id"])["url"].startswith("https://gateway.example/login/link/")
    assert told(capsys, config, "disable", one["id"], code=2)["error"].startswith("This is the last officer")
    other = told(capsys, config, "add", "--name", "佐藤", "--role", "officer")["id"]
    assert told(capsys, config, "disable", one["id"])["disabled"] == one["id"]
    assert "shut" in told(capsys, config, "link", one["id"], code=2)["error"]
    assert "no account" in told(capsys, config, "link", "f" * 16, code=2)["error"]

    main(["account", "list", str(config)])
    assert "SHUT since" in capsys.readouterr().out
    state = open_state(f"sqlite:///{config.parent}/state.db")
    with state.read() as connection:
        assert len(connection.execute(select(tables.login_links)).all()) == 1  # of who is shut, none is left
        entries = connection.execute(select(tables.audit_details).order_by(tables.audit_details.c.id)).all()
    acts = [one.action for one in entries]
    assert {one.who.partition(":")[0] for one in entries} == {"cli"}
    state.close()
    assert acts == [
        "account.add",
        "account.link",
        "account.link",
        "account.add",
        "account.link",
        "account.disable",
    ]
    assert other


def test_without_people_there_are_no_accounts_and_the_command_says_so(config: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = config.read_text(encoding="utf-8").splitlines()
    config.write_text("\n".join(line for line in text if not line.startswith(("people", "[channel]", "mail", "twilio"))))
    assert "[people]" in told(capsys, config, "list", code=2)["error"]
