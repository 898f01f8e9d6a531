"""One series server: who we are to it, how a point becomes a line, how lines are carried, and what its answers mean.

What the kinds have in common. A reading becomes `metric,device=...,node=... value=21.5 1700000000000`; influxdb-client
carries such lines to /api/v2/write. What a kind promises, and how it is read, is its own module's.
"""

import base64
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import urlencode

import orjson
import urllib3
from pydantic import StringConstraints
from urllib3.response import BaseHTTPResponse

from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.points import in_columns
from gateway.secret_files import read_secret_text
from gateway.store.series import Bucket, Key, Point, check_finite

READ_S = 10.0
"""How long a server may take to answer a question: who asks is a person before a chart, and no trap waits for it."""

LONGEST = 1000
"""Letters of a name. VictoriaMetrics would cut it at 16 KiB without a word."""

PAGE = 10_000
"""Points, or buckets, in one answer."""

Url = Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+/?$", max_length=200)]
"""http://host:port or https://host:port"""


class Login(NamedTuple):
    """Who we are to a server."""

    scheme: Literal["Token", "Basic"]
    secret: str
    """A token, or user:password; empty where the server lets everybody in."""
    refused: str
    """What to do where the server refuses it."""

    @property
    def headers(self) -> dict[str, str]:
        """As the server wants to see it."""
        if not self.secret:
            return {}
        said = self.secret if self.scheme == "Token" else base64.b64encode(self.secret.encode()).decode()
        return {"Authorization": f"{self.scheme} {said}"}


class Place(NamedTuple):
    """Where in a server the lines go."""

    org: str
    bucket: str
    lacking: str
    """What to do where the server says that there is none of that name."""


class Answer(NamedTuple):
    """A server's good answer."""

    body: bytes
    headers: Mapping[str, str]


class Server:
    """Makes lines for one thread, carries them and questions for any. Speaks to the server only when told to."""

    def __init__(self, kind: str, url: str, login: Login, place: Place) -> None:
        """`kind`: what the server is called in errors."""
        # Here, not above: it brings reactivex, and numpy where that is, which no other store, and no command, should wait for.
        from influxdb_client.client.influxdb_client import InfluxDBClient

        self.where, self._url, self._login, self._place = f"{kind} at {url}", url.rstrip("/"), login, place
        self.client = InfluxDBClient(
            url, token=login.secret, org=place.org, auth_basic=login.scheme == "Basic" and bool(login.secret)
        )
        # What carries the client's own requests. WriteApi above it hides the status, and a 200 is not "written"; the generated
        # service between them takes as long to put a small group's request together as it takes to send it.
        self._carrier = self.client.api_client.rest_client
        self._lines_to = f"{self._url}/api/v2/write?" + urlencode({"org": place.org, "bucket": place.bucket, "precision": "ms"})
        self._lines_headers = {"Content-Type": "text/plain; charset=utf-8", **login.headers}
        self._questions = urllib3.PoolManager(retries=False, maxsize=8)
        self._heads: dict[Key, str] = {}  # each after the line before it

    def write(self, points: Sequence[Point], wait_s: float) -> None:
        """One request; returns when the server said 204. StoreDown, StoreRefused; StoreRefused too for what is no line."""
        self.post(self.lines(points), wait_s)

    def lines(self, points: Sequence[Point]) -> bytes:
        """Points (1 or more) as the body of a request. StoreRefused for what is no line."""
        columns, heads = in_columns(points), self._heads
        check_finite(columns)
        keys = columns.keys
        try:
            begun = [heads[key] for key in keys]
        except KeyError:
            heads.update({key: "\n" + line_head(key) for key in set(keys) - heads.keys()})
            begun = [heads[key] for key in keys]
        # Always a float: InfluxDB fixes a field's type by its first value, and True would make it a boolean for good.
        pieces = [" "] * (4 * len(begun))
        pieces[::4], pieces[1::4], pieces[3::4] = begun, _texts(list(map(float, columns.values))), _texts(columns.times_ms)
        return "".join(pieces)[1:].encode()

    def try_to_write(self, wait_s: float) -> None:
        """Finds out whether it takes lines from us, with one that says nothing. StoreDown, StoreRefused."""
        try:
            self.post(b"# satomori asks whether it may write here", wait_s)
        except StoreRefused as error:
            if error.status != 400:  # it has read the line, so it had let us in
                raise

    def ask(self, method: Literal["GET", "POST"], path: str, fields: Mapping[str, str], wait_s: float = READ_S) -> Answer:
        """The server's answer to a question. StoreDown, StoreRefused."""
        with self.explained():
            answer = self._send(method, path, fields, wait_s, whole=True)
            return Answer(answer.data, answer.headers)

    def ask_lines(self, path: str, fields: Mapping[str, str]) -> Iterator[bytes]:
        """An answer line by line, as it comes: who has enough stops reading, and then no more is sent."""
        with self.explained():
            answer = self._send("GET", path, fields, READ_S, whole=False)
            try:
                yield from answer
            finally:
                answer.close()

    def close(self) -> None:
        """Lets go of all connections."""
        self.client.close()  # type: ignore[no-untyped-call]
        self._questions.clear()

    def down(self, what: str) -> StoreDown:
        """A StoreDown that names the server."""
        return StoreDown(f"{self.where} {what}")

    def refused(self, what: str, status: int | None = None) -> StoreRefused:
        """A StoreRefused that names the server."""
        return StoreRefused(f"{self.where} {what}", status)

    def post(self, body: bytes, wait_s: float) -> None:
        """Carries lines. Returns when the server said 204. StoreDown, StoreRefused."""
        with self.explained():
            wait_ms = wait_s * 1000
            answer = self._carrier.POST(  # type: ignore[no-untyped-call]
                self._lines_to, headers=self._lines_headers, body=body, _request_timeout=wait_ms
            )
        if answer.status != 204:
            # A login page or a proxy says 200 to anything; only 204 means written.
            raise self.down(f"answered {answer.status}, not 204: is something else answering at this url?")

    def _send(self, method: str, path: str, fields: Mapping[str, str], wait_s: float, *, whole: bool) -> BaseHTTPResponse:
        said, headers = urlencode(fields), self._login.headers
        if method == "POST":
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        answer = self._questions.request(
            method,
            self._url + path + (f"?{said}" if method == "GET" and said else ""),
            body=said.encode() if method == "POST" else None,
            headers=headers,
            timeout=wait_s,
            redirect=False,
            preload_content=whole,
        )
        if answer.status in (200, 204):
            return answer
        raise self._verdict(answer.status, _error_in(answer.data) or answer.reason, answer.headers.get("Retry-After"))

    def _verdict(self, status: int, said: object, retry_after: object = None) -> StoreDown | StoreRefused:
        """What a refused request means for who asked: later, or never."""
        what = f"({status}: {one_line(said)})"
        if status in (401, 403):
            kind = "token" if self._login.scheme == "Token" else "login"
            return self.refused(f"refuses the {kind} {what}. {self._login.refused}", status)
        if status == 404:
            return self.refused(f"{self._place.lacking.format(said=what)}", status)
        if status == 0 or status in (408, 425, 429) or status >= 500:
            again = f" It asks to wait {retry_after} s." if retry_after else ""
            return self.down(f"can't do this now ({status or 'TLS'}: {one_line(said)}).{again}")
        return self.refused(f"will not take this {what}.", status)

    @contextmanager
    def explained(self) -> Iterator[None]:
        """What the libraries raise, as StoreDown or StoreRefused. No answer at all, or half of one, is a StoreDown."""
        from influxdb_client.rest import ApiException

        try:
            yield
        except (StoreDown, StoreRefused):
            raise
        except ApiException as error:
            said = error.message if error.status else error.reason
            raise self._verdict(error.status or 0, said, error.retry_after) from error
        except (urllib3.exceptions.HTTPError, OSError, UnicodeDecodeError) as error:
            raise self.down(f"gives no answer: {one_line(error)}. Does it run, is the url right?") from error


