"""What the embedded store keeps of its readings by the hour and by the day, and how it forgets the readings themselves.

Functions on one connection, inside a transaction that the caller begins and ends; sqlite.py opens, locks and commits. Nothing
here runs when a point is written, but `mark`, and that costs a look at one row unless points are old.

An hour is summed up once it is over (`rolled_ms`). What is written into it after that leaves a mark in `touched`, in the
same transaction: readers then count that hour from its readings, until a step has summed it up anew. Hours before
`rolling_ms` are marked as well, so that a step may be interrupted anywhere. When an hour's readings are forgotten its row
says so (`raw` = 0): what comes for it later is added to the row.
"""

import sqlite3
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import groupby
from typing import NamedTuple

from gateway.store import fresh

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS
DAY_BEGINS_MS = 15 * HOUR_MS
"""Days begin at midnight in Japan. Days that begin elsewhere are put together from hours."""

SETTLES_MS = 15 * 60_000
"""So long after its end an hour is summed up: most of what is a little late has come."""

ROWS_A_STEP = 5000
"""Readings that one transaction sums up or deletes, about: some 10 ms, for which a write waits."""
ROWS_OF_A_LOOK = 20
"""What looking at one series or hour costs, as readings."""

NEVER_MS = -(2**62)

SCHEMA = (
    """CREATE TABLE rollups (
        series INTEGER NOT NULL, span_ms INTEGER NOT NULL, start_ms INTEGER NOT NULL,
        points INTEGER NOT NULL, low REAL NOT NULL, mean REAL NOT NULL, high REAL NOT NULL,
        last REAL NOT NULL, last_ms INTEGER NOT NULL, raw INTEGER NOT NULL,
        PRIMARY KEY (series, span_ms, start_ms)
    ) STRICT, WITHOUT ROWID""",
    """CREATE TABLE touched (
        series INTEGER NOT NULL, hour_ms INTEGER NOT NULL, PRIMARY KEY (series, hour_ms)
    ) STRICT, WITHOUT ROWID""",
    # `*_after`: the series up to which a round has come; NULL between rounds.
    """CREATE TABLE progress (
        only INTEGER PRIMARY KEY CHECK (only = 0), rolled_ms INTEGER NOT NULL, rolling_ms INTEGER NOT NULL,
        rolling_after INTEGER, forgotten_ms INTEGER NOT NULL, forgetting_after INTEGER
    ) STRICT""",
    f"INSERT INTO progress VALUES (0, {NEVER_MS}, {NEVER_MS}, NULL, {NEVER_MS}, NULL)",  # noqa: S608
)


class Piece(NamedTuple):
    """What a series said in a stretch of time; `points` is never 0, and low <= mean <= high."""

    start_ms: int
    points: int
    low: float
    mean: float
    high: float
    last: float
    last_ms: int


class _Progress(NamedTuple):
    rolled_ms: int
    rolling_ms: int
    rolling_after: int | None
    forgotten_ms: int
    forgetting_after: int | None


def mark(connection: sqlite3.Connection, flat: Sequence[float]) -> None:
    """Notes which hours points, just written, have made out of date. As `fresh.put`, and in the same transaction."""
    (rolling_ms,) = connection.execute("SELECT rolling_ms FROM progress").fetchone()
    times = flat[1::3]
    if min(times) < rolling_ms:
        touched = {
            (series, _hour(int(time_ms))) for series, time_ms in zip(flat[::3], times, strict=True) if time_ms < rolling_ms
        }
        connection.executemany("INSERT OR IGNORE INTO touched VALUES (?, ?)", sorted(touched))


def bucketed(connection: sqlite3.Connection, series: int, start_ms: int, end_ms: int, bucket_ms: int) -> list[Piece]:
    """What start <= time < end says in steps of `bucket_ms` from `start_ms`, oldest first; a step without points is left out.

    Steps of whole hours that begin on the hour are answered from rollups, as far as those go.
    """
    end_of_whole_ms = min(_progress(connection).rolled_ms, _hour(end_ms))
    new = fresh.of(connection, series, start_ms, end_ms)
    if start_ms % HOUR_MS or bucket_ms % HOUR_MS or end_of_whole_ms <= start_ms:
        return _raw(connection, series, start_ms, end_ms, bucket_ms, new=new)
    touched = {
        hour_ms
        for (hour_ms,) in connection.execute(
            "SELECT hour_ms FROM touched WHERE series = ? AND hour_ms >= ? AND hour_ms < ?", (series, start_ms, end_of_whole_ms)
        )
    }
    # What was just written comes first: of two points of one time it is the one that counts.
    pieces = _raw(connection, series, end_of_whole_ms, end_ms, bucket_ms, start_ms, new)
    for hour_ms in touched:
        pieces += _raw(connection, series, hour_ms, hour_ms + HOUR_MS, HOUR_MS, new=new)
    hours_from_ms = start_ms
    if not touched and bucket_ms % DAY_MS == 0 and start_ms == _day(start_ms):
        hours_from_ms = _day(end_of_whole_ms)
        pieces += [piece for piece, _ in _rollups(connection, series, DAY_MS, start_ms, hours_from_ms)]
    hours = _rollups(connection, series, HOUR_MS, hours_from_ms, end_of_whole_ms)
    pieces += [piece for piece, raw in hours if not (raw and piece.start_ms in touched)]

    def step(piece: Piece) -> int:
        return (piece.start_ms - start_ms) // bucket_ms

    pieces.sort(key=step)
    return [_together(start_ms + number * bucket_ms, list(of)) for number, of in groupby(pieces, step)]


