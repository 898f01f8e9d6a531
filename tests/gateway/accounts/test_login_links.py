import re
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from sqlalchemy import event, select

from gateway.accounts.limits import MOST_KEYS, Limits, asker
from gateway.state import tables
from tests.gateway.accounts.conftest import URL, House
from tests.gateway.api.conftest import MINUTE_US, NOW_US

MAIL = "hanako@example.jp"


def test_a_member_of_a_group_asks_by_mail_and_comes_in_without_anybody_making_an_account(house: House) -> None:
    house.person("ab" * 8, "farmers", mail=MAIL)
    browser = house.browser()

    assert browser.post("/login", data={"mail": f" {MAIL} "}).status_code == 200
    house.accounts.step(house.gateway.now_us)

    (message,) = house.messages()
    assert (message.kind, message.title, [one.label for one in message.links]) == ("reply", "【ログイン】", ["ログインする"])
    path = message.links[0].url.removeprefix(URL)
    assert browser.get(path).status_code == 200
    assert browser.post(path).headers["Location"] == "/account"
    me = browser.get("/api/v1/account").json()
    assert (me["name"], me["roles"], me["groups"]) == ("名前ab", ["farmer"], ["farmers"])
    with house.state.read() as connection:
        (row,) = connection.execute(select(tables.accounts)).all()
    assert (row.name, row.roles, row.contact) == ("", "", "ab" * 8)  # the name stands with the contact, where it is erased
    assert house.rung == 1


def test_asking_is_the_same_whether_the_address_is_known_or_not(house: House) -> None:
    """Same answer, and not one statement to the database, so that its time can't differ either."""
    house.person("ab" * 8, "farmers", mail=MAIL)
    browser = house.browser()
    statements: list[str] = []

    @event.listens_for(house.state._engine, "before_cursor_execute")
    def heard(_c: object, _d: object, statement: str, *_: object) -> None:
        statements.append(statement)

    pages, answers = [], []
    for mail in (MAIL, "nobody@example.jp", "no address at all"):
        asked = browser.post("/login", data={"mail": mail})
        pages.append((asked.status_code, asked.text, dict(asked.headers)))
        answer = browser.post("/api/v1/login/link", json={"mail": mail})
        answers.append((answer.status_code, answer.content, dict(answer.headers)))
    assert pages == [pages[0]] * 3
    assert answers == [answers[0]] * 3
    assert (pages[0][0], answers[0][0]) == (200, 202)
    assert statements == []

    house.accounts.step(house.gateway.now_us)
    assert len(house.messages()) == 1  # asked twice within a second is once


@pytest.mark.parametrize("state", ["new", "unreachable"])
def test_only_a_proved_address_gets_a_link(house: House, state: str) -> None:
    house.person("ab" * 8, "farmers", mail=MAIL, state=state)
    house.accounts.ask(MAIL)
    house.accounts.step(house.gateway.now_us)
    assert house.messages() == []


def test_nobody_gets_a_link_that_would_open_nothing(house: House) -> None:
    house.person("ab" * 8, "choir", mail="choir@example.jp")
    officer = house.person("cd" * 8, mail="officer@example.jp")
    house.staff("officer", contact=officer)
    for mail in ("choir@example.jp", "officer@example.jp"):
        house.accounts.ask(mail)
    house.accounts.step(house.gateway.now_us)
    assert house.messages() == []


def test_who_writes_an_address_into_a_contact_does_not_become_that_officer(house: House) -> None:
    """Operators change contacts too: a link by mail or LINE opens what the groups give, and no passkey is made there."""
    officer = house.person("cd" * 8, "farmers", mail=MAIL)
    account = house.staff("officer", contact=officer)
    browser = house.browser()
    browser.post(house.sent_link(MAIL))

    assert browser.get("/api/v1/account").json()["roles"] == ["farmer"]
    assert browser.get("/api/v1/accounts").status_code == 403
    assert browser.post("/api/v1/account/passkeys/begin").status_code == 403
    assert "パスキーでログインしてください" in browser.get("/account").text

    strong, device = house.with_passkey(account)
    assert strong.get("/api/v1/accounts").status_code == 200
    assert house.login(device).status_code == 200


