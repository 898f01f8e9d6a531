import pytest
from sqlalchemy import event, select

from gateway.accounts.sessions import DAY_US, HOUR_US, How, browser_of
from gateway.state import tables
from tests.gateway.accounts.conftest import OWN, House
from tests.gateway.api.conftest import MINUTE_US

ME = "/api/v1/account"


def test_the_cookie_is_the_browsers_alone_and_only_its_hash_is_kept(house: House) -> None:
    answer = house.browser().post(house.link(house.staff("officer")))

    cookie = answer.headers["Set-Cookie"]
    name, _, rest = cookie.partition("=")
    token, _, flags = rest.partition(";")
    assert name == "__Host-satomori"
    assert len(token) >= 43
    assert {one.strip().partition("=")[0] for one in flags.split(";")} == {"HttpOnly", "Max-Age", "Path", "SameSite", "Secure"}
    assert "SameSite=lax" in cookie
    assert "Path=/" in cookie
    assert answer.headers["Cache-Control"] == "no-store"
    with house.state.read() as connection:
        for table in (tables.sessions, tables.login_links):
            assert token not in str(connection.execute(select(table)).all())


@pytest.mark.parametrize(
    ("how", "idle_us", "most_us"),
    [("passkey", 14 * DAY_US, 90 * DAY_US), ("line", 7 * DAY_US, 30 * DAY_US), ("mail", DAY_US, 7 * DAY_US),
     ("hand", HOUR_US, 12 * HOUR_US)],
)  # fmt: skip
def test_a_session_ends_unused_and_at_the_latest_by_how_it_began(house: House, how: How, idle_us: int, most_us: int) -> None:
    account = house.staff("officer", contact=house.person("ab" * 8, "farmers"))
    browser = house.login_by(account, how)
    began_us = house.gateway.now_us

    house.gateway.now_us += idle_us - 1
    assert browser.get(ME).status_code == 200
    while house.gateway.now_us < began_us + most_us - idle_us // 2:
        house.gateway.now_us += idle_us // 2
        assert browser.get(ME).status_code == 200
    house.gateway.now_us = began_us + most_us
    assert browser.get(ME).status_code == 401

    other = house.login_by(account, how)
    house.gateway.now_us += idle_us
    assert other.get(ME).status_code == 401


def test_using_a_session_writes_once_a_minute_and_otherwise_only_reads(house: House) -> None:
    browser = house.signed_in(house.staff("officer"))
    written: list[str] = []

    @event.listens_for(house.state._engine, "before_cursor_execute")
    def heard(_c: object, _d: object, statement: str, *_: object) -> None:
        if statement.startswith(("UPDATE", "INSERT", "DELETE")):
            written.append(statement)

    for _ in range(3):
        assert browser.get("/api/v1/devices").status_code == 200
    assert written == []
    house.gateway.now_us += MINUTE_US
    for _ in range(3):
        assert browser.get("/api/v1/devices").status_code == 200
    assert len(written) == 1


def test_who_is_out_is_out_at_the_next_request(house: House) -> None:
    account = house.staff("officer")
    house.staff("officer", name="佐藤")
    here, there = house.signed_in(account), house.signed_in(account)
    sessions = here.get(ME).json()["sessions"]
    (other,) = [one["id"] for one in sessions if not one["here"]]

    assert here.delete(f"/api/v1/account/sessions/{other}").status_code == 204
    assert (there.get(ME).status_code, here.get(ME).status_code) == (401, 200)

    assert here.post("/account/sign-out").headers["Location"] == "/login"
    assert here.get("/account").headers["Location"] == "/login"

    again = [house.signed_in(account) for _ in range(2)]
    assert again[0].post("/account/sign-out-everywhere").status_code == 303
    assert [one.get(ME).status_code for one in again] == [401, 401]

    more = house.signed_in(account)
    assert house.gateway.client().delete(f"/api/v1/accounts/{account}").status_code == 204
    assert more.get(ME).status_code == 401


def test_a_signed_out_cookie_is_worth_nothing_elsewhere(house: House) -> None:
    browser = house.signed_in(house.staff("officer"))
    cookie = dict(browser.cookies)
    assert browser.post("/account/sign-out").status_code == 303
    assert dict(browser.cookies) == {}

    thief = house.browser()
    thief.cookies.update(cookie)
    assert thief.get(ME).status_code == 401


def test_who_leaves_a_group_has_its_role_no_more_in_the_session_that_goes_on(house: House) -> None:
    house.person("ab" * 8, "farmers", mail="farmer@example.jp")
    account = house.sent_link("farmer@example.jp")
    browser = house.browser()
    assert browser.post(account).status_code == 303
    assert browser.get(ME).json()["roles"] == ["farmer"]

    with house.state.write() as connection:
        connection.execute(tables.memberships.delete())

    assert browser.get(ME).status_code == 403
    assert browser.get("/api/v1/devices").status_code == 403


