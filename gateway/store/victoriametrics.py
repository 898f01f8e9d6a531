"""Time series in VictoriaMetrics: written as InfluxDB's lines, kept in a journal until they are durable there, read in MetricsQL.

VictoriaMetrics answers 204 while points are in memory, and forgets them where it is killed within the next seconds. So what it
took goes into a journal of ours before it counts as written. `settle` empties that: by a snapshot VictoriaMetrics writes what it
took to its disk, and waits until that is done. What it moves to disk by itself at that moment is in no snapshot, and on disk
seconds later: only what it took that long before a snapshot is safe by it. A server that began anew may have forgotten what it
took before, and is given it again: to write a point twice changes nothing. When the server began is known of each segment of the
journal, and looked at before and after the snapshot.

It says nothing where it drops points that lie too far away, and takes the time 0 for "now": such are refused here. Two values of
one series and ms are one point to it only when it is told so by -dedup.minScrapeInterval=1ms. Source: docs.victoriametrics.com
(How to work with snapshots, Deduplication, MetricsQL), and tests against it.
"""

import json
import logging
import re
from collections.abc import Callable, Sequence
from email.utils import parsedate_to_datetime
from pathlib import Path
from threading import Lock
from time import monotonic
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import BaseModel, ConfigDict, Field

from gateway.errors import ConfigError, StoreDown, StoreRefused
from gateway.points import Points, in_columns
from gateway.store.journal import MIB, Journal, Segment
from gateway.store.series import Bucket, Key, Point, SeriesKey
from gateway.store.server import PAGE, Login, Place, Server, Url, bucket_of, one_line, parsed, read_login, why_no_line

log = logging.getLogger(__name__)

_DAY_MS = 86_400_000
_AHEAD_MS = _DAY_MS
"""It takes what is up to two days ahead of its own clock; half of that leaves room for its seconds and ours."""
_OLDEST_MS = 49 * 365 * _DAY_MS
_FIRST_MS, _NEVER_MS = 2 * 365 * _DAY_MS, 4_102_444_800_000
"""1972 and 2100. A window of its that reaches back before 1970 finds nothing at all, so we keep away from there."""

SETTLE_S = 3.0
"""How often `settle` is to be called."""
_REST_S, _MUCH = 15.0, 16 * MIB
"""It makes a snapshot no more often than this, unless so much waits: each costs what many thousand points do."""
_MOVES_S = 5.0
"""For so long what it took may be neither in its memory nor in its files, nor in a snapshot."""
_AGAIN = 64 * MIB
"""So much is given to it again in one go."""
_TRUST_S = 60.0
"""For so long what it said of itself is taken to be so still."""
_SHOWS_S = 1.0
"""Within this time it shows what it took without being asked to."""

