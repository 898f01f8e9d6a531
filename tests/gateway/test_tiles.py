"""Tiles of the map: asked of their source politely and once, kept, and given however the source does."""

import logging
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from pmtiles.tile import Compression, TileType, zxy_to_tileid
from pmtiles.writer import Writer

from gateway import tiles
from gateway.errors import ConfigError
from gateway.tiles import CONNECTIONS, FRESH_S, RETRY_S, FileTiles, GsiTiles, MapConfig, SourceDown, Tile, open_tiles

NOW_US = 1_780_434_720_000_000
PNG = b"\x89PNG\r\n\x1a\n" + bytes(3000)
TSUKUBA = ("std", 15, 29103, 12885)
"""A tile in Japan."""


class Source:
    """A map server: what it was asked, and what it says. Holds its answers back while `held` is not set; then each for
    `slow_s`, or until a third question comes meanwhile."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, dict[str, str]]] = []
        self.answer: Callable[[dict[str, str]], tuple[int, dict[str, str], bytes]] = lambda _: (200, {"ETag": '"one"'}, PNG)
        self.at_once, self.most_at_once = 0, 0
        self.held = threading.Event()
        self.held.set()
        self.slow_s = 0.0
        lock, source = threading.Condition(), self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                said = {name.lower(): value for name, value in self.headers.items()}
                with lock:
                    source.asked.append((self.path, said))
                    source.at_once += 1
                    source.most_at_once = max(source.most_at_once, source.at_once)
                    lock.notify_all()
                source.held.wait(20)
                with lock:
                    lock.wait_for(lambda: source.most_at_once > CONNECTIONS, source.slow_s)
                    source.at_once -= 1
                status, headers, body = source.answer(said)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *args: object) -> None:
                """Says nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/xyz"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self.held.set()
        self.server.shutdown()
        self.server.server_close()


@pytest.fixture
def source() -> Iterator[Source]:
    made = Source()
    yield made
    made.close()


class Map:
    """Tiles of that source, by a clock of the test's."""

    def __init__(self, folder: Path, url: str, limit_bytes: int = 10**7) -> None:
        self.now_us = NOW_US
        self.tiles = GsiTiles(folder, lambda: self.now_us, limit_bytes, url, timeout_s=20)

    def ask(self, *which: Any) -> "Future[Tile | None]":
        style, z, x, y = which or TSUKUBA
        return self.tiles.tile(style, z, x, y)

    def get(self, *which: Any) -> Tile | None:
        return self.ask(*which).result(20)

    def later(self, seconds: float) -> None:
        self.now_us += int(seconds * 1e6)


@pytest.fixture
def town(tmp_path: Path, source: Source) -> Iterator[Map]:
    made = Map(tmp_path / "tiles", source.url)
    yield made
    made.tiles.close()


def test_a_tile_is_asked_for_once_in_thirty_days_and_by_name(town: Map, source: Source, tmp_path: Path) -> None:
    first = town.get()
    assert first is not None
    assert (first.content, first.content_type) == (PNG, "image/png")
    town.later(FRESH_S - 60)
    assert town.get() == first
    again = Map(tmp_path / "tiles", source.url)  # after a restart
    assert again.get() == first
    again.tiles.close()
    [(path, headers)] = source.asked
    assert path == "/xyz/std/15/29103/12885.png"
    assert "satomori" in headers["user-agent"]


def test_an_old_tile_is_asked_for_by_its_mark_and_kept_where_nothing_changed(town: Map, source: Source) -> None:
    source.answer = lambda said: (
        (304, {}, b"") if said.get("if-none-match") == '"one"' else (200, {"ETag": '"one"', "Last-Modified": "then"}, PNG)
    )
    first = town.get()
    town.later(FRESH_S + 60)
    assert town.get() == first
    assert source.asked[1][1]["if-modified-since"] == "then"
    town.later(FRESH_S - 60)
    assert town.get() == first
    assert len(source.asked) == 2, "what GSI said is still so is fresh for another thirty days"


def test_a_tile_that_there_is_not_is_remembered(town: Map, source: Source) -> None:
    source.answer = lambda _: (404, {}, b"")
    assert town.get() is None
    assert town.get() is None
    assert len(source.asked) == 1


@pytest.mark.parametrize(
    "which",
    [("std", 15, 0, 0), ("std", 19, 465648, 206160), ("std", 2, 3, 1), ("pale", 15, 29103, -1), ("photo", 15, 29103, 12885)],
)
def test_nothing_but_japan_in_its_zooms_and_styles_is_asked_for(town: Map, source: Source, which: Any) -> None:
    assert town.get(*which) is None
    assert source.asked == []


def test_many_who_wait_are_one_question_and_two_are_asked_at_once(town: Map, source: Source) -> None:
    source.held.clear()
    source.slow_s = 0.1
    same = [town.ask() for _ in range(20)]
    others = [town.ask("std", 15, 29103 + number, 12885) for number in range(1, 8)]
    source.held.set()
    assert {one.result(20).content for one in same} == {PNG}  # type: ignore[union-attr]  # None has no content, and fails
    assert all(one.result(20) for one in others)
    assert len(source.asked) == 8
    assert source.most_at_once <= CONNECTIONS


