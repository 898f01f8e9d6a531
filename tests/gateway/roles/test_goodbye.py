"""A process that is asked to end: while anything of it is under way nobody takes it for dead, and does that a second time."""

import asyncio
import threading
from pathlib import Path

import pytest
from sqlalchemy import text

from gateway import roles
from gateway.config import GatewayConfig
from gateway.leases import Worker
from gateway.news import News
from gateway.state import open_state
from simulators.several import until
from tests import postgresql

pytestmark = pytest.mark.services


def test_it_says_that_it_works_until_nothing_of_it_is_under_way(
    server: postgresql.Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = open_state(server.make("goodbye"))
    asked, said, ended = threading.Event(), set[int](), list[str]()

    def renewed(times: int) -> bool:
        with state.read() as connection:
            said.update(connection.scalars(text("SELECT until_us FROM workers")))
        return len(said) > times

    def attempt() -> None:
        """One that is under way when the process is asked to end, and takes as long as some renewals do."""
        asked.wait()
        until(lambda: renewed(3), "it says so three times more", 10)
        ended.append("attempt")

    def part(_core: object, _worker: Worker, _news: News) -> roles._Part:
        return roles._Part([("deliver", attempt)], [asked.set], dict)

    monkeypatch.setattr(roles, "_deliver", part)
    config = GatewayConfig.model_validate(
        {
            "broker": {"url": "mqtt://127.0.0.1:1"},
            "state": {"url": server.url("goodbye"), "lease": "3s"},
            "store": {"type": "sqlite", "path": str(tmp_path / "series.db")},
            "api": {"tokens_file": str(tmp_path / "tokens")},
            "media": {"folder": str(tmp_path / "media")},
            "keep": {"erasures_file": str(tmp_path / "erasures")},
        }
    )

    async def run() -> None:
        async with roles.running(config, ["deliver"]):
            pass

    asyncio.run(run())
    assert ended == ["attempt"]
    with state.read() as connection:
        assert connection.scalars(text("SELECT id FROM workers")).all() == [], "and then it says goodbye"
    state.close()
