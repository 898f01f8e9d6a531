"""Tiles of the map, for pages that speak to no other host: GSI's, asked for once and kept, or a file of the town's own.

A source says where its map comes from, which styles and zooms it has, and gives one tile. It never makes an asker wait for
another's: what is not here yet is fetched by two threads of its own, once for all who ask, and while GSI can't be reached
nobody waits for it. Only tiles of Japan are asked for, by addresses made of numbers: nothing here fetches what somebody names.

GSI's terms: https://maps.gsi.go.jp/development/ichiran.html. Each page that shows its tiles shows `attribution`, as a link.
"""

import hashlib
import json
import logging
import math
import os
import re
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated, Any, NamedTuple, Protocol
from urllib.parse import urlsplit

import httpx
from pmtiles.reader import MmapSource, Reader
from pmtiles.tile import Compression, TileType
from pydantic import BaseModel, ConfigDict, Field, field_validator

from gateway.errors import ConfigError
from gateway.store.disk import RESERVE_MIB, Reserve

log = logging.getLogger(__name__)

GSI = "https://cyberjapandata.gsi.go.jp/xyz"
USER_AGENT = "satomori gateway (a town's own map cache, at most 2 connections)"
CONNECTIONS = 2
MOST_WAITING = 200
"""Tiles that wait to be fetched; who asks for one more is told to come again."""
RETRY_S = 30
"""So long GSI is left alone after it gave no answer."""
FRESH_S = 30 * 86_400
LARGEST_BYTES = 1024 * 1024
MIN_ZOOM, MAX_ZOOM = 5, 18
JAPAN = (20.0, 122.0, 46.0, 154.0)
"""South, west, north, east, degrees: GSI has tiles of nothing else."""
_BLOCK_BYTES = 4096

_PNG = b"\x89PNG\r\n\x1a\n"
_IMAGES = {TileType.PNG: "image/png", TileType.JPEG: "image/jpeg", TileType.WEBP: "image/webp"}


class LinkConfig(BaseModel):
    """One `map.link`: a page of the town's own, its manual or its LINE account."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    label: Annotated[str, Field(min_length=1, max_length=20, description="What people read: 使い方.")]
    url: Annotated[str, Field(max_length=500, description="Where it leads: http:// or https://.")]

    @field_validator("label")
    @classmethod
    def _says_something(cls, label: str) -> str:
        if not label.strip():
            raise ValueError("it is empty")
        return label.strip()

    @field_validator("url")
    @classmethod
    def _is_a_page(cls, url: str) -> str:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"{url!r} is not the address of a page: it begins with https:// or http://, and names a host")
        return url


class MapConfig(BaseModel):
    """`[map]`: where the map's tiles come from, and what stands at its foot."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    tiles: str = Field(
        "gsi", description="`gsi`: of the Geospatial Information Authority of Japan; a .pmtiles file of images; or `none`."
    )
    folder: Path | None = Field(None, description="Folder where GSI's tiles are kept; absent: `tiles` beside the state database.")
    cache_mib: Annotated[int, Field(ge=10, le=100_000)] = Field(500, description="How much of them is kept.")
    link: Annotated[list[LinkConfig], Field(max_length=5)] = Field(
        [], description="Pages of the town's own, shown at the foot of the map's page; at most 5."
    )

    @field_validator("tiles")
    @classmethod
    def _is_known(cls, tiles: str) -> str:
        if tiles not in ("gsi", "none") and not tiles.endswith(".pmtiles"):
            raise ValueError(f'{tiles!r} is neither "gsi", "none" nor a file that ends with .pmtiles')
        return tiles


class Attribution(NamedTuple):
    """What stands on the map, and where it leads; no `url`: nowhere."""

    text: str
    url: str | None


class Tile(NamedTuple):
    """One image. `etag` as in HTTP, quotes included."""

    content: bytes
    content_type: str
    etag: str


