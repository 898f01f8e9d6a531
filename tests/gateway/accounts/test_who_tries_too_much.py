"""What one may do to the gateway by trying without end: with tokens, with changes, with open pages, with a wrong clock."""

import time
from collections.abc import Iterator
from dataclasses import replace

import httpx
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import func, select

from gateway.accounts.limits import RULES
from gateway.accounts.passkeys import CHALLENGE_LASTS_US
from gateway.accounts.sessions import DAY_US
from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.api.stream import MOST_OF_ONE
from gateway.state import tables
from tests.gateway.accounts.conftest import House
from tests.gateway.api.conftest import BEARER
from tests.wire import in_thread

DEVICES = "/api/v1/devices"


@pytest.mark.parametrize("with_accounts", [True, False])
def test_wrong_tokens_end_and_a_token_that_opened_goes_on(house: House, with_accounts: bool) -> None:
    if not with_accounts:
        house.gateway.deps = replace(house.gateway.deps, accounts=None, desk=None)
    client = TestClient(create_app(house.gateway.deps))
    assert client.get(DEVICES, headers=BEARER["viewer"]).status_code == 200
    most = RULES["token"].amount
    tried = [client.get(DEVICES, headers={"Authorization": f"Bearer wrong-{at}"}).status_code for at in range(most + 1)]
    assert tried == [401] * most + [429]
    right = client.get(DEVICES, headers=BEARER["operator"])  # a guess that hits is not told from one that does not
    assert (right.status_code, int(right.headers["Retry-After"]) > 0) == (429, True)
    assert client.get(DEVICES, headers=BEARER["viewer"]).status_code == 200
    assert client.get(DEVICES).status_code == 401
    house.gateway.now_us += RULES["token"].get_expiry() * 1_000_000 + 1
    assert client.get(DEVICES, headers=BEARER["operator"]).status_code == 200


def test_nobody_fills_the_trail_with_their_own_account(house: House) -> None:
    browser = house.signed_in(house.staff("viewer"))
    before = _entries(house)
    answers = [browser.patch("/api/v1/account/passkeys/x", json={"name": "x"}).status_code for _ in range(305)]
    assert (answers[0], answers[-1]) == (404, 429)
    assert _entries(house) == before


@pytest.mark.parametrize("way", ["page", "api"])
def test_one_mail_box_is_asked_for_ten_links_a_day_whoever_asks_and_however_it_is_written(house: House, way: str) -> None:
    house.person("ab" * 8, "farmers", mail="hanako@example.jp")

    def asked(mail: str) -> int:
        house.gateway.now_us += RULES["asked"].get_expiry() * 1_000_000
        browser = house.browser()
        if way == "page":
            return int(browser.post("/login", data={"mail": mail}).status_code)
        return int(browser.post("/api/v1/login/link", json={"mail": mail}).status_code)

    well = 200 if way == "page" else 202
    for mails in (("hanako@example.jp", "hanako@EXAMPLE.jp "), ("nobody@example.jp", " nobody@example.jp")):
        assert [asked(mails[at % 2]) for at in range(11)] == [well] * 10 + [429]  # known or not, it is the same
    house.gateway.now_us += RULES["asked_day"].get_expiry() * 1_000_000
    assert asked("hanako@example.jp") == well


def test_challenges_that_nobody_answers_do_not_pile_up(house: House, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.accounts.passkeys.MOST_CHALLENGES", 5)
    _, device = house.with_passkey(house.staff("officer"))
    for _ in range(9):
        house.gateway.now_us += 1
        house.accounts.begin_login()
    assert _challenges(house) == 5
    assert house.login(device).status_code == 200  # who comes now comes in
    house.gateway.now_us += CHALLENGE_LASTS_US
    house.accounts.begin_login()
    assert _challenges(house) == 1


def test_a_session_of_a_clock_that_was_years_ahead_does_not_last_until_then(house: House) -> None:
    now_us = house.gateway.now_us
    house.gateway.now_us = now_us + 3650 * DAY_US
    browser = house.signed_in(house.staff("viewer"))
    house.gateway.now_us = now_us
    assert browser.get(DEVICES).status_code == 401
    house.gateway.now_us = now_us + 60_000_000
    slightly = house.signed_in(house.staff("viewer", name="画面"))
    house.gateway.now_us = now_us  # a clock that was set right by a minute
    assert slightly.get(DEVICES).status_code == 200


def test_one_account_does_not_take_all_streams(house: House) -> None:
    house.gateway.deps = replace(house.gateway.deps, heartbeat_s=0.2)
    one, other = (dict(house.signed_in(house.staff("viewer", name=name)).cookies) for name in ("一", "二"))
    with in_thread(serve(create_app(house.gateway.deps), "127.0.0.1", 0)) as port, httpx.Client(timeout=15) as client:
        url = f"http://127.0.0.1:{port}/api/v1/stream"

        def opened(cookies: dict[str, str]) -> httpx.Response:
            said = {"Cookie": "; ".join(f"{name}={value}" for name, value in cookies.items())}
            answer = client.send(client.build_request("GET", url, headers=said), stream=True)
            if answer.status_code == 200:
                kept.append(answer.iter_lines())  # without its iterator a stream is closed
                next(kept[-1])
            return answer

        kept: list[Iterator[str]] = []
        streams = [opened(one) for _ in range(MOST_OF_ONE)]
        assert {stream.status_code for stream in streams} == {200}
        assert (opened(one).status_code, opened(other).status_code) == (429, 200)
        streams[0].close()
        until = time.monotonic() + 10
        while (again := opened(one)).status_code != 200:
            assert time.monotonic() < until
        again.close()
        for stream in streams:
            stream.close()


def _challenges(house: House) -> int:
    with house.state.read() as connection:
        return connection.scalar(select(func.count()).select_from(tables.ceremonies)) or 0


def _entries(house: House) -> int:
    with house.state.read() as connection:
        return connection.scalar(select(func.count()).select_from(tables.audit)) or 0