def test_a_session_of_somebody_else_can_not_be_ended(house: House) -> None:
    mine, other = house.signed_in(house.staff("officer")), house.signed_in(house.staff("viewer", name="x"))
    (session,) = mine.get(ME).json()["sessions"]

    assert other.delete(f"/api/v1/account/sessions/{session['id']}").status_code == 404
    assert other.post(f"/account/sessions/{session['id']}/end").status_code == 303
    assert mine.get(ME).status_code == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "https://elsewhere.example", "Sec-Fetch-Site": "cross-site"},
        {"Origin": "https://gateway.example", "Sec-Fetch-Site": "same-site"},  # another name below the same domain
        {"Origin": "https://gateway.example", "Sec-Fetch-Site": "none"},
        {"Origin": "https://elsewhere.example"},
        {"Origin": "null"},
        {"Origin": "http://gateway.example"},
        {},
    ],
)
def test_another_site_can_not_have_a_browser_change_anything(house: House, headers: dict[str, str]) -> None:
    browser = house.signed_in(house.staff("officer"))
    link = house.link(house.staff("viewer", name="x"))
    browser.headers = {}
    for method, path in (
        ("POST", "/api/v1/accounts"), ("POST", "/account/sign-out"), ("POST", "/account/sign-out-everywhere"),
        ("DELETE", "/api/v1/silences/1"), ("POST", "/login"), ("POST", link), ("POST", "/api/v1/login/passkey"),
        ("POST", "/api/v1/alerts/a-1/acknowledge"),
    ):  # fmt: skip
        assert browser.request(method, path, headers=headers).status_code == 403, path
    assert browser.get(ME, headers=headers).status_code == 200  # it may look, and no other site sees the answer
    assert house.accounts.is_good(link.rpartition("/")[2])


@pytest.mark.parametrize("headers", [{"Sec-Fetch-Site": "same-origin"}, {"Origin": "https://gateway.example"}, OWN])
def test_our_own_pages_may(house: House, headers: dict[str, str]) -> None:
    browser = house.signed_in(house.staff("officer"))
    browser.headers = {}
    assert browser.post("/api/v1/accounts", json={"name": "x"}, headers=headers).status_code == 201


def test_a_program_with_a_token_needs_no_origin_and_its_token_counts_alone(house: House) -> None:
    browser = house.signed_in(house.staff("officer"))
    browser.headers = {"Authorization": "Bearer viewer-token-for-tests-1"}
    assert browser.post("/api/v1/accounts", json={"name": "x"}).status_code == 403
    assert house.gateway.client().post("/api/v1/accounts", json={"name": "x"}).status_code == 201
    browser.headers = {"Authorization": "Bearer wrong"}
    assert browser.get(ME).status_code == 401


def test_a_token_has_no_account_of_its_own_and_says_what_it_may_do(house: House) -> None:
    client = house.gateway.client()
    me = client.get(ME).json()
    assert (me["account"], me["name"], me["roles"]) == (None, "tanaka", ["officer", "operator"])
    assert (me["passkeys"], me["sessions"]) == ([], [])
    assert house.gateway.client("viewer").get(ME).json()["roles"] == ["viewer"]
    assert client.get(f"{ME}/contact").status_code == 409
    assert client.post(f"{ME}/passkeys/begin").status_code == 409


def test_who_ends_a_session_of_their_own_is_in_the_trail_by_the_page_and_by_the_api(house: House) -> None:
    account = house.staff("viewer")
    here, *others = (house.signed_in(account) for _ in range(3))
    first, second = (one["id"] for one in here.get(ME).json()["sessions"] if not one["here"])
    assert here.post(f"/account/sessions/{first}/end").status_code == 303
    assert here.delete(f"{ME}/sessions/{second}").status_code == 204
    assert here.delete(f"{ME}/sessions/{second}").status_code == 404
    assert [one.get(ME).status_code for one in (here, *others)] == [200, 401, 401]
    assert [who for who, action, _ in house.trail() if action == "session.end"] == [f"account:{account}"] * 2


def test_a_browser_is_called_by_what_its_owner_knows_and_no_more() -> None:
    chrome = (
        "Mozilla/5.0 (Linux; Android 16; SO-51E) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/144.0.0.0 Mobile Safari/537.36"
    )
    line = "Mozilla/5.0 (iPhone; CPU iPhone OS 19_1 like Mac OS X) AppleWebKit/605.1.15 Safari Line/16.1.0"
    assert [browser_of(chrome), browser_of(line), browser_of(""), browser_of("x" * 5000)] == [
        "Android, Chrome", "iPhone, LINE", "?", "?"
    ]  # fmt: skip


def test_what_is_over_is_forgotten_after_a_while(house: House) -> None:
    browser, device = house.with_passkey(house.staff("officer"))
    house.login(device)
    browser.post("/api/v1/login/passkey/begin")
    house.gateway.now_us += 200 * DAY_US
    house.accounts.step(house.gateway.now_us)
    with house.state.read() as connection:
        left = [len(connection.execute(select(one)).all()) for one in (tables.sessions, tables.login_links, tables.ceremonies)]
    assert left == [0, 0, 0]