class SourceDown(Exception):
    """It can't be had now; maybe in `wait_s`."""

    def __init__(self, wait_s: int) -> None:
        super().__init__(f"the map's source gives no answer; again in {wait_s} s")
        self.wait_s = wait_s


class Tiles(Protocol):
    """A source."""

    @property
    def styles(self) -> tuple[str, ...]:
        """Their names: `std`, `pale`."""
        ...

    @property
    def zooms(self) -> tuple[int, int]:
        """The least and the most that there is."""
        ...

    @property
    def attribution(self) -> Attribution | None:
        """What its owner wants to be said; None: nothing."""
        ...

    def tile(self, style: str, z: int, x: int, y: int) -> "Future[Tile | None]":
        """The tile, None where there is none; its future raises SourceDown. Never blocks for longer than a disk does."""
        ...

    def close(self) -> None:
        """Asks for no more."""
        ...


def open_tiles(config: MapConfig, beside: Path, now_us: Callable[[], int]) -> Tiles | None:
    """The source of the configuration; None: no map. `beside`: the state database's file. ConfigError."""
    if config.tiles == "none":
        return None
    if config.tiles == "gsi":
        return GsiTiles(config.folder or beside.parent / "tiles", now_us, config.cache_mib * 2**20)
    return FileTiles(Path(config.tiles))


def _done(tile: Tile | None) -> "Future[Tile | None]":
    future: Future[Tile | None] = Future()
    future.set_result(tile)
    return future


# --- A file of the town's own ---------------------------------------------------------------------------


class FileTiles:
    """A PMTiles file of images (version 3, https://github.com/protomaps/PMTiles): one style, `std`."""

    styles = ("std",)

    def __init__(self, path: Path) -> None:
        try:
            with path.open("rb") as file:
                reader: Any = Reader(MmapSource(file))  # type: ignore[no-untyped-call]  # it ships annotations for a part of itself
            header = reader.header()
            said = reader.metadata()
        except Exception as error:  # the library raises whatever a broken file makes of it
            raise ConfigError(f"map.tiles: {path} can't be read as PMTiles: {error}") from error
        if header["tile_type"] not in _IMAGES or header["tile_compression"] not in (Compression.NONE, Compression.UNKNOWN):
            raise ConfigError(f"map.tiles: {path} holds {header['tile_type'].name} tiles; PNG, JPEG or WebP images are needed")
        self._reader, self._path, self._lock, self._is_broken = reader, path, threading.Lock(), False
        self._content_type = _IMAGES[header["tile_type"]]
        self.zooms: tuple[int, int] = (header["min_zoom"], header["max_zoom"])
        words = re.sub(r"<[^>]*>", "", str(said.get("attribution") or "")).strip()[:200]
        self.attribution = Attribution(words, None) if words else None

    def tile(self, style: str, z: int, x: int, y: int) -> "Future[Tile | None]":
        """As `Tiles.tile`."""
        least, most = self.zooms
        if style not in self.styles or not least <= z <= most or not (0 <= x < 2**z and 0 <= y < 2**z):
            return _done(None)
        try:
            content = self._reader.get(z, x, y)
        except Exception as error:  # noqa: BLE001 - as above
            with self._lock:
                if not self._is_broken:
                    log.error("the map's file %s is broken: %s. Put a whole one there and restart", self._path, error)
                self._is_broken = True
            return _done(None)
        if not content:
            return _done(None)
        return _done(Tile(content, self._content_type, f'"{hashlib.sha256(content).hexdigest()[:32]}"'))

    def close(self) -> None:
        """The file is mapped, and goes with this object."""


# --- GSI's -----------------------------------------------------------------------------------------------


class _Kept(NamedTuple):
    """One file of the cache: a line of JSON, then the image. Its modification time is when GSI last said that it is so."""

    said: dict[str, Any]
    content: bytes
    age_s: float

    @property
    def tile(self) -> Tile | None:
        return Tile(self.content, "image/png", self.said["etag"]) if self.content else None


