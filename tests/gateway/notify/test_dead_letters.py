"""A dead letter is seen from outside: the gateway's health says so while there is one, and only then."""

import asyncio
import json
import threading
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from sqlalchemy import insert

from gateway import core
from gateway.config import GatewayConfig
from gateway.service import running
from gateway.state import open_state, tables
from simulators.ports import free_port
from tests.gateway.town import NOW_US

PATIENCE_S = 10


def configured(folder: Path) -> GatewayConfig:
    tokens = folder / "tokens"
    tokens.write_text("tanaka operator,officer invented-operator-token\n")
    tokens.chmod(0o600)
    return GatewayConfig.model_validate(
        {
            "broker": {"url": f"mqtt://127.0.0.1:{free_port()}"},
            "state": {"url": f"sqlite:///{folder / 'state.db'}"},
            "store": {"type": "sqlite", "path": folder / "series.db"},
            "api": {"tokens_file": tokens, "port": 0},
            "media": {"folder": folder / "media"},
        }
    )


def queue(config: GatewayConfig) -> None:
    """One notification to a contact that is not configured: it dies at the first look."""
    alert = {"id": "a-1", "rule": "r", "kind": "trap", "severity": "critical", "node": "n", "device": "d", "opening": "o",
             "state": "firing", "since_us": 0, "late": False, "summary": "s", "version": 1}  # fmt: skip
    notification = {"id": "n-1", "alert": "a-1", "contact": "nobody", "state": "queued", "severity_rank": 0, "body": "{}",
                    "created_us": NOW_US, "due_us": NOW_US, "attempts": 0}  # fmt: skip
    state = open_state(config.state.url)
    with state.write() as connection:
        connection.execute(insert(tables.alerts), alert)
        connection.execute(insert(tables.notifications), notification)
    state.close()


def parts_once(port: int, wanted: str) -> dict[str, str]:
    """What health says of each part once the dead letters are as wanted, or when that did not come in time."""
    until = time.monotonic() + PATIENCE_S
    while True:
        with urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5) as answer:
            parts: dict[str, str] = json.load(answer)["parts"]
        if parts["dead_letters"] == wanted or time.monotonic() > until:
            return parts
        threading.Event().wait(0.05)


async def parts_of(config: GatewayConfig, wanted: str) -> dict[str, str]:
    async with running(config) as gateway:
        return await asyncio.to_thread(parts_once, gateway.port, wanted)


@pytest.mark.parametrize(("is_dead", "wanted"), [(False, "up"), (True, "down")])
def test_health_says_whether_a_notification_is_dead(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_dead: bool, wanted: str
) -> None:
    monkeypatch.setattr(core, "calm_collector", lambda: None)  # it is for a whole process, and this one has other tests
    config = configured(tmp_path)
    if is_dead:
        queue(config)
    parts = asyncio.run(parts_of(config, wanted))
    assert (parts["dead_letters"], parts["deliver"]) == (wanted, "up")
