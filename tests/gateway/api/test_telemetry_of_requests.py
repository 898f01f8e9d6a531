"""Requests in `/metrics`: by route, and nothing of what was asked for."""

import json

import anyio
import pytest
from starlette.types import Message, Receive, Scope, Send

from gateway.api.measured import Measured
from gateway.state import tables
from gateway.telemetry import Telemetry, version
from tests.gateway.api.conftest import Gateway
from tests.gateway.scraped import Shown


def test_requests_are_counted_by_the_routes_template_never_by_what_was_asked_for(gateway: Gateway) -> None:
    gateway.insert(tables.nodes)
    client = gateway.client("operator")
    client.get("/api/v1/media/" + "a" * 64)
    client.get("/api/v1/media/" + "b" * 64)
    client.get("/a/a-link-that-is-a-proof")
    client.request("BREW", "/api/v1/devices")
    gateway.client(None).get("/api/v1/devices")
    shown = Shown(gateway.deps.telemetry)
    assert shown("requests_total", "GET", "/api/v1/media/{sha256}", "404") == 2
    assert shown("request_seconds_count", "GET", "/api/v1/media/{sha256}") == 2
    assert shown("requests_total", "GET", "none", "401") == 1
    assert shown("requests_total", "other", "none", "405") + shown("requests_total", "other", "/api/v1/devices", "405") == 1
    assert "proof" not in json.dumps([[*labels] for one in shown.samples.values() for labels in one])


def test_every_template_is_a_path_of_the_api(gateway: Gateway) -> None:
    """FastAPI keeps the whole of it in a place of its own, which an update may move."""
    client = gateway.client("operator")
    for path in ("/api/v1/health", "/api/v1/alerts", "/api/v1/events", "/metrics", "/icon.svg"):
        client.get(path)
    counted = Shown(gateway.deps.telemetry).samples["requests_total"]
    assert {label for labels in counted for label in labels if label.startswith("/")} == {
        "/api/v1/health", "/api/v1/alerts", "/api/v1/events", "/metrics", "/icon.svg",
    }  # fmt: skip


def test_what_fails_inside_is_a_500(gateway: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gateway.api.operations._state_answers", lambda _: 1 / 0)
    assert gateway.client("operator").get("/api/v1/health").status_code == 500
    assert Shown(gateway.deps.telemetry)("requests_total", "GET", "/api/v1/health", "500") == 1


def test_a_scrape_needs_its_right_and_shows_which_version_it_is_of(gateway: Gateway) -> None:
    gateway.deps.telemetry.build.labels(version(), "0006").set(1)
    assert gateway.client(None).get("/metrics").status_code == 401
    assert f'satomori_build_info{{schema="0006",version="{version()}"}} 1.0' in gateway.client("operator").get("/metrics").text


def test_an_answer_that_breaks_off_is_counted_once() -> None:
    """Its status was said before: another 500 beside it would be of a request that nobody made."""
    telemetry = Telemetry()

    async def breaks_off(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise OSError("the disk went")

    async def nowhere(_: Message) -> None: ...

    async def nothing() -> Message:
        return {"type": "http.disconnect"}

    with pytest.raises(OSError, match="the disk went"):
        anyio.run(Measured(breaks_off, telemetry), {"type": "http", "method": "GET"}, nothing, nowhere)
    assert sum(Shown(telemetry).samples["requests_total"].values()) == 1