class GsiTiles:
    """Tiles of the Geospatial Information Authority of Japan (国土地理院), kept on disk. Any thread may ask."""

    styles = ("std", "pale")
    zooms = (MIN_ZOOM, MAX_ZOOM)
    attribution = Attribution("出典：国土地理院", "https://maps.gsi.go.jp/development/ichiran.html")

    def __init__(
        self, folder: Path, now_us: Callable[[], int], limit_bytes: int, source: str = GSI, timeout_s: float = 10
    ) -> None:
        """Makes the folder. ConfigError where it can't be used. `source`: where `/{style}/{z}/{x}/{y}.png` is asked for."""
        try:
            folder.mkdir(mode=0o750, parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"map.folder: {folder} can't be made: {error}") from error
        self._folder, self._now_us, self._limit_bytes, self._source = folder, now_us, limit_bytes, source
        self._disk = Reserve(folder, RESERVE_MIB)
        self._client = httpx.Client(
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
            timeout=timeout_s,
            follow_redirects=False,
        )
        self._threads = ThreadPoolExecutor(CONNECTIONS, "tiles")
        self._lock = threading.RLock()  # a fetch may be over before we are done with asking for it
        self._asked: dict[Path, Future[Tile | None]] = {}
        self._down_until_us = 0
        self._is_down = False
        self._bytes: int | None = None

    def tile(self, style: str, z: int, x: int, y: int) -> "Future[Tile | None]":
        """As `Tiles.tile`. While GSI can't be reached, what is kept is given however old it is."""
        if style not in self.styles or not _is_in_japan(z, x, y):
            return _done(None)
        path = self._folder / style / str(z) / str(x) / f"{y}.tile"
        kept = self._read(path)
        if kept is not None and 0 <= kept.age_s < FRESH_S:
            return _done(kept.tile)
        with self._lock:
            wait_us = self._down_until_us - self._now_us()
            if 0 < wait_us <= RETRY_S * 1_000_000:
                return _instead(kept, math.ceil(wait_us / 1e6))
            asked = self._asked.get(path)
            if asked is None:
                if self._is_down and self._asked:  # one asks whether GSI is back; nobody else waits for what comes of it
                    return _instead(kept, RETRY_S)
                if len(self._asked) >= MOST_WAITING:
                    return _instead(kept, 5)
                asked = self._asked[path] = self._threads.submit(self._fetch, path, f"/{style}/{z}/{x}/{y}.png", kept)
                asked.add_done_callback(partial(self._forget, path))
            return asked

    def close(self) -> None:
        """What is being fetched is left."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        self._client.close()

    def _forget(self, path: Path, _: "Future[Tile | None]") -> None:
        with self._lock:
            self._asked.pop(path, None)

    def _fetch(self, path: Path, what: str, kept: _Kept | None) -> Tile | None:
        with self._lock:
            wait_us = self._down_until_us - self._now_us()
        if 0 < wait_us <= RETRY_S * 1_000_000:  # it was found to be down while this one waited
            return _instead(kept, math.ceil(wait_us / 1e6)).result()
        known = {"If-None-Match": kept.said.get("etag"), "If-Modified-Since": kept.said.get("modified")} if kept else {}
        asking = {name: value for name, value in known.items() if value}
        try:
            with self._client.stream("GET", f"{self._source}{what}", headers=asking) as answer:
                status, headers, content = answer.status_code, answer.headers, b""
                if status == 200:
                    for part in answer.iter_raw():
                        content += part
                        if len(content) > LARGEST_BYTES:
                            raise httpx.DecodingError(f"more than {LARGEST_BYTES} bytes")
        except httpx.HTTPError as error:
            return self._unreached(kept, str(error) or type(error).__name__)
        if status == 304 and kept is not None:
            found = kept
        elif status == 404:
            found = _Kept({"etag": ""}, b"", 0)
        elif status == 200 and content.startswith(_PNG):
            etag = f'"{hashlib.sha256(content).hexdigest()[:32]}"'
            theirs = {"etag": headers.get("ETag"), "modified": headers.get("Last-Modified")}
            found = _Kept({**theirs, "etag": theirs["etag"] or etag}, content, 0)
        else:
            return self._unreached(kept, f"it answered {status}" if status != 200 else "what it sent is no PNG image")
        self._reached()
        self._write(path, found)
        return found.tile

    def _unreached(self, kept: _Kept | None, why: str) -> Tile | None:
        with self._lock:
            if not self._is_down:
                log.warning("tiles can't be had from %s: %s. Tiles that are kept are shown; trying again", self._source, why)
            self._is_down, self._down_until_us = True, self._now_us() + RETRY_S * 1_000_000
        return _instead(kept, RETRY_S).result()

    def _reached(self) -> None:
        with self._lock:
            if self._is_down:
                log.warning("tiles come from %s again", self._source)
            self._is_down, self._down_until_us = False, 0

    def _read(self, path: Path) -> _Kept | None:
        try:
            with path.open("rb") as file:
                said, content = json.loads(file.readline()), file.read()
                age_s = self._now_us() / 1e6 - os.fstat(file.fileno()).st_mtime
        except (FileNotFoundError, ValueError):  # none, or not as this version writes it: fetched anew
            return None
        return _Kept(said, content, age_s)

    def _write(self, path: Path, found: _Kept) -> None:
        """Keeps it, where there is room. A cache that can't be written costs nobody their map."""
        if self._disk.shortage() is not None:
            return
        now_s = self._now_us() / 1e6
        new = path.with_suffix(".new")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            new.write_bytes(json.dumps(found.said).encode() + b"\n" + found.content)
            os.utime(new, (now_s, now_s))
            before, size = _size(path), _size(new)
            new.replace(path)
        except OSError as error:
            log.warning("the map's folder %s can't be written: %s", self._folder, error)
            return
        with self._lock:
            if self._bytes is None:
                self._bytes = sum(_size(one) for one in self._folder.rglob("*.tile"))
            else:
                self._bytes += size - before
            if self._bytes > self._limit_bytes:
                self._bytes = self._thin_out()

    def _thin_out(self) -> int:
        """Lets the oldest go, down to nine tenths of what may be kept. Returns what is left, bytes."""
        by_age = sorted((one.stat().st_mtime, _size(one), one) for one in self._folder.rglob("*.tile"))
        left = sum(size for _, size, _ in by_age)
        for _, size, path in by_age:
            if left <= self._limit_bytes * 0.9:
                break
            path.unlink(missing_ok=True)
            left -= size
        return left


def _instead(kept: _Kept | None, wait_s: int) -> "Future[Tile | None]":
    """What is kept, however old; nothing is: that it can't be had."""
    if kept is not None:
        return _done(kept.tile)
    future: Future[Tile | None] = Future()
    future.set_exception(SourceDown(wait_s))
    return future


def _size(path: Path) -> int:
    """What a file takes of a disk: whole blocks. 0 where there is none."""
    try:
        return -(-path.stat().st_size // _BLOCK_BYTES) * _BLOCK_BYTES
    except FileNotFoundError:
        return 0


def _is_in_japan(z: int, x: int, y: int) -> bool:
    if not MIN_ZOOM <= z <= MAX_ZOOM:
        return False
    south, west, north, east = JAPAN
    (left, top), (right, bottom) = _tile_of(north, west, z), _tile_of(south, east, z)
    return left <= x <= right and top <= y <= bottom


def _tile_of(latitude: float, longitude: float, z: int) -> tuple[int, int]:
    """(x, y) of the tile in which a place lies: Web Mercator."""
    up = math.asinh(math.tan(math.radians(latitude)))
    return int((longitude + 180) / 360 * 2**z), int((1 - up / math.pi) / 2 * 2**z)