_MUST = {
    "dedup.minScrapeInterval": "1ms",  # points of the same ms are one point
    "snapshotsMaxAge": "1d",  # of a gateway that died between making one and removing it
}
_UNITS_MS = {"h": _DAY_MS // 24, "d": _DAY_MS, "w": 7 * _DAY_MS, "y": 365 * _DAY_MS, "": 31 * _DAY_MS}
_ENDING = "_value"
"""What it makes of measurement `m` and field `value` is a metric `m_value`."""
_OURS = f'{{__name__=~".+{_ENDING}",node!="",device!=""}}'


class VictoriaMetricsStoreConfig(BaseModel):
    """`type = "victoriametrics"`. Written and read."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    type: Literal["victoriametrics"]
    url: Url = Field(description="The server: http://host:port or https://host:port.")
    login_file: Path | None = Field(
        None, description="File with `user:password`, where the server asks for it; absent: it does not."
    )
    timeout_s: Annotated[float, Field(ge=0.1, le=5, description="How long it may take for each step of a write.")] = 5
    journal: Path = Field(description="Folder on this machine for what VictoriaMetrics took and may still forget.")
    journal_mib: Annotated[int, Field(ge=64, le=65_536)] = Field(
        256, description="The largest it may become by one process; then its readings wait at the edge."
    )


class _Look(NamedTuple):
    """What the server says of itself."""

    now_ms: int
    began_ms: int
    """In whole seconds."""
    at_s: float
    """Of our own clock."""

    @property
    def mark(self) -> int | None:
        """By which it is known again. None: a server that began within this very second could begin anew, and say the same."""
        return self.began_ms if self.now_ms > self.began_ms else None


class VictoriaMetricsStore:
    """Writes each call as one request. Speaks to the server at the first write, so that a start never waits for it.

    `settle` is called every SETTLE_S, by any one thread, in each process that writes.
    """

    def __init__(self, config: VictoriaMetricsStoreConfig, clock_s: Callable[[], float] = monotonic) -> None:
        """ConfigError when the login or the journal's folder can't be used."""
        self._config, self._clock_s = config, clock_s
        secret = ""
        if config.login_file is not None:
            secret = read_login(config.login_file, "store.login_file", "user:password")
            if ":" not in secret:
                raise ConfigError(f"store.login_file {config.login_file} must hold user:password on one line and nothing else")
        login = Login(
            "Basic", secret, f"Put user:password into {config.login_file or 'a file, name it as store.login_file,'} and restart."
        )
        place = Place(
            "satomori", "satomori", "knows no such path {said}: it is not VictoriaMetrics' single server, or store.url is wrong."
        )
        self._server = Server("VictoriaMetrics", config.url, login, place)
        self._known = (0, 0)  # when the server began whose flags we know, in s, and how long it keeps points, in ms
        self._looked: _Look | None = None
        self._journal = Journal(config.journal, "store.journal", config.journal_mib)
        self.disk = self._journal.disk
        """The room it leaves to others."""
        self._settling, self._settles_s = Lock(), clock_s()
        self._showing, self._written, self._shown = Lock(), 0, (-1, 0.0)  # how often was written until it showed all, and when

    def check(self) -> None:
        """Whether it takes and gives points to us now, and makes them durable. StoreDown, StoreRefused."""
        self._look(self._config.timeout_s)
        self._server.try_to_write(self._config.timeout_s)
        self._forget(self._snapshot())
        self.latest("satomori", "gateway", "heartbeat")

    def write(self, points: Sequence[Point], *, patience_s: float | None = None) -> None:
        """See `SeriesWriter`. Another value for the same series and time takes the old one's place until they are merged: then
        either may stay.

        `patience_s` is for each of its answers.
        """
        if not points:
            return
        wait_s = self._config.timeout_s if patience_s is None else patience_s
        look = self._looked
        if look is None or self._clock_s() - look.at_s > _TRUST_S:
            look = self._look(wait_s)
        columns = in_columns(points)
        self._refuse_far(columns, look.now_ms)
        body = self._server.lines(columns if columns.are_distinct else _newest_of_each(columns))
        self._journal.check_room(len(body))
        try:
            self._server.post(body, wait_s)
        except StoreDown:
            self._looked = None  # it may come back as another
            raise
        self._written += 1
        # By the look before: where it began anew since then, that shows as another mark than it has at the next look.
        self._journal.append(body, look.mark)

    def settle(self) -> None:
        """Makes durable there what stands in the journal, that of processes that died too, and drops it here.

        Little at once, so that it may be called often. StoreDown, StoreRefused: nothing is lost, and the next call goes on.
        """
        with self._settling:
            if self._journal.size < _MUCH and self._clock_s() < self._settles_s:
                return
            pending = self._journal.seal()
            if not pending:
                return
            before = self._look(min(1, self._config.timeout_s))  # others wait for this thread
            if before.mark is None:
                return
            self._give_again([one for one in pending if one.mark != before.mark], before.mark)
            now_s = self._clock_s()
            theirs = [one for one in pending if one.mark == before.mark]
            for segment in theirs:
                segment.since_s = now_s if segment.since_s is None else segment.since_s
            ripe = [one for one in theirs if one.since_s is not None and now_s - one.since_s >= _MOVES_S]
            if not ripe:
                return
            snapshot = self._snapshot()
            after = self._look(self._config.timeout_s)
            self._forget(snapshot)
            if after.began_ms != before.began_ms:
                return
            self._settles_s = now_s + _REST_S
            stays: list[OSError] = []
            for segment in ripe:  # one that can't be dropped keeps no other
                try:
                    self._journal.drop(segment)
                except OSError as error:
                    stays.append(error)
            if stays:
                raise stays[0]

    def close(self) -> None:
        """See `SeriesWriter`. What the journal holds is taken up by who opens it next."""
        self._server.close()
        self._journal.close()

    def read(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, limit: int) -> list[tuple[int, float]]:
        """See `SeriesReader`. What is beyond `limit` is not fetched."""
        if limit < 0:
            raise ValueError(f"limit is {limit}, must be 0 or more")
        start_ms, end_ms = _held(start_ms), _held(end_ms)
        found: list[tuple[int, float]] = []
        if not limit or start_ms >= end_ms or why_no_line((node, device, metric)):
            return found
        self._show()
        fields = {"match[]": _select((node, device, metric)), "start": _text(start_ms), "end": _text(end_ms - 1)}
        for line in self._server.ask_lines("/api/v1/export", {**fields, "max_rows_per_line": str(min(limit, PAGE))}):
            row = parsed(self._server, line)
            found += zip(row["timestamps"], map(float, row["values"]), strict=True)
            if len(found) >= limit:
                break
        return found[:limit]

    def read_bucketed(self, node: str, device: str, metric: str, start_ms: int, end_ms: int, bucket_ms: int) -> list[Bucket]:
        """See `SeriesReader`. Page by page."""
        if bucket_ms < 1:
            raise ValueError(f"bucket_ms is {bucket_ms}, must be 1 or more")
        select, end_ms = _select((node, device, metric)), _held(end_ms)
        first_ms, last_ms = _held(start_ms), end_ms - 1
        if first_ms > last_ms or why_no_line((node, device, metric)):
            return []
        self._show()
        if (last_ms - first_ms) // bucket_ms > PAGE:  # from "ever" to "for ever" are many steps, nearly all of them empty
            said = self._sums(("tfirst_over_time", "tlast_over_time"), select, first_ms, end_ms)
            if not said:
                return []
            first_ms, last_ms = (round(said[name] * 1000) for name in ("tfirst_over_time", "tlast_over_time"))
        step_ms, last_step_ms = (start_ms + (at_ms - start_ms) // bucket_ms * bucket_ms for at_ms in (first_ms, last_ms))
        found: list[Bucket] = []
        while step_ms <= last_step_ms:
            whole = min(PAGE, (min(last_step_ms + bucket_ms, end_ms) - step_ms) // bucket_ms)
            if step_ms < _FIRST_MS or not whole:  # only a part of it is asked for
                said = self._sums(_SUMS, select, max(_FIRST_MS, step_ms), min(step_ms + bucket_ms, end_ms))
                found += [bucket_of(step_ms, *(said[name] for name in _SUMS))] if said else []
                whole = 1
            else:
                found += self._whole(select, step_ms, whole, bucket_ms)
            step_ms += whole * bucket_ms
        return found

    def latest(self, node: str, device: str, metric: str) -> tuple[int, float] | None:
        """See `SeriesReader`. Looks back further and further, as it has no index by time for one series."""
        if why_no_line((node, device, metric)):
            return None
        self._show()
        end_ms = self._look(self._config.timeout_s).now_ms + 2 * _DAY_MS
        for days in (4, 40, 400):
            if said := self._newest(_select((node, device, metric)), end_ms - days * _DAY_MS, end_ms):
                return said
        return self._newest(_select((node, device, metric)), end_ms - _OLDEST_MS, end_ms)

    def series(self) -> list[SeriesKey]:
        """See `SeriesReader`. The server's -search.maxSeries bounds it, and its refusal says so."""
        self._show()
        end_ms = self._look(self._config.timeout_s).now_ms + 2 * _DAY_MS
        fields = {"match[]": _OURS, "start": _text(_FIRST_MS), "end": _text(end_ms)}
        found = parsed(self._server, self._server.ask("GET", "/api/v1/series", fields).body, "data")
        return sorted(SeriesKey(one["node"], one["device"], one["__name__"].removesuffix(_ENDING)) for one in found)

    def count(self) -> int:
        """See `SeriesReader`."""
        self._show()
        end_ms = self._look(self._config.timeout_s).now_ms + 2 * _DAY_MS
        found = self._query(f"sum(count_over_time({_OURS}[{_OLDEST_MS}ms]))", end_ms - 1, end_ms - 1, 1)
        return int(found[0]["values"][0][1]) if found else 0

    def _give_again(self, segments: Sequence[Segment], mark: int) -> None:
        """Writes what they hold once more, and marks them. A body that it refuses for what it is is put aside, for people."""
        said = 0
        began_anew = any(one.mark is not None for one in segments)  # else they are what ended processes left, as each does
        for segment in segments:
            if said >= _AGAIN:
                break
            for body in segment.bodies():
                try:
                    self._server.post(body, self._config.timeout_s)
                except StoreRefused as error:
                    if error.status in (401, 403, 404):  # that is not the body's fault
                        raise
                    log.error(
                        "%s It had taken it once, and may have forgotten it since: it lies in %s, as lines for its "
                        "/api/v2/write?precision=ms, and nothing here looks at it again.", error, self._journal.set_aside(body),
                    )  # fmt: skip
                said += len(body)
            segment.mark, segment.since_s = mark, None
        if said and began_anew:
            log.warning("%s may have forgotten %.1f MiB that it had taken; it has them again", self._server.where, said / MIB)

    def _show(self) -> None:
        """Has it show what it took: what was written here before, at once; what others wrote, after a second at most."""
        with self._showing:
            written, (shown, at_s) = self._written, self._shown
            if written == shown and self._clock_s() - at_s < _SHOWS_S:
                return
            self._server.ask("GET", "/internal/force_flush", {})
            self._shown = (written, self._clock_s())

    def _newest(self, select: str, start_ms: int, end_ms: int) -> tuple[int, float] | None:
        said = self._sums(("tlast_over_time", "last_over_time"), select, start_ms, end_ms)
        return (round(said["tlast_over_time"] * 1000), said["last_over_time"]) if said else None

    def _sums(self, names: tuple[str, ...], select: str, start_ms: int, end_ms: int) -> dict[str, float]:
        """What these functions say of start <= time < end; empty where there is no point."""
        found = self._query(_aggregate(names, select, end_ms - start_ms), end_ms - 1, end_ms - 1, 1)
        return {one["metric"]["rollup"]: float(one["values"][0][1]) for one in found}

    def _whole(self, select: str, start_ms: int, steps: int, bucket_ms: int) -> list[Bucket]:
        """The buckets of so many whole steps."""
        # Its windows end with the time they are named by, and hold it; ours begin with it.
        last_ms = start_ms + bucket_ms - 1
        found = self._query(_aggregate(_SUMS, select, bucket_ms), last_ms, last_ms + (steps - 1) * bucket_ms, bucket_ms)
        if not found:
            return []
        by_name = {one["metric"]["rollup"]: one["values"] for one in found}
        times = (round(at_s * 1000) - bucket_ms + 1 for at_s, _ in by_name[_SUMS[0]])
        sums = zip(*([float(said) for _, said in by_name[name]] for name in _SUMS), strict=True)
        return [bucket_of(time_ms, *row) for time_ms, row in zip(times, sums, strict=True)]

    def _query(self, question: str, start_ms: int, end_ms: int, step_ms: int) -> list[dict[str, Any]]:
        """MetricsQL's answer at each step from start to end: a list of {metric, values}."""
        fields = {"query": question, "start": _text(start_ms), "end": _text(end_ms), "step": f"{step_ms}ms"}
        # Without nocache it moves the times to multiples of the step.
        body = self._server.ask("POST", "/api/v1/query_range", {**fields, "nocache": "1"}).body
        found: list[dict[str, Any]] = parsed(self._server, body, "data", "result")
        return found

    def _look(self, wait_s: float) -> _Look:
        """The server's clock, and when it began; of one that began anew its flags are looked at first."""
        try:
            look = self._looked = self._asked(wait_s)
        except (StoreDown, StoreRefused):
            self._looked = None
            raise
        return look

    def _asked(self, wait_s: float) -> _Look:
        at_s = self._clock_s()
        answer = self._server.ask("GET", "/metrics", {}, wait_s)
        began = re.search(rb"^vm_app_start_timestamp (\d+)", answer.body, re.MULTILINE)
        if began is None or "Date" not in answer.headers:
            raise self._server.refused(
                "tells nothing of itself at /metrics: is it VictoriaMetrics' single server, as it has to be?"
            )
        now_s, began_s = int(parsedate_to_datetime(answer.headers["Date"]).timestamp()), int(began[1])
        if began_s != self._known[0]:
            self._known = (began_s, self._kept_ms(wait_s))
            self._settles_s = at_s  # at once: nobody should miss for long what it has forgotten
        return _Look(now_s * 1000, began_s * 1000, at_s)

    def _kept_ms(self, wait_s: float) -> int:
        """How long it keeps points. StoreRefused where it was started as it must not be."""
        told = self._server.ask("GET", "/flags", {}, wait_s).body.decode(errors="replace")
        flags = dict(re.findall(r'^-([\w.]+)="(.*)"$', told, re.MULTILINE))
        for name, value in _MUST.items():
            if flags.get(name) != value:
                raise self._server.refused(
                    f"was not started with -{name}={value}, without which it is no store for us: start it so."
                )
        kept = re.fullmatch(r"([\d.]+)([hdwy]?)", flags.get("retentionPeriod", "1"))
        if kept is None:
            raise self._server.refused(
                f"has a -retentionPeriod that is no time: {flags['retentionPeriod'][:40]!r}. Start it with 10y."
            )
        return min(_OLDEST_MS, int(float(kept[1]) * _UNITS_MS[kept[2]]))

    def _refuse_far(self, points: Points, now_ms: int) -> None:
        """StoreRefused, naming the point, for what it would drop without a word."""
        # An hour is left to both clocks: it drops what has grown too old by the time it comes to it.
        oldest_ms, newest_ms = now_ms - self._known[1] + _DAY_MS // 24, now_ms + _AHEAD_MS
        if oldest_ms <= min(points.times_ms) and max(points.times_ms) <= newest_ms:
            return
        for key, time_ms, _ in points:
            if not oldest_ms <= time_ms <= newest_ms:
                raise self._server.refused(
                    f"would drop {'/'.join(key)} at {time_ms} ms: it keeps {oldest_ms} to {newest_ms} (its -retentionPeriod, "
                    "and a day ahead of its clock)."
                )

    def _snapshot(self) -> str:
        """Has it write what it took to its disk; returns when that is done, with the name of the snapshot."""
        try:
            body = self._server.ask("GET", "/snapshot/create", {}, self._config.timeout_s).body
        except StoreDown as error:
            raise StoreDown(
                f"{error} It was to make the snapshot by which points become durable: where that takes longer than "
                f"store.timeout_s ({self._config.timeout_s:g} s), raise that, or have it keep fewer months."
            ) from error
        if parsed(self._server, body, "status") != "ok":
            raise self._server.down(f"made no snapshot, by which points become durable: {one_line(body)}.")
        return str(parsed(self._server, body, "snapshot"))

    def _forget(self, snapshot: str) -> None:
        """Removes a snapshot. Its points are durable; where it stays, the server removes it itself after a day."""
        try:
            self._server.ask("GET", "/snapshot/delete", {"snapshot": snapshot}, self._config.timeout_s)
        except (StoreDown, StoreRefused) as error:
            log.warning("snapshot %s stays until VictoriaMetrics removes it itself: %s", snapshot, error)


_SUMS = ("count_over_time", "min_over_time", "avg_over_time", "max_over_time", "last_over_time")
"""In the order of a Bucket's fields."""


def _newest_of_each(points: Points) -> Sequence[Point]:
    """Of several of one series and ms the last: in one block of its own, VictoriaMetrics would keep any."""
    newest = {(key, time_ms): value for key, time_ms, value in points}
    return points if len(newest) == len(points) else [(key, time_ms, value) for (key, time_ms), value in newest.items()]


def _select(key: Key) -> str:
    node, device, metric = (json.dumps(name, ensure_ascii=False) for name in (key[0], key[1], key[2] + _ENDING))
    return f"{{__name__={metric},node={node},device={device}}}"


def _aggregate(names: tuple[str, ...], select: str, window_ms: int) -> str:
    return f"aggr_over_time(({','.join(json.dumps(name) for name in names)}),{select}[{window_ms}ms])"


def _text(time_ms: int) -> str:
    """A time as it reads it: in seconds, with a tenth of a ms more, as it makes ms by cutting off a product of floats."""
    return f"{time_ms // 1000}.{time_ms % 1000:03d}1"


def _held(time_ms: int) -> int:
    return max(_FIRST_MS, min(_NEVER_MS, time_ms))