def latest(connection: sqlite3.Connection, series: int) -> tuple[int, float] | None:
    """Time and value of the newest point there is or was."""
    of = "FROM rollups WHERE series = ? AND span_ms = ? ORDER BY start_ms DESC LIMIT 1"
    held = connection.execute("SELECT time_ms, value FROM samples WHERE series = ? ORDER BY time_ms DESC LIMIT 1", (series,))
    was = connection.execute(f"SELECT last_ms, last {of}", (series, HOUR_MS))
    return max([*fresh.newest(connection, series), *held, *was], key=lambda one: one[0], default=None)


def is_due(connection: sqlite3.Connection, now_ms: int, keep_ms: int) -> bool:
    """Whether `step` would look for something to do."""
    progress, until_ms = _progress(connection), _hour(now_ms - SETTLES_MS)
    return (
        progress.rolling_after is not None
        or progress.forgetting_after is not None
        or until_ms > progress.rolled_ms
        or _before_ms(progress, now_ms, keep_ms) > progress.forgotten_ms
        or connection.execute("SELECT 1 FROM touched WHERE hour_ms < ? LIMIT 1", (until_ms,)).fetchone() is not None
    )


def step(connection: sqlite3.Connection, now_ms: int, keep_ms: int) -> int | None:
    """One transaction's worth of work: how many readings it removed, or None when there was nothing to do.

    `keep_ms` 0: nothing is forgotten. Readings are removed only once their hour is summed up.
    """
    if not is_due(connection, now_ms, keep_ms):
        return None
    fresh.fold(connection)  # what is summed up and removed is what is in its place
    progress = _progress(connection)
    if progress.rolling_after is not None:
        return _roll(connection, progress, progress.rolling_after)
    until_ms = _hour(now_ms - SETTLES_MS)
    if until_ms > progress.rolled_ms and _begin(connection, progress.rolled_ms, until_ms):
        return 0
    # An hour that is not over (the clock was set back) would be touched again at once: its readings answer meanwhile.
    touched = connection.execute(
        "SELECT series, hour_ms FROM touched WHERE hour_ms < ? LIMIT ?", (until_ms, ROWS_A_STEP)
    ).fetchall()
    if touched:
        return _renew(connection, progress.rolled_ms, touched)
    before_ms = _before_ms(progress, now_ms, keep_ms)
    if progress.forgetting_after is not None:
        return _forget(connection, min(before_ms, progress.forgotten_ms), progress.forgetting_after)
    if before_ms > progress.forgotten_ms:
        connection.execute("UPDATE progress SET forgotten_ms = ?, forgetting_after = 0", (before_ms,))
        return 0
    return None


def _before_ms(progress: _Progress, now_ms: int, keep_ms: int) -> int:
    """What is older may be forgotten."""
    return min(_hour(now_ms - keep_ms), progress.rolled_ms) if keep_ms else NEVER_MS


def _begin(connection: sqlite3.Connection, rolled_ms: int, until_ms: int) -> bool:
    """Begins the next round: the rest of one day at most. False when there is nothing to sum up yet."""
    from_ms = rolled_ms
    if rolled_ms in (NEVER_MS, _day(rolled_ms)):  # days without any reading are passed over
        (first_ms,) = connection.execute(
            "SELECT min((SELECT time_ms FROM samples WHERE series = series.id AND time_ms >= ? ORDER BY time_ms LIMIT 1))"
            " FROM series",
            (rolled_ms,),
        ).fetchone()
        if first_ms is None and rolled_ms == NEVER_MS:
            return False
        from_ms = max(rolled_ms, min(_day(until_ms), _day(until_ms if first_ms is None else first_ms)))
    rolling_ms = min(_day(from_ms) + DAY_MS, until_ms)
    connection.execute(
        "UPDATE progress SET rolled_ms = ?, rolling_ms = ?, rolling_after = ?",
        (from_ms, rolling_ms, 0 if rolling_ms > from_ms else None),
    )
    return True


