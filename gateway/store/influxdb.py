"""Time series in InfluxDB: written over its v2 write API, read in InfluxQL, which 1.8, 2 and 3 understand.

InfluxDB answers 204 once the points are in its write-ahead log on disk, and overwrites a point written again. A server that only
speaks the same API may promise less: VictoriaMetrics has a kind of its own.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from gateway.store.series import Bucket, Point, SeriesKey
from gateway.store.server import PAGE, Login, Place, Server, Url, bucket_of, parsed, read_login, why_no_line

Text = Annotated[str, StringConstraints(min_length=1, max_length=200)]

_MOST_MS = (2**63 - 2) // 1_000_000
"""InfluxDB counts in ns, in 63 bits: what is further from 1970 it does not hold."""


class InfluxdbStoreConfig(BaseModel):
    """`type = "influxdb"`. Written and read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["influxdb"]
    url: Url = Field(description="The server: http://host:port or https://host:port.")
    org: Text = Field(description="The organisation that the bucket belongs to.")
    bucket: Text = Field(description="The bucket that is written.")
    database: Text | None = Field(None, description="What InfluxQL calls the bucket (its DBRP mapping); absent: as `bucket`.")
    retention_policy: Text | None = Field(None, description="The mapping's retention policy; absent: the database's default.")
    token_file: Annotated[Path, Field(description="File with an API token that may write and read the bucket.")]
    timeout_s: Annotated[float, Field(ge=0.1, le=5, description="How long one write may wait for the server.")] = 2

    @property
    def queried(self) -> str:
        """The database that is read."""
        return self.database or self.bucket


class InfluxdbStore:
    """Writes each call as one request. Speaks to the server at the first write, so that a start never waits for it."""

    def __init__(self, config: InfluxdbStoreConfig) -> None:
        """ConfigError when the token can't be used."""
        self._config = config
        token = read_login(config.token_file, "store.token_file", "one token")
        login = Login(
            "Token", token, f"Put one that may write and read bucket {config.bucket!r} into {config.token_file} and restart."
        )
        self._server = Server("InfluxDB", config.url, login, Place(config.org, config.bucket,
            f"knows no bucket {config.bucket!r} in organization {config.org!r} {{said}}. Make it with `satomori-gateway store "
            "init`, or correct store.bucket, store.org or store.url."))  # fmt: skip

    def check(self) -> None:
        """Whether it takes and gives points to us now. StoreDown, StoreRefused."""
        self._server.try_to_write(self._config.timeout_s)
        self.latest("satomori", "gateway", "heartbeat")

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:
        """See `SeriesWriter`."""
        if points:
            self._server.write(points, self._config.timeout_s if patience_s is None else patience_s)

    def close(self) -> None:
        """See `SeriesWriter`."""
        self._server.close()

    def read(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, limit: int) -> list[tuple[int, float]]:
        """See `SeriesReader`. Page by page."""
        if limit < 0:
            raise ValueError(f"limit is {limit}, must be 0 or more")
        found: list[tuple[int, float]] = []
        while len(found) < limit:
            page = min(PAGE, limit - len(found))
            rows = self._rows('"value"', (node, device, metric), start_ms, end_ms, f"ORDER BY time LIMIT {page}")
            found += [(time_ms, float(value)) for time_ms, value in rows]
            if len(rows) < page:
                break
            start_ms = found[-1][0] + 1
        return found

    def read_bucketed(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, bucket_ms: int) -> list[Bucket]:
        """See `SeriesReader`. Page by page."""
        if bucket_ms < 1:
            raise ValueError(f"bucket_ms is {bucket_ms}, must be 1 or more")
        start_ms, end_ms = _held(start_ms), _held(end_ms)
        step_ms = min(bucket_ms, max(1, end_ms - start_ms))  # a longer one would be the same, but may be no number to InfluxDB
        wanted = ", ".join(f'{what}("value")' for what in ("count", "min", "mean", "max", "last"))
        steps = f"GROUP BY time({step_ms}ms, {start_ms % step_ms}ms) fill(none) LIMIT {PAGE}"
        found: list[Bucket] = []
        while rows := self._rows(wanted, (node, device, metric), start_ms, end_ms, steps):
            found += [bucket_of(*row) for row in rows]
            start_ms = found[-1].time_ms + step_ms
            if len(rows) < PAGE:
                break
        return found

    def latest(self, node: str, device: str, metric: str) -> tuple[int, float] | None:
        """See `SeriesReader`."""
        rows = self._rows('last("value")', (node, device, metric), -_MOST_MS, _MOST_MS)
        return (rows[0][0], float(rows[0][1])) if rows else None

    def series(self) -> list[SeriesKey]:
        """See `SeriesReader`. One point of each is read: that names them without InfluxDB's escapes."""
        found = self._ask('SELECT "value" FROM /.*/ WHERE "node" != \'\' GROUP BY "node", "device" LIMIT 1')
        return sorted(SeriesKey(one["tags"]["node"], one["tags"]["device"], one["name"]) for one in found)

    def count(self) -> int:
        """See `SeriesReader`."""
        return sum(int(one["values"][0][1]) for one in self._ask('SELECT count("value") FROM /.*/ WHERE "node" != \'\''))

    def _rows(self, what: str, key: tuple[str, str, str], start_ms: int, end_ms: int, how: str = "") -> list[list[Any]]:
        """The rows of one series with start <= time < end."""
        if why_no_line(key):
            return []  # it was never written, and InfluxQL has no words for some of them
        node, device, metric = key
        found = self._ask(
            f'SELECT {what} FROM {quoted(metric)} WHERE "node" = {_text(node)} AND "device" = {_text(device)}'  # noqa: S608
            f" AND time >= {_held(start_ms)}ms AND time < {_held(end_ms)}ms {how}"
        )
        rows: list[list[Any]] = found[0]["values"] if found else []
        return rows

    def _ask(self, question: str) -> list[dict[str, Any]]:
        """InfluxQL's answer to one statement: a list of {name, tags, columns, values}."""
        return answered(self._server, question, self._config.queried, self._config.retention_policy)


def answered(server: Server, question: str, database: str = "", policy: str | None = None) -> list[dict[str, Any]]:
    """InfluxQL's answer to one statement: a list of {name, tags, columns, values}, times in ms. StoreDown, StoreRefused."""
    fields = {"q": question, "epoch": "ms"} | ({"db": database} if database else {}) | ({"rp": policy} if policy else {})
    result: dict[str, Any] = parsed(server, server.ask("POST", "/query", fields).body, "results", 0)
    if error := result.get("error"):
        if "not found" in error:
            how = "Run `satomori-gateway store init`, or correct store.database or store.retention_policy."
            raise server.refused(f"can't be read: {error}. {how}")
        raise server.down(f"can't be read: {error}.")
    found: list[dict[str, Any]] = result.get("series", [])
    if any(one.get("partial") for one in found):
        raise server.refused(f"gives a part of an answer only: let its max-row-limit be 0, or {PAGE} at least.")
    return found


def _held(time_ms: int) -> int:
    return max(-_MOST_MS, min(_MOST_MS, time_ms))


def quoted(name: str) -> str:
    """A name of InfluxQL, a measurement or a database, in its quotes."""
    return '"' + _escaped(name).replace('"', '\\"') + '"'


def _text(text: str) -> str:
    """A tag's value, quoted for InfluxQL."""
    return "'" + _escaped(text).replace("'", "\\'") + "'"


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")
