"""Pictures on their way to the gateway over HTTP: asked how far it is, gone on from there, deleted only when it has all.

Speaks the gateway's `media/{sha256}`: HEAD tells the offset, PATCH appends, `Upload-Complete: ?1` says that it has every
byte with the right hash. Nothing is remembered here: shelf and gateway together know how far each picture is.
"""

import asyncio
import hashlib
import http.client
import logging
import random
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple, Protocol
from urllib.parse import urlsplit

from edge.apart import apart
from edge.clock import Clock
from edge.errors import ConfigError
from edge.media import Waiting
from edge.tls import client_context

log = logging.getLogger(__name__)

CHUNK_BYTES = 256 * 1024  # what a Pi Zero holds in memory of a picture, and a thin link may lose of one
TIMEOUT_S = 60.0
PAUSE_S = 5.0
WRONG_HASH_LIMIT = 3
_ANSWER_BYTES = 64 * 1024


class Shelf(Protocol):
    """What is needed of edge.media: what waits, and taking it down."""

    def waiting(self) -> list[Waiting]:
        """The files, the oldest first."""
        ...

    def done(self, sha256: str) -> None:
        """The gateway has all of it."""
        ...


class Answer(NamedTuple):
    """What the gateway said to one request."""

    status: int
    offset: int | None
    complete: bool
    text: str


class _Trouble(Exception):
    """One picture can't go now; the others may."""


class _Away(Exception):
    """No picture can go now."""


class Uploader:
    """`run` for ever. Opens nothing and starts nothing before that."""

    def __init__(
        self,
        shelf: Shelf,
        url: str,
        token: str,
        clock: Clock,
        rng: random.Random,
        *,
        ca_file: Path | None = None,
        clock_state: Callable[[], str] = lambda: "sync",
        backoff_cap_s: float = 300,
    ) -> None:
        """`url`: the gateway's, http:// or https://. ConfigError when it, or `ca_file`, can't be used."""
        self._shelf, self._clock, self._rng = shelf, clock, rng
        self._gateway = _Gateway(url, token, ca_file, clock_state)
        self._backoff_cap_s = backoff_cap_s
        self._down = False
        self._failures = 0
        self._wrong_hash: dict[str, int] = {}
        self._unreadable: set[str] = set()

    async def run(self) -> None:
        """Sends what waits, pauses, looks again; after trouble it waits longer each time, with full jitter."""
        try:
            while True:
                if await self.send_all():
                    self._failures = 0
                    await self._clock.sleep(PAUSE_S)
                else:
                    self._failures += 1
                    ceiling = min(self._backoff_cap_s, 2.0 ** min(self._failures, 20))
                    await self._clock.sleep(self._rng.uniform(0, ceiling))
        finally:
            self._gateway.close()

    async def send_all(self) -> bool:
        """Tries every picture that waits, once. Whether none is left that should have gone."""
        trouble: str | None = None
        try:
            waiting = self._shelf.waiting()
            for item in waiting:
                try:
                    await self._send(item)
                except _Trouble as error:
                    trouble = trouble or f"{item.path.name}: {error}"
        except _Away as error:
            trouble = str(error)
        except OSError as error:
            trouble = f"the media shelf can't be used: {error}"
        finally:
            self._gateway.close()  # the gateway would drop an idle connection, and that would look like an outage
        if trouble is not None:
            if not self._down:
                log.warning("pictures wait on this node: %s. Trying again, without another word until it works.", trouble)
            self._down = True
        elif self._down and waiting:
            log.warning("pictures go to %s again", self._gateway.url)
            self._down = False
        return trouble is None

    async def _send(self, item: Waiting) -> None:
        try:
            size = item.path.stat().st_size
        except FileNotFoundError:
            return
        answer = await apart(self._gateway.head, item.sha256)
        conflicts = 0
        while not answer.complete:
            if answer.status in {413, 415, 422}:
                await self._refused(item, answer)
                return
            if answer.status == 409:
                conflicts += 1
            if answer.status not in {204, 409} or answer.offset is None or conflicts > WRONG_HASH_LIMIT:
                raise _Trouble(f"the gateway answered {answer.status} {answer.text}".rstrip())
            try:
                chunk = await asyncio.to_thread(_read, item.path, answer.offset)
            except FileNotFoundError:
                return
            except OSError as error:
                if item.sha256 not in self._unreadable:
                    self._unreadable.add(item.sha256)
                    log.error("picture %s can't be read: %s. Is the disk failing?", item.path, error)
                return
            answer = await apart(self._gateway.patch, item, size, answer.offset, chunk)
        self._shelf.done(item.sha256)
        self._wrong_hash.pop(item.sha256, None)

    async def _refused(self, item: Waiting, answer: Answer) -> None:
        """Puts a picture that the gateway will never take out of the way, where a person can find it."""
        if answer.status == 422 and await asyncio.to_thread(_hash_of, item.path) == item.sha256:
            # Our bytes are right, so it was the gateway's part that was damaged; it starts anew, but not for ever.
            count = self._wrong_hash[item.sha256] = self._wrong_hash.get(item.sha256, 0) + 1
            if count < WRONG_HASH_LIMIT:
                raise _Trouble(f"it arrived damaged: {answer.text}")
        folder = item.path.parent / "refused"
        folder.mkdir(exist_ok=True)
        item.path.rename(folder / item.path.name)
        log.error(
            "picture %s was refused by the gateway for good: %d %s. It is kept in %s; look at it, then delete it.",
            item.path.name, answer.status, answer.text, folder,
        )  # fmt: skip