def _roll(connection: sqlite3.Connection, progress: _Progress, after: int) -> int:
    """Goes on with a round: sums up the same hours of one series after the other."""
    work = 0
    for series in _series_after(connection, after):
        work += ROWS_OF_A_LOOK + _sum_up(connection, series, progress.rolled_ms, progress.rolling_ms)[0]
        if progress.rolling_ms == _day(progress.rolling_ms):
            _sum_up_day(connection, series, progress.rolling_ms - DAY_MS)
        if work >= ROWS_A_STEP:
            connection.execute("UPDATE progress SET rolling_after = ?", (series,))
            break
    else:
        connection.execute("UPDATE progress SET rolled_ms = rolling_ms, rolling_after = NULL")
    return 0


def _renew(connection: sqlite3.Connection, rolled_ms: int, touched: Iterable[tuple[int, int]]) -> int:
    """Sums up hours anew that were written into."""
    work, removed, days = 0, 0, set()
    for series, hour_ms in touched:
        read, gone = _sum_up(connection, series, hour_ms, hour_ms + HOUR_MS)
        connection.execute("DELETE FROM touched WHERE series = ? AND hour_ms = ?", (series, hour_ms))
        removed += gone
        days.add((series, _day(hour_ms)))
        work += ROWS_OF_A_LOOK + read + gone
        if work >= ROWS_A_STEP:
            break
    for series, day_ms in days:
        if day_ms + DAY_MS <= rolled_ms:
            _sum_up_day(connection, series, day_ms)
    return removed


def _forget(connection: sqlite3.Connection, before_ms: int, after: int) -> int:
    """Goes on with a round: deletes the readings of hours before that time, of one series after the other.

    Only while nothing that old is touched: then all of it is summed up.
    """
    work = removed = 0
    for series in _series_after(connection, after):
        work += ROWS_OF_A_LOOK
        done = True
        while done and (hour_ms := _oldest_hour(connection, series)) is not None and hour_ms < before_ms:
            gone = _delete(connection, series, hour_ms)
            connection.execute(
                "UPDATE rollups SET raw = 0 WHERE series = ? AND span_ms = ? AND start_ms = ?", (series, HOUR_MS, hour_ms)
            )
            removed += gone
            work += ROWS_OF_A_LOOK + gone
            done = work < ROWS_A_STEP
        if work >= ROWS_A_STEP:
            connection.execute("UPDATE progress SET forgetting_after = ?", (series if done else series - 1,))
            return removed
    connection.execute("UPDATE progress SET forgetting_after = NULL")
    return removed


def _sum_up(connection: sqlite3.Connection, series: int, start_ms: int, end_ms: int) -> tuple[int, int]:
    """The rollups of these hours, from their readings. (readings that were read, readings that went since their hour has none)"""
    fresh = _raw(connection, series, start_ms, end_ms, HOUR_MS)
    bare = {piece.start_ms: piece for piece, raw in _rollups(connection, series, HOUR_MS, start_ms, end_ms) if not raw}
    removed = 0
    for piece in fresh:
        if (before := bare.get(piece.start_ms)) is not None:
            _put(connection, series, HOUR_MS, _together(piece.start_ms, [piece, before]), raw=False)
            removed += _delete(connection, series, piece.start_ms)
        else:
            _put(connection, series, HOUR_MS, piece, raw=True)
    return sum(piece.points for piece in fresh), removed


def _sum_up_day(connection: sqlite3.Connection, series: int, day_ms: int) -> None:
    """The rollup of a day that is over, from its hours."""
    hours = [piece for piece, _ in _rollups(connection, series, HOUR_MS, day_ms, day_ms + DAY_MS)]
    if hours:
        _put(connection, series, DAY_MS, _together(day_ms, hours), raw=False)