def _texts(numbers: list[Any]) -> list[str]:
    """Each as the shortest text that reads back as the same value, like repr()'s; orjson makes all in a third of the time."""
    return orjson.dumps(numbers).decode()[1:-1].split(",")


def why_no_line(key: Key) -> str | None:
    """What is wrong with a series' names, for a line that says the same to every server; None where nothing is.

    A name that is empty, has a backslash or a control character, or is longer than some keep; a metric that begins as a comment
    or a reserved name. Source: InfluxDB v2 reference, line protocol, special characters.
    """
    for name in key:
        if not name or "\\" in name or not name.isprintable() or len(name) > LONGEST:
            return f"{name[:60]!r} is empty, longer than {LONGEST}, or has a backslash or control code"
    return f"a metric may not begin with {key[2][0]!r}" if key[2][0] in "#_" else None


def line_head(key: Key) -> str:
    """The part of a line before the value: `metric,device=...,node=... value=`, names escaped.

    Tags stand in order of their keys, as InfluxDB likes them. StoreRefused, see `why_no_line`.
    """
    if why := why_no_line(key):
        raise StoreRefused(f"series {str(tuple(key))[:300]} can't be a line: {why}")
    node, device, metric = key
    measurement = re.sub(r"([, ])", r"\\\1", metric)
    device, node = (re.sub(r"([, =])", r"\\\1", tag) for tag in (device, node))
    return f"{measurement},device={device},node={node} value="


def read_login(path: Path, setting: str, what: str) -> str:
    """The one word in a file. ConfigError naming the setting, and what should be there; the word itself is never shown."""
    secret = read_secret_text(path, setting).strip()
    if not re.fullmatch(r"[!-~]+", secret):  # what an HTTP header can carry
        raise ConfigError(f"{setting} {path} must hold {what} on one line and nothing else")
    return secret


def parsed(server: Server, body: bytes, *names: str | int) -> Any:
    """What stands under these names in an answer in JSON. StoreDown where nothing does: then something else answers."""
    try:
        found = json.loads(body)
        for name in names:
            found = found[name]
    except (ValueError, LookupError, TypeError) as error:
        what = "no JSON" if isinstance(error, ValueError) else "other JSON than it should"
        raise server.down(f"answered {what}: {one_line(body)}. Is something else answering at this url?") from error
    return found


def bucket_of(time_ms: int, points: float, low: float, mean: float, high: float, last: float) -> Bucket:
    """A bucket of a server's own sums. The mean is held between low and high, which rounding may leave by a hair."""
    return Bucket(time_ms, int(points), float(low), max(float(low), min(float(high), float(mean))), float(high), float(last))


def _error_in(body: bytes) -> str:
    """What a server says in the body of a refusal, without the JSON around it."""
    try:
        said = json.loads(body)
    except ValueError:
        return one_line(body) if body else ""
    return (
        str(next((said[name] for name in ("error", "message", "msg") if name in said), said))
        if isinstance(said, dict)
        else str(said)
    )


def one_line(said: object) -> str:
    """A server's or library's words, fit for one line of a log."""
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    return " ".join(str(said).split())[:200] or type(said).__name__
