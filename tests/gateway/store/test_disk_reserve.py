"""A disk that fills up is seen from outside: the gateway's health says so."""

import asyncio
import json
from pathlib import Path
from urllib.request import urlopen

import pytest

from gateway import core
from gateway.config import GatewayConfig
from gateway.service import running
from simulators.ports import free_port


def health(port: int) -> dict[str, str]:
    with urlopen(f"http://127.0.0.1:{port}/api/v1/health", timeout=5) as answer:
        parts: dict[str, str] = json.load(answer)["parts"]
    return parts


async def health_of(config: GatewayConfig) -> dict[str, str]:
    async with running(config) as gateway:
        return await asyncio.to_thread(health, gateway.port)


@pytest.mark.parametrize(("reserve_mib", "disk"), [(0, "up"), (2**40, "down")])
def test_health_says_whether_the_disk_has_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reserve_mib: int, disk: str
) -> None:
    monkeypatch.setattr(core, "calm_collector", lambda: None)  # it is for a whole process, and this one has other tests
    tokens = tmp_path / "tokens"
    tokens.write_text("tanaka operator,officer invented-operator-token\n")
    tokens.chmod(0o600)
    config = GatewayConfig.model_validate(
        {
            "broker": {"url": f"mqtt://127.0.0.1:{free_port()}"},
            "state": {"url": f"sqlite:///{tmp_path / 'state.db'}"},
            "store": {"type": "sqlite", "path": tmp_path / "series.db", "reserve_mib": reserve_mib},
            "api": {"tokens_file": tokens, "port": 0},
            "media": {"folder": tmp_path / "media"},
        }
    )
    parts = asyncio.run(health_of(config))
    assert (parts["disk"], parts["state"]) == (disk, "up")
