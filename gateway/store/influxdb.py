"""Time series in InfluxDB, over its v2 write API: lines are made here, influxdb-client carries them.

A reading becomes `metric,device=...,node=... value=21.5 1700000000000`. InfluxDB answers 204 once the points are in its
write-ahead log on disk, and overwrites a point written again. A server that only speaks the same API may promise less:
VictoriaMetrics answers 204 while points are still in memory and loses them when killed, so it is no place for `type =
"influxdb"` (tests use it as a second opinion on the lines).

This store only writes. Reading comes with a later release; until then its class has no read methods.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import urllib3
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.secret_files import read_secret_text
from gateway.store.series import Key, Point, check_finite

if TYPE_CHECKING:
    from influxdb_client.rest import ApiException

_Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]


class InfluxdbStoreConfig(BaseModel):
    """`type = "influxdb"`. Written only: pages that draw series need `type = "sqlite"` in this release."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["influxdb"]
    url: Annotated[str, StringConstraints(pattern=r"^https?://[^\s/?#@]+/?$", max_length=200)] = Field(
        description="The server: http://host:port or https://host:port."
    )
    org: _Text = Field(description="The organisation that the bucket belongs to.")
    bucket: _Text = Field(description="The bucket that is written.")
    token_file: Annotated[Path, Field(description="File with an API token that may write the bucket.")]
    timeout_s: Annotated[float, Field(ge=0.1, le=5, description="How long one write may wait for the server.")] = 2


class InfluxdbStore:
    """Writes each call as one request. Speaks to the server at the first write, so that a start never waits for it."""

    def __init__(self, config: InfluxdbStoreConfig) -> None:
        """ConfigError when the token can't be used."""
        # Here, not above: it brings numpy and reactivex, which no other store, and no command, should wait for.
        from influxdb_client.client.influxdb_client import InfluxDBClient
        from influxdb_client.service.write_service import WriteService

        self._config = config
        self._client = InfluxDBClient(config.url, token=_read_token(config.token_file), org=config.org)
        # The generated service below WriteApi: WriteApi hides the status, and a 200 is not InfluxDB's "written".
        self._service = WriteService(self._client.api_client)  # type: ignore[no-untyped-call]  # generated code
        self._heads: dict[Key, str] = {}

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:
        """See `SeriesWriter`."""
        if not points:
            return
        check_finite(points)
        heads = self._heads
        for key in {point[0] for point in points} - heads.keys():
            heads[key] = line_head(key)
        # Always a float: InfluxDB fixes a field's type by its first value, and True would make it a boolean for good.
        # repr() is the shortest text that reads back as the same value.
        lines = [f"{heads[key]}{float(value)!r} {time_ms:d}" for key, time_ms, value in points]
        self._post("\n".join(lines).encode(), self._config.timeout_s if patience_s is None else patience_s)

    def close(self) -> None:
        """See `SeriesWriter`."""
        self._client.close()  # type: ignore[no-untyped-call]

    def _post(self, body: bytes, timeout_s: float) -> None:
        from influxdb_client.rest import ApiException

        where = f"InfluxDB at {self._config.url}"
        try:
            answer: tuple[Any, int, Any] = self._service.post_write_with_http_info(  # type: ignore[no-untyped-call]
                self._config.org,
                self._config.bucket,
                body,
                precision="ms",
                content_type="text/plain; charset=utf-8",
                _request_timeout=timeout_s * 1000,
            )
        except ApiException as error:
            raise _verdict(where, self._config, error) from error
        except (urllib3.exceptions.HTTPError, OSError, UnicodeDecodeError) as error:
            raise StoreDown(f"{where} gives no answer: {_one_line(error)}. Does it run, is the url right?") from error
        if answer[1] != 204:
            # A login page or a proxy says 200 to anything; only 204 means written.
            raise StoreDown(f"{where} answered {answer[1]}, not 204: is something else answering at this url?")


def line_head(key: Key) -> str:
    """The part of a line before the value: `metric,device=...,node=... value=`, names escaped.

    Tags stand in order of their keys, as InfluxDB likes them. StoreRefused for a name that no line carries the same way
    to every server (empty, a backslash, a control character), or a metric that begins as a comment or reserved name.
    Source: InfluxDB v2 reference, line protocol, special characters.
    """
    node, device, metric = key
    for name in (node, device, metric):
        if not name or "\\" in name or not name.isprintable():
            raise StoreRefused(f"series {key!r} can't be a line: {name!r} is empty or has a backslash or control code")
    if metric[0] in "#_":
        raise StoreRefused(f"series {key!r} can't be a line: a metric may not begin with {metric[0]!r}")
    measurement = re.sub(r"([, ])", r"\\\1", metric)
    device, node = (re.sub(r"([, =])", r"\\\1", tag) for tag in (device, node))
    return f"{measurement},device={device},node={node} value="


def _read_token(path: Path) -> str:
    token = read_secret_text(path, "store.token_file").strip()
    if not re.fullmatch(r"[!-~]+", token):  # what an HTTP header can carry; the text itself is never shown
        raise ConfigError(f"store.token_file {path} must hold one token on one line and nothing else")
    return token


def _verdict(where: str, config: InfluxdbStoreConfig, error: "ApiException") -> StoreDown | StoreRefused:
    """What a refused request means for the caller: later, or never."""
    status, said = error.status, _one_line(error.message if error.status else error.reason)
    if status in (401, 403):
        return StoreRefused(
            f"{where} refuses the token ({status}: {said}). Put one that may write bucket {config.bucket!r} "
            f"into {config.token_file} and restart."
        )
    if status == 404:
        return StoreRefused(
            f"{where} knows no bucket {config.bucket!r} in organization {config.org!r} (404: {said}). "
            "Make it there, or correct store.bucket, store.org or store.url."
        )
    if status == 0 or status in (408, 425, 429) or status >= 500:
        again = f" It asks to wait {error.retry_after} s." if error.retry_after else ""
        return StoreDown(f"{where} can't write now ({status or 'TLS'}: {said}).{again}")
    return StoreRefused(f"{where} will not take this ({status}: {said}).")


def _one_line(said: object) -> str:
    """A server's or library's words, fit for one line of a log."""
    if isinstance(said, bytes):
        said = said.decode(errors="replace")
    return " ".join(str(said).split())[:200] or type(said).__name__