class _Gateway:
    """One gateway over http.client: blocking, one connection, kept between requests. _Away when it can't be had."""

    def __init__(self, url: str, token: str, ca_file: Path | None, clock_state: Callable[[], str]) -> None:
        try:
            parts = urlsplit(url)
            host, port = parts.hostname, parts.port
        except ValueError as error:
            raise ConfigError(f"media.url: {url!r} is no address: {error}") from error
        if parts.scheme not in {"http", "https"} or not host or parts.query or parts.fragment or parts.username:
            raise ConfigError(f"media.url: {url!r} is not of the form http://host:port or https://host:port")
        if not token or not token.isascii() or not token.isprintable() or " " in token:
            raise ConfigError("media.token_file: holds no token, or more than one word")
        self.url = url
        self._host, self._port = host, port
        self._path = parts.path.rstrip("/") + "/api/v1/media/"
        self._token = token
        self._connection: http.client.HTTPConnection | None = None
        self._ca_file, self._clock_state = ca_file, clock_state
        self._secure = parts.scheme == "https"
        if self._secure:
            client_context("media", ca_file)
        elif ca_file is not None:
            raise ConfigError("media.ca_file: is for TLS, but media.url begins with http:// and nothing would be encrypted")

    def head(self, sha256: str) -> Answer:
        """How far a picture is."""
        return self._ask("HEAD", sha256, {}, None)

    def patch(self, item: Waiting, size: int, offset: int, chunk: bytes) -> Answer:
        """Sends the next bytes of a picture."""
        headers = {"Upload-Offset": str(offset), "Upload-Length": str(size), "Content-Type": item.content_type}
        return self._ask("PATCH", item.sha256, headers, chunk)

    def close(self) -> None:
        """Lets go of the connection; the next request makes a new one."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _ask(self, method: str, sha256: str, headers: dict[str, str], body: bytes | None) -> Answer:
        try:
            connection = self._connection or self._new_connection()
        except ConfigError as error:  # the file may vanish while we run
            raise _Away(str(error)) from error
        self._connection = None  # kept only after a whole answer
        try:
            headers["Authorization"] = f"Bearer {self._token}"
            connection.request(method, self._path + sha256, body, headers)
            response = connection.getresponse()
            text = response.read(_ANSWER_BYTES)
            if response.read(1):
                raise http.client.HTTPException("an endless answer")
        except (OSError, http.client.HTTPException) as error:
            connection.close()
            raise _Away(f"{self.url} can't be reached: {str(error) or type(error).__name__}") from error
        self._connection = connection
        if response.status in {401, 403}:
            raise _Away(f"{self.url} refuses this node's token ({response.status}): check media.token_file")
        offset = response.getheader("Upload-Offset", "")
        return Answer(
            response.status,
            int(offset) if offset.isascii() and offset.isdigit() and len(offset) < 16 else None,
            response.status == 200 and response.getheader("Upload-Complete") == "?1",
            text.decode("utf-8", "replace")[:300],
        )

    def _new_connection(self) -> http.client.HTTPConnection:
        if self._secure:
            tls = client_context("media", self._ca_file, clock=self._clock_state())
            return http.client.HTTPSConnection(self._host, self._port, timeout=TIMEOUT_S, context=tls)
        return http.client.HTTPConnection(self._host, self._port, timeout=TIMEOUT_S)


def _read(path: Path, offset: int) -> bytes:
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(CHUNK_BYTES)


def _hash_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
