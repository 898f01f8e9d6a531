"""The map as pages get it: tiles for everybody, by measure, and where to begin."""

from concurrent.futures import Future
from dataclasses import replace

import limits
import pytest
from pydantic import ValidationError
from sqlalchemy import insert

from gateway.accounts.limits import RULES
from gateway.api.tokens import Tokens
from gateway.deployments import Deployment, Deployments
from gateway.policy import Actor
from gateway.state import tables
from gateway.tiles import Attribution, LinkConfig, MapConfig, SourceDown, Tile
from tests.gateway.api.conftest import Gateway

TILE = Tile(b"\x89PNG a map", "image/png", '"one"')
PATH = "/tiles/std/15/29103/12885.png"


class Drawn:
    """A source with one tile; `down`: it can't be reached."""

    styles, zooms = ("std", "pale"), (5, 18)
    attribution = Attribution("出典：国土地理院", "https://maps.gsi.go.jp/development/ichiran.html")

    def __init__(self) -> None:
        self.down = False

    def tile(self, style: str, z: int, x: int, y: int) -> "Future[Tile | None]":
        future: Future[Tile | None] = Future()
        if self.down:
            future.set_exception(SourceDown(30))
        else:
            future.set_result(TILE if (style, z, x, y) == ("std", 15, 29103, 12885) else None)
        return future

    def close(self) -> None:
        """Nothing is open."""


@pytest.fixture
def drawn() -> Drawn:
    return Drawn()


@pytest.fixture
def town(gateway: Gateway, drawn: Drawn) -> Gateway:
    stand = [Deployment(node="kitayama-03", device=f"trap-{n}", kind="trap", place="北尾根", at=(36.125 + n / 64, 140.0625))
             for n in range(2)]  # fmt: skip
    return Gateway(replace(gateway.deps, tiles=drawn, deployments=Deployments(stand)), gateway.state, gateway.store)


def test_anybody_gets_tiles_and_a_browser_keeps_them_for_a_day(town: Gateway) -> None:
    anybody = town.client(None)
    answer = anybody.get(PATH)
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, TILE.content, "image/png")
    assert answer.headers["Cache-Control"] == "public, max-age=86400"
    assert anybody.get(PATH, headers={"If-None-Match": answer.headers["ETag"]}).status_code == 304
    assert anybody.get("/tiles/std/15/29103/12886.png").status_code == 404
    for wrong in ("/tiles/STD/15/1/1.png", "/tiles/std/99/1/1.png", "/tiles/std/15/-1/1.png", "/tiles/std/15/1/../1.png"):
        assert anybody.get(wrong).status_code in (404, 422), wrong


def test_a_source_that_is_down_is_said_and_when_to_ask_again(town: Gateway, drawn: Drawn) -> None:
    drawn.down = True
    answer = town.client(None).get(PATH)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "30")


def test_one_address_gets_so_many_tiles_and_no_more(town: Gateway, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RULES, "tile", limits.parse("3/5 minutes"))
    anybody = town.client(None)
    assert [anybody.get(PATH).status_code for _ in range(4)] == [200, 200, 200, 429]


def test_a_page_learns_where_the_map_is_and_whose(town: Gateway) -> None:
    assert town.client("viewer").get("/api/v1/map").json() == {
        "styles": ["std", "pale"],
        "attribution": {"text": "出典：国土地理院", "url": "https://maps.gsi.go.jp/development/ichiran.html"},
        "min_zoom": 5, "max_zoom": 18,
        "centre": [36.132812, 140.0625], "bounds": [[36.125, 140.0625], [36.140625, 140.0625]], "links": [],
    }  # fmt: skip
    assert town.client(None).get("/api/v1/map").status_code == 401


def test_where_an_installer_measured_a_device_counts_more_than_what_was_planned(town: Gateway) -> None:
    begun = {"id": "one", "node": "kitayama-03", "device": "trap-1", "by": "sato", "begun_us": 1, "received_us": 2, "lat": 36.25,
             "lon": 140.5, "note": "", "photos": "[]", "signal": "[]", "state": "done", "why": "", "version": 1}  # fmt: skip
    with town.state.write() as connection:
        connection.execute(insert(tables.installations).values(begun))
    said = town.client("viewer").get("/api/v1/map").json()
    assert said["bounds"] == [[36.125, 140.0625], [36.25, 140.5]]


def test_who_has_no_device_learns_no_more_than_about_where_the_town_is(town: Gateway) -> None:
    farmer = Tokens({"viewer-token-for-tests-1": Actor("contact:f1", frozenset({"farmer"}))})
    assert town.client("viewer", tokens=farmer).get("/api/v1/map").json()["bounds"] == [[36.1, 140.0], [36.2, 140.1]]


def test_a_town_without_tiles_or_positions_has_a_map_of_nothing(gateway: Gateway) -> None:
    said = gateway.client().get("/api/v1/map").json()
    assert (said["styles"], said["attribution"], said["bounds"], said["centre"]) == ([], None, None, None)
    assert gateway.client(None).get(PATH).status_code == 404


def test_pages_of_the_towns_own_come_with_the_map(gateway: Gateway) -> None:
    links = [LinkConfig(label="使い方", url="https://kirisawa.example/manual")]
    town = Gateway(replace(gateway.deps, links=links), gateway.state, gateway.store)
    assert town.client("viewer").get("/api/v1/map").json()["links"] == [
        {"label": "使い方", "url": "https://kirisawa.example/manual"}
    ]


@pytest.mark.parametrize(
    ("link", "why"),
    [
        ({"label": "使い方", "url": "javascript:alert(1)"}, "http"),
        ({"label": "使い方", "url": "https:///nowhere"}, "host"),
        ({"label": "使い方", "url": "/manual"}, "http"),
        ({"label": "", "url": "https://kirisawa.example/"}, "label"),
        ({"label": " ", "url": "https://kirisawa.example/"}, "label"),
        ({"label": "あ" * 21, "url": "https://kirisawa.example/"}, "label"),
    ],
)
def test_a_link_that_leads_nowhere_or_says_nothing_is_refused(link: dict[str, str], why: str) -> None:
    with pytest.raises(ValidationError, match=why):
        MapConfig.model_validate({"link": [link]})


def test_a_town_has_five_links_at_most() -> None:
    link = {"label": "使い方", "url": "https://kirisawa.example/"}
    assert len(MapConfig.model_validate({"link": [link] * 5}).link) == 5
    with pytest.raises(ValidationError, match="link"):
        MapConfig.model_validate({"link": [link] * 6})
