"""Over a real server: a stream ends soon after its session, and whom a limit counts for behind a proxy."""

import time
from dataclasses import replace
from ipaddress import ip_network

import httpx
import pytest
from sqlalchemy import update

from gateway.accounts.limits import RULES
from gateway.api.app import create_app
from gateway.api.server import serve
from gateway.state import tables
from tests.gateway.accounts.conftest import OWN, House
from tests.gateway.api.conftest import NOW_US
from tests.wire import in_thread

PATIENCE_S = 15


@pytest.mark.parametrize("how", ["ended", "disabled", "less"])
def test_an_open_stream_ends_within_seconds_of_its_session(house: House, how: str) -> None:
    began = time.monotonic_ns()
    house.gateway.deps = replace(
        house.gateway.deps, heartbeat_s=0.2, now_us=lambda: NOW_US + (time.monotonic_ns() - began) // 1000
    )
    account = house.staff("officer")
    cookies = dict(house.signed_in(account).cookies)
    other = dict(house.signed_in(house.staff("officer", name="佐藤")).cookies)
    with in_thread(serve(create_app(house.gateway.deps), "127.0.0.1", 0)) as port:
        url = f"http://127.0.0.1:{port}/api/v1/stream"
        with (
            httpx.stream("GET", url, cookies=cookies, timeout=PATIENCE_S) as stream,
            httpx.stream("GET", url, cookies=other, timeout=PATIENCE_S) as stays,
        ):
            assert (stream.status_code, stays.status_code) == (200, 200)
            lines, goes_on = stream.iter_lines(), stays.iter_lines()
            assert next(lines) == ": here"
            with house.state.write() as connection:
                if how == "ended":
                    ended = update(tables.sessions).where(tables.sessions.c.account == account)
                    connection.execute(ended.values(ended_us=NOW_US))
                elif how == "disabled":
                    mine = update(tables.accounts).where(tables.accounts.c.id == account)
                    connection.execute(mine.values(disabled_us=NOW_US))
                else:
                    connection.execute(update(tables.accounts).where(tables.accounts.c.id == account).values(roles="viewer"))
            since = time.monotonic()
            assert ": alive" in list(lines)  # and it ends, as a stream should, without a fault
            assert time.monotonic() - since < 6
            assert [next(goes_on) for _ in range(60)].count(": alive") > 25


def test_a_proxy_is_believed_only_where_it_is_configured(house: House) -> None:
    most = RULES["begin"].amount
    for proxies, limited_together in (([], True), ([ip_network("127.0.0.1/32")], False)):
        house.accounts.limits._windows.reset()
        with (
            in_thread(serve(create_app(house.gateway.deps), "127.0.0.1", 0, proxies=proxies)) as port,
            httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=OWN) as client,
        ):

            def begin(asker: str, client: httpx.Client = client) -> int:
                return client.post("/api/v1/login/passkey/begin", headers={"X-Forwarded-For": asker}).status_code

            assert [begin(f"192.0.2.{n}") for n in range(most)] == [200] * most
            assert begin("192.0.2.250") == (429 if limited_together else 200)
            if not limited_together:
                # What the asker itself wrote in front of the proxy's word counts for nothing.
                codes = [begin(f"198.51.100.{n}, 203.0.113.9") for n in range(most + 1)]
                assert codes[-1] == 429