def _raw(
    connection: sqlite3.Connection,
    series: int,
    start_ms: int,
    end_ms: int,
    step_ms: int,
    from_ms: int | None = None,
    new: Sequence[tuple[int, float]] = (),
) -> list[Piece]:
    """Readings with start <= time < end in steps counted from `from_ms`, else from `start_ms`; oldest first.

    `new`: what of the series is not in its place yet, oldest first, as `fresh.of` says it.
    """
    zero_ms = start_ms if from_ms is None else from_ms
    new = new[bisect_left(new, (start_ms,)) : bisect_left(new, (end_ms,))]
    if not new:
        return _placed(connection, series, start_ms, end_ms, step_ms, zero_ms)
    first_ms = new[0][0]
    old = connection.execute(
        "SELECT time_ms, value FROM samples WHERE series = ? AND time_ms >= ? AND time_ms < ?", (series, first_ms, end_ms)
    ).fetchall()
    steps = groupby(fresh.merged(old, new), lambda row: zero_ms + (row[0] - zero_ms) // step_ms * step_ms)
    pieces = _placed(connection, series, start_ms, first_ms, step_ms, zero_ms)
    for at_ms, rows in steps:
        piece = _piece(at_ms, list(rows))
        both = [pieces.pop(), piece] if pieces and pieces[-1].start_ms == at_ms else [piece]
        pieces.append(_together(at_ms, both))
    return pieces


def _piece(start_ms: int, rows: Sequence[tuple[int, float]]) -> Piece:
    """Of readings, oldest first."""
    values = [value for _, value in rows]
    low, high = min(values), max(values)
    mean = sum(value / len(values) for value in values)  # by shares: a sum may be too large for a number
    return Piece(start_ms, len(values), low, max(low, min(high, mean)), high, values[-1], rows[-1][0])


def _placed(connection: sqlite3.Connection, series: int, start_ms: int, end_ms: int, step_ms: int, zero_ms: int) -> list[Piece]:
    """As `_raw`, of the readings that are in their places."""
    rows = connection.execute(
        # `last` by a join on the newest time of each step: one exact lookup in the primary key.
        # The mean is held between low and high, which the rounding of a sum may leave by a hair; a sum beyond all numbers in
        # both directions is no number (NULL).
        "SELECT ? + step * ?, points, low, max(low, min(high, coalesce(mean, 0.0))), high, samples.value, newest_ms FROM ("
        "  SELECT (time_ms - ?) / ? AS step, count(*) AS points, min(value) AS low, avg(value) AS mean,"
        "         max(value) AS high, series, max(time_ms) AS newest_ms"
        "  FROM samples WHERE series = ? AND time_ms >= ? AND time_ms < ? GROUP BY step"
        ") AS steps JOIN samples ON samples.series = steps.series AND samples.time_ms = newest_ms ORDER BY step",
        (zero_ms, step_ms, zero_ms, step_ms, series, start_ms, end_ms),
    )
    return [Piece(*row) for row in rows]


def _rollups(connection: sqlite3.Connection, series: int, span_ms: int, start_ms: int, end_ms: int) -> list[tuple[Piece, int]]:
    """Rollups with start <= time < end, oldest first, and of each whether its readings are here."""
    rows = connection.execute(
        "SELECT start_ms, points, low, mean, high, last, last_ms, raw FROM rollups"
        " WHERE series = ? AND span_ms = ? AND start_ms >= ? AND start_ms < ? ORDER BY start_ms",
        (series, span_ms, start_ms, end_ms),
    )
    return [(Piece(*row[:7]), row[7]) for row in rows]


def _together(start_ms: int, pieces: list[Piece]) -> Piece:
    """One of several; of two that end at the same time the first has the last word."""
    points = sum(piece.points for piece in pieces)
    low, high = min(piece.low for piece in pieces), max(piece.high for piece in pieces)
    mean = sum(piece.mean * (piece.points / points) for piece in pieces)  # by shares: a sum may be too large for a number
    newest = max(pieces, key=lambda piece: piece.last_ms)
    return Piece(start_ms, points, low, max(low, min(high, mean)), high, newest.last, newest.last_ms)


def _put(connection: sqlite3.Connection, series: int, span_ms: int, piece: Piece, *, raw: bool) -> None:
    connection.execute("INSERT OR REPLACE INTO rollups VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", (series, span_ms, *piece, raw))


def _delete(connection: sqlite3.Connection, series: int, hour_ms: int) -> int:
    gone = "DELETE FROM samples WHERE series = ? AND time_ms >= ? AND time_ms < ?"
    return connection.execute(gone, (series, hour_ms, hour_ms + HOUR_MS)).rowcount


def _oldest_hour(connection: sqlite3.Connection, series: int) -> int | None:
    oldest = "SELECT time_ms FROM samples WHERE series = ? ORDER BY time_ms LIMIT 1"
    found = connection.execute(oldest, (series,)).fetchone()
    return None if found is None else _hour(found[0])


def _series_after(connection: sqlite3.Connection, after: int) -> list[int]:
    return [series for (series,) in connection.execute("SELECT id FROM series WHERE id > ? ORDER BY id", (after,))]


def _progress(connection: sqlite3.Connection) -> _Progress:
    row = connection.execute(
        "SELECT rolled_ms, rolling_ms, rolling_after, forgotten_ms, forgetting_after FROM progress"
    ).fetchone()
    return _Progress(*row)


def _hour(time_ms: int) -> int:
    return time_ms - time_ms % HOUR_MS


def _day(time_ms: int) -> int:
    return time_ms - (time_ms - DAY_BEGINS_MS) % DAY_MS
