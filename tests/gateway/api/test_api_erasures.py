"""Erasing through the API: by officers only, at once known everywhere, and listed without a name."""

from sqlalchemy import insert

from gateway.state import tables
from gateway.words import text
from tests.gateway.api.conftest import NOW_US, Gateway

PATH, ID = "/api/v1/erasures", "ab" * 8


def entered(gateway: Gateway) -> None:
    with gateway.state.write() as connection:
        connection.execute(
            insert(tables.watched),
            {"id": ID, "name": "花山ハナ乃", "family": "family-hana", "homes": "[]", "created_us": 0, "created_by": "test"},
        )
        connection.execute(insert(tables.tags), {"tag": "ibeacon:0f:1:2", "watched": ID, "enrolled_us": 0, "enrolled_by": "test"})
        gateway.deps.enrolled.read(connection)


def test_who_is_erased_is_gone_at_once_and_the_list_names_nobody(gateway: Gateway) -> None:
    entered(gateway)
    answer = gateway.client().post(PATH, json={"kind": "watched", "id": ID})
    assert answer.status_code == 201
    assert (answer.json()["rows"]["watched"], answer.json()["rows"]["tags"]) == (1, 1)
    assert gateway.deps.enrolled.whose("ibeacon:0f:1:2") is None
    [one] = gateway.client().get(PATH).json()["erasures"]
    assert (one["kind"], one["thing"], one["asked_us"]) == ("watched", ID, NOW_US)
    assert "花山" not in gateway.client().get(PATH).text


def test_nobody_else_may(gateway: Gateway) -> None:
    entered(gateway)
    for role in ("viewer", "node", "role-without-rights"):
        assert gateway.client(role).post(PATH, json={"kind": "watched", "id": ID}).status_code == 403
        assert gateway.client(role).get(PATH).status_code == 403
    assert gateway.deps.enrolled.whose("ibeacon:0f:1:2") == ID


def test_what_can_not_be_erased_says_why(gateway: Gateway) -> None:
    assert gateway.client().post(PATH, json={"kind": "watched", "id": ID}).status_code == 404
    assert gateway.client().post(PATH, json={"kind": "everybody", "id": ID}).status_code == 422
    unknown = gateway.client().post(PATH, json={"kind": "tag", "id": "ibeacon:0f:1:2"})
    assert unknown.status_code == 404
    assert unknown.json()["detail"] == text("ja", "why.no_such_tag")
    assert gateway.client().get(PATH).json()["erasures"] == []
    entered(gateway)
    gateway.state.erasures_file = gateway.deps.media._folder / "nowhere" / "erasures"
    assert gateway.client().post(PATH, json={"kind": "watched", "id": ID}).status_code == 503
    assert gateway.deps.enrolled.whose("ibeacon:0f:1:2") == ID


def test_a_contact_that_is_removed_is_erased(gateway: Gateway) -> None:
    with gateway.state.write() as connection:
        connection.execute(insert(tables.contacts), {"id": "cd" * 8, "name": "市川", "created_us": 0, "created_by": "test"})
    gateway.client().post(PATH, json={"kind": "contact", "id": "cd" * 8})
    [one] = gateway.client().get(PATH).json()["erasures"]
    assert (one["kind"], one["thing"]) == ("contact", "cd" * 8)
