import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select, update

from gateway.state import tables
from tests.gateway.accounts.authenticator import UP, Authenticator, text
from tests.gateway.accounts.conftest import OWN, House
from tests.gateway.api.conftest import MINUTE_US

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=3),
    max_leaves=6,
)

NEW = "【新しいパスキー】"


def test_a_passkey_made_on_one_visit_opens_the_next(house: House) -> None:
    account = house.staff("officer")
    _, device = house.with_passkey(account)
    browser = house.browser()

    answer = house.login(device, browser)

    assert (answer.status_code, answer.json()) == (200, {"next": "/"})
    me = browser.get("/api/v1/account").json()
    assert (me["account"], me["roles"]) == (account, ["officer"])
    assert sorted(one["how"] for one in me["sessions"]) == ["hand", "passkey"]
    assert [one["used_us"] for one in me["passkeys"]] == [house.gateway.now_us]
    assert [(who, action) for who, action, _ in house.trail()] == [
        (f"account:{account}", "login"), (f"account:{account}", "passkey.add"), (f"account:{account}", "login"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    "wrong",
    [
        {"origin": "https://elsewhere.example"},
        {"rp_id": "elsewhere.example"},
        {"flags": UP},  # nobody's finger, face or code
        {"flags": 0},
        {"forged": True},
        {"handle": text(b"other")},
    ],
    ids=lambda wrong: next(iter(wrong)),
)
def test_what_proves_nothing_opens_nothing_and_all_refusals_are_the_same(house: House, wrong: dict[str, Any]) -> None:
    _, device = house.with_passkey(house.staff("officer"))
    unknown = house.login(Authenticator(house.url))

    refused = house.login(device, **wrong)

    assert (refused.status_code, refused.json()) == (401, unknown.json())
    assert "Set-Cookie" not in refused.headers
    assert unknown.status_code == 401
    assert house.login(device).status_code == 200  # and the right one still does


@pytest.mark.parametrize("wrong", [{"origin": "https://elsewhere.example"}, {"rp_id": "elsewhere.example"}, {"flags": UP}])
def test_a_passkey_made_for_another_site_or_without_its_owner_is_not_kept(house: House, wrong: dict[str, Any]) -> None:
    browser = house.signed_in(house.staff("officer"))
    device = Authenticator(house.url)

    assert house.register(browser, device, **wrong).status_code == 422
    assert house.login(device).status_code == 401
    assert browser.get("/api/v1/account").json()["passkeys"] == []


def test_a_challenge_is_answered_once_soon_and_for_what_it_was_made(house: House) -> None:
    account = house.staff("officer")
    browser, device = house.with_passkey(account)
    begun = browser.post("/api/v1/login/passkey/begin").json()
    said = {"ticket": begun["ticket"], "credential": device.get(begun["options"])}
    assert browser.post("/api/v1/login/passkey", json=said).status_code == 200
    assert browser.post("/api/v1/login/passkey", json=said).status_code == 401

    late = browser.post("/api/v1/login/passkey/begin").json()
    house.gateway.now_us += 5 * MINUTE_US
    said = {"ticket": late["ticket"], "credential": device.get(late["options"])}
    assert browser.post("/api/v1/login/passkey", json=said).status_code == 401

    other = browser.post("/api/v1/account/passkeys/begin").json()
    said = {"ticket": other["ticket"], "credential": device.get(other["options"] | {"allowCredentials": []})}
    assert browser.post("/api/v1/login/passkey", json=said).status_code == 401


def test_a_wrong_answer_uses_the_challenge_up(house: House) -> None:
    browser, device = house.with_passkey(house.staff("officer"))
    begun = browser.post("/api/v1/login/passkey/begin").json()
    wrong = {"ticket": begun["ticket"], "credential": device.get(begun["options"], forged=True)}
    assert browser.post("/api/v1/login/passkey", json=wrong).status_code == 401

    right = {"ticket": begun["ticket"], "credential": device.get(begun["options"])}
    assert browser.post("/api/v1/login/passkey", json=right).status_code == 401


def test_a_copied_passkey_is_refused_and_the_office_hears_of_it_once(house: House) -> None:
    house.person("0f" * 8, "office", mail="office@example.jp")
    _, device = house.with_passkey(house.staff("officer"))
    stolen = device.copy()
    assert house.login(device).status_code == 200

    assert house.login(stolen).status_code == 401  # it counts what the right one has counted already
    stolen.count += 1000
    assert house.login(stolen).status_code == 401  # and is never ahead again
    assert house.login(device).status_code == 401  # nor is the owner's, as nobody knows which is which

    (told,) = [one for one in house.messages() if one.title != NEW]
    assert (told.kind, told.title) == ("office", "【パスキーの確認】")
    assert "田中さんのパスキーが複製された" in told.body
    assert sum(action == "passkey.copied" for _, action, _ in house.trail()) == 1


def test_who_came_in_by_a_copy_is_out_and_its_owner_reads_why(house: House) -> None:
    account = house.staff("officer")
    _, device = house.with_passkey(account)
    stolen, thief = device.copy(), house.browser()
    assert house.login(stolen, thief).status_code == 200
    assert house.login(device).status_code == 401  # the thief's copy is ahead: it is the owner who is refused

    assert thief.get("/api/v1/account").status_code == 401
    again = house.signed_in(account)  # by a link that another officer hands over
    [shut] = again.get("/api/v1/account").json()["passkeys"]
    assert shut["copied"]
    assert "このパスキーは、複製された可能性があるため使えなくしました" in again.get("/account").text

    stolen.count += 1000
    assert house.login(stolen, thief).status_code == 401
    assert again.get("/api/v1/account").status_code == 200, "who has the copy can't shut its owner out by trying again"

    assert house.register(again, Authenticator(house.url)).status_code == 201
    assert again.delete(f"/api/v1/account/passkeys/{shut['id']}").status_code == 204
    assert "複製された可能性" not in again.get("/account").text


def test_nobody_without_the_key_can_have_the_office_told(house: House) -> None:
    house.person("0f" * 8, "office", mail="office@example.jp")
    _, device = house.with_passkey(house.staff("officer"))
    stolen = device.copy()
    assert house.login(device).status_code == 200

    assert house.login(stolen, forged=True).status_code == 401

    assert [one.title for one in house.messages()] == [NEW]


def test_a_device_that_never_counts_comes_in_again_and_again(house: House) -> None:
    browser, device = house.signed_in(house.staff("officer")), Authenticator(house.url, counts=False)
    assert house.register(browser, device).status_code == 201

    assert [house.login(device).status_code for _ in range(3)] == [200, 200, 200]


def test_a_removed_passkey_opens_nothing_and_one_of_somebody_else_can_not_be_touched(house: House) -> None:
    browser, device = house.with_passkey(house.staff("officer"))
    other, _ = house.with_passkey(house.staff("operator", name="佐藤"))
    (mine,) = browser.get("/api/v1/account").json()["passkeys"]

    for method, body in (("DELETE", None), ("PATCH", {"name": "x"})):
        assert other.request(method, f"/api/v1/account/passkeys/{mine['id']}", json=body).status_code == 404
    assert other.post(f"/account/passkeys/{mine['id']}/remove").status_code == 303
    assert house.login(device).status_code == 200

    renamed = browser.patch(f"/api/v1/account/passkeys/{mine['id']}", json={"name": " 役場の\u200b鍵 "})
    assert renamed.json()["name"] == "役場の鍵"
    assert browser.delete(f"/api/v1/account/passkeys/{mine['id']}").status_code == 204
    assert house.login(device).status_code == 401


def test_the_same_passkey_is_not_taken_for_a_second_account(house: House) -> None:
    _, device = house.with_passkey(house.staff("officer"))
    thief = house.signed_in(house.staff("operator", name="佐藤"))

    assert house.register(thief, device).status_code == 422
    with house.state.read() as connection:
        assert len(connection.execute(select(tables.passkeys)).all()) == 1


def test_a_shut_account_is_opened_by_no_passkey(house: House) -> None:
    account = house.staff("officer")
    _, device = house.with_passkey(account)
    with house.state.write() as connection:
        connection.execute(update(tables.accounts).values(disabled_us=house.gateway.now_us))

    assert house.login(device).status_code == 401


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(credential=st.dictionaries(st.sampled_from(["id", "rawId", "type", "response", "x"]), JSON, max_size=5), data=st.data())
def test_whatever_a_browser_says_is_a_refusal_and_never_a_fault(house: House, credential: Any, data: st.DataObject) -> None:
    """Nonsense at the top, and nonsense in each field of an answer that is otherwise right."""
    house.accounts.limits._windows.reset()
    if not hasattr(house, "device"):
        house.member, house.device = house.with_passkey(house.staff("officer"))  # type: ignore[attr-defined]
    begun = house.member.post("/api/v1/login/passkey/begin").json()  # type: ignore[attr-defined]
    if data.draw(st.booleans()):
        credential = house.device.get(begun["options"])  # type: ignore[attr-defined]
        field = data.draw(st.sampled_from(sorted(credential["response"])))
        credential["response"][field] = data.draw(JSON | st.binary(max_size=80).map(text))
    body = json.dumps({"ticket": begun["ticket"], "credential": credential}).encode("utf-8", "surrogatepass")
    headers = OWN | {"Content-Type": "application/json"}
    status = house.browser().post("/api/v1/login/passkey", content=body, headers=headers).status_code
    assert status in (400, 401, 422) or (status == 200 and field == "userHandle")

    begun = house.member.post("/api/v1/account/passkeys/begin").json()  # type: ignore[attr-defined]
    credential = Authenticator(house.url).make(begun["options"])
    field = data.draw(st.sampled_from(["clientDataJSON", "attestationObject"]))
    credential["response"][field] = data.draw(JSON | st.binary(max_size=80).map(text))
    body = json.dumps({"ticket": begun["ticket"], "credential": credential}).encode("utf-8", "surrogatepass")
    kept = house.member.post("/api/v1/account/passkeys", content=body, headers=headers)  # type: ignore[attr-defined]
    assert kept.status_code in (400, 422)