def test_a_source_that_is_down_is_left_alone_for_a_while_and_said_once(
    town: Map, source: Source, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING, tiles.__name__)
    kept = town.get("pale", 15, 29103, 12885)
    source.answer = lambda _: (503, {}, b"")
    with pytest.raises(SourceDown) as down:
        town.get()
    assert down.value.wait_s == RETRY_S
    asked = len(source.asked)
    with pytest.raises(SourceDown) as down:
        town.get()
    assert 0 < down.value.wait_s <= RETRY_S
    assert len(source.asked) == asked
    town.later(FRESH_S + 1)
    assert town.get("pale", 15, 29103, 12885) == kept, "an old map is better than none"
    source.answer = lambda _: (200, {}, PNG)
    town.later(RETRY_S + 1)
    assert town.get() is not None
    assert [record.levelname for record in caplog.records] == ["WARNING", "WARNING"]
    assert "503" in caplog.messages[0]
    assert "again" in caplog.messages[1]


def test_one_question_finds_out_whether_a_source_is_back_and_nobody_else_waits_for_it(town: Map, source: Source) -> None:
    source.answer = lambda _: (503, {}, b"")
    with pytest.raises(SourceDown):
        town.get()
    town.later(RETRY_S + 1)
    source.held.clear()
    probe = town.ask()
    with pytest.raises(SourceDown):
        town.ask("std", 15, 29104, 12885).result(0)
    source.answer = lambda _: (200, {}, PNG)
    source.held.set()
    assert probe.result(20) is not None
    assert town.get("std", 15, 29104, 12885) is not None
    assert len(source.asked) == 3


@pytest.mark.parametrize(
    ("status", "headers", "body"),
    [(200, {}, b"<html>"), (200, {}, PNG + bytes(tiles.LARGEST_BYTES)), (302, {"Location": "http://127.0.0.1:9/"}, b"")],
)
def test_what_is_no_tile_is_neither_kept_nor_given(
    town: Map, source: Source, status: int, headers: dict[str, str], body: bytes, tmp_path: Path
) -> None:
    source.answer = lambda _: (status, headers, body)
    with pytest.raises(SourceDown):
        town.get()
    assert list((tmp_path / "tiles").rglob("*.tile")) == []


def test_the_folder_stays_within_its_bound_and_lets_the_oldest_go(tmp_path: Path, source: Source) -> None:
    town = Map(tmp_path / "tiles", source.url, limit_bytes=10 * 4096)
    for number in range(12):
        town.later(1)
        assert town.get("std", 15, 29100 + number, 12885) is not None
    kept = sorted(int(path.parent.name) - 29100 for path in (tmp_path / "tiles").rglob("*.tile"))
    assert len(kept) <= 10
    assert kept[-1] == 11
    assert 0 not in kept
    town.tiles.close()


# --- A file of the town's own -------------------------------------------------------------------------


def written(path: Path, kind: TileType = TileType.PNG) -> Path:
    with path.open("wb") as file:
        writer: Any = Writer(file)  # type: ignore[no-untyped-call]  # it ships annotations for a part of itself
        writer.write_tile(zxy_to_tileid(15, 29103, 12885), PNG)
        header = {"tile_type": kind, "tile_compression": Compression.NONE, "min_zoom": 15, "max_zoom": 15,
                  "min_lon_e7": 0, "min_lat_e7": 0, "max_lon_e7": 0, "max_lat_e7": 0, "center_zoom": 15,
                  "center_lon_e7": 0, "center_lat_e7": 0}  # fmt: skip
        writer.finalize(header, {"attribution": '<a href="https://example.jp">© 見本町</a>'})
    return path


def test_a_file_of_the_towns_own_gives_its_tiles_and_says_whose_it_is(tmp_path: Path) -> None:
    made = open_tiles(MapConfig(tiles=str(written(tmp_path / "town.pmtiles"))), tmp_path / "state.db", lambda: NOW_US)
    assert isinstance(made, FileTiles)
    found = made.tile(*TSUKUBA).result(0)
    assert found is not None
    assert found.content == PNG
    assert made.tile("std", 15, 29103, 12886).result(0) is None
    assert made.tile("std", 16, 29103, 12885).result(0) is None
    assert (made.zooms, made.attribution) == ((15, 15), tiles.Attribution("© 見本町", None))


def test_a_file_that_is_no_map_of_images_is_refused_at_start(tmp_path: Path) -> None:
    (tmp_path / "broken.pmtiles").write_bytes(b"PMTiles?" * 40)
    written(tmp_path / "vectors.pmtiles", TileType.MVT)
    for name in ("broken", "vectors", "none"):
        with pytest.raises(ConfigError, match=r"map\.tiles"):
            FileTiles(tmp_path / f"{name}.pmtiles")
    with pytest.raises(ValueError, match="pmtiles"):
        MapConfig(tiles="https://tiles.example/{z}/{x}/{y}.png")


def test_a_town_may_have_no_map(tmp_path: Path) -> None:
    assert open_tiles(MapConfig(tiles="none"), tmp_path / "state.db", lambda: NOW_US) is None
    assert not (tmp_path / "tiles").exists()