def test_looking_at_a_link_uses_nothing_and_the_button_uses_it_once(house: House) -> None:
    path = house.link(house.staff("officer"))
    scanner, browser, late = house.browser(), house.browser(), house.browser()
    for _ in range(3):
        assert scanner.get(path).status_code == 200
        assert scanner.head(path).status_code == 200
    assert dict(scanner.cookies) == {}

    assert browser.post(path).status_code == 303
    assert (late.post(path).status_code, late.get(path).status_code) == (410, 410)
    assert dict(late.cookies) == {}


def test_of_two_who_press_at_once_one_comes_in(house: House) -> None:
    path = house.link(house.staff("officer"))
    browsers = [house.browser() for _ in range(6)]
    with ThreadPoolExecutor(6) as pool:
        came = list(pool.map(lambda one: one.post(path).status_code, browsers))
    assert sorted(came) == [303] + [410] * 5


def test_a_link_ends_after_a_quarter_of_an_hour_and_with_its_account(house: House) -> None:
    account = house.staff("viewer")
    path, other = house.link(account), house.link(account)
    house.gateway.now_us += 15 * MINUTE_US - 1
    assert house.browser().get(path).status_code == 200
    house.gateway.now_us += 1
    assert house.browser().post(path).status_code == 410
    house.gateway.now_us -= MINUTE_US
    assert house.gateway.client().delete(f"/api/v1/accounts/{account}").status_code == 204
    assert house.browser().post(other).status_code == 410


@pytest.mark.parametrize("token", ["x", "x" * 100, "ログイン", "a" * 43])
def test_what_is_no_link_is_told_so(house: House, token: str) -> None:
    assert house.browser().get(f"/login/link/{token}").status_code == 410
    assert house.browser().post(f"/login/link/{token}").status_code == 410


# --- How often --------------------------------------------------------------------------------------


def test_one_address_is_sent_few_links_whoever_asks_and_one_asker_may_ask_for_few(house: House) -> None:
    asked = [house.browser().post("/login", data={"mail": MAIL.upper()}) for _ in range(4)]
    assert [one.status_code for one in asked] == [200, 200, 200, 429]
    assert asked[3].headers["Retry-After"] == "900"
    assert "15分後" in asked[3].text

    more = [house.browser().post("/api/v1/login/link", json={"mail": f"n{n}@example.jp"}) for n in range(8)]
    assert [one.status_code for one in more] == [202] * 6 + [429] * 2
    assert more[-1].headers["Content-Type"] == "application/problem+json"
    assert int(more[-1].headers["Retry-After"]) <= 900

    house.gateway.now_us += 15 * MINUTE_US
    assert house.browser().post("/login", data={"mail": MAIL}).status_code == 200


def test_passkeys_are_tried_only_so_often(house: House) -> None:
    browser = house.browser()
    said = {"ticket": "x", "credential": {"id": "y"}}
    codes = [browser.post("/api/v1/login/passkey", json=said).status_code for _ in range(12)]
    assert codes == [401] * 10 + [429] * 2
    assert [browser.post("/api/v1/login/passkey/begin").status_code for _ in range(61)] == [200] * 60 + [429]


def test_failures_are_one_entry_a_minute(house: House) -> None:
    for _ in range(3):
        house.browser().post("/login/link/x")
        house.browser().post("/api/v1/login/passkey", json={"ticket": "x", "credential": {}})
    house.accounts.step(house.gateway.now_us)
    house.gateway.now_us += MINUTE_US
    house.accounts.step(house.gateway.now_us)
    assert house.trail() == [("gateway", "login.failed", '{"count": 6, "of": {"late": 3, "link": 3}}')]


def test_a_window_moves_and_an_hour_that_the_clock_went_back_is_not_waited_for() -> None:
    now = [NOW_US]
    limits = Limits(lambda: now[0])
    for at in range(3):
        now[0] = NOW_US + at * MINUTE_US
        assert limits.wait_s("asked", "x") == 0
    assert limits.wait_s("asked", "x") == 13 * 60
    assert limits.wait_s("asked", "y") == 0
    now[0] = NOW_US + 15 * MINUTE_US
    assert (limits.wait_s("asked", "x"), limits.wait_s("asked", "x")) == (0, 60)
    now[0] = NOW_US - 60 * MINUTE_US
    assert limits.wait_s("asked", "x") == 0


def test_who_asks_from_everywhere_fills_no_memory() -> None:
    limits = Limits(lambda: NOW_US)
    for number in range(MOST_KEYS + 100):
        limits.wait_s("ask", str(number))
    assert len(limits._windows._tries) == MOST_KEYS


@pytest.mark.parametrize(
    ("host", "who"),
    [("192.0.2.7", "192.0.2.7"), ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"), ("::ffff:192.0.2.7", "192.0.2.7"),
     ("fe80::1%eth0", "fe80::/64"), ("testclient", "unknown"), (None, "unknown")],
)  # fmt: skip
def test_a_household_is_one_asker(host: str | None, who: str) -> None:
    assert asker(host) == who


def test_the_pages_are_small_need_no_script_and_say_their_policy(house: House) -> None:
    browser = house.signed_in(house.staff("officer"))
    browser.get("/account")
    shown: dict[str, Any] = {path: browser.get(path) for path in ("/login", "/account", house.link(house.staff("viewer")))}
    for path, answer in shown.items():
        assert answer.status_code == 200, path
        assert len(answer.content) < 30_000
        assert "script-src 'self'" in answer.headers["Content-Security-Policy"]
        assert "unsafe" not in answer.headers["Content-Security-Policy"]
        assert answer.headers["Referrer-Policy"] == "same-origin"
        assert answer.headers["Cache-Control"] == "no-store"
        assert "<script>" not in answer.text
    assert browser.get("/passkey.js").headers["Content-Type"].startswith("text/javascript")
    assert "メールで リンクを もらう" in browser.get("/login?lang=ja-easy").text
    assert "Sign in" in browser.get("/login", headers={"Accept-Language": "en"}).text
    assert re.findall(r'href="(\?lang=[a-z-]+)"', browser.get("/login?lang=en").text) == ["?lang=ja", "?lang=ja-easy"]


def test_the_page_names_only_the_ways_in_that_there_are(house: House) -> None:
    assert "LINE" not in house.gateway.client(None).get("/login").text
    assert "LINEで「ログイン」と送ってください" in house.gateway.client(None, line_secret="x").get("/login").text
    house.accounts.mails = False
    assert "市役所に頼んでください" in house.gateway.client(None).get("/login").text


def test_who_opens_a_page_of_ours_in_a_browser_is_led_to_come_in_and_back(house: House) -> None:
    browser = house.browser()
    led = browser.get("/labels?lang=en", headers={"Accept": "text/html,*/*;q=0.8"}, follow_redirects=False)
    assert (led.status_code, led.headers["Location"]) == (303, "/login?next=/labels")
    assert 'data-next="/labels"' in browser.get(led.headers["Location"]).text
    assert browser.get("/labels").status_code == 401, "programs hear that they need a token"
    assert browser.get("/api/v1/alerts", headers={"Accept": "text/html"}).status_code == 401


@pytest.mark.parametrize("wanted", ["/map#/office/audit", "/map#/alerts/a-1", "/mimamori"])
def test_who_comes_in_opens_what_they_had_open_by_passkey_and_by_mail(house: House, wanted: str) -> None:
    house.person("ab" * 8, "farmers", mail=MAIL)
    browser = house.browser()
    shown = browser.get("/login", params={"next": wanted}).text
    assert f'data-next="{wanted}"' in shown
    assert f'name="next" value="{wanted}"' in shown
    browser.post("/login", data={"mail": MAIL, "next": wanted})
    house.accounts.step(house.gateway.now_us)
    path = house.messages()[-1].links[0].url.removeprefix(URL)
    assert browser.get(path).status_code == 200
    assert browser.post(path).headers["Location"] == wanted


@pytest.mark.parametrize(
    "elsewhere",
    [
        "//evil.example", "https://evil.example", "/\\evil.example", "javascript:alert(1)", "/%09/x", "/a//b", "/map?x=1",
        "/map#x", "/map#/\"><script>", "//evil.example#/map", "/map\n#/x", "\t//evil.example", "/%2f/evil.example", "#/office",
        "map#/office", "/@evil.example", "/map#/a b",
    ],
)  # fmt: skip
def test_nobody_is_led_away_from_here(house: House, elsewhere: str) -> None:
    browser = house.browser()
    answer = browser.get("/login", params={"next": elsewhere})
    assert answer.status_code == 200
    assert "data-next" not in answer.text
    assert 'name="next"' not in answer.text
    link = house.link(house.staff("officer"))
    assert browser.post(link, params={"next": elsewhere}).headers["Location"] == "/account"
    house.person("ab" * 8, "farmers", mail=MAIL)
    browser.post("/login", data={"mail": MAIL, "next": elsewhere})
    house.accounts.step(house.gateway.now_us)
    assert "next" not in house.messages()[-1].links[0].url
