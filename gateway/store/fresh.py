"""What the embedded store has taken and not put in its place yet: points as they came, in the order in which they came.

Functions on one connection; sqlite.py opens, locks and commits. Putting a point in its place, under its series and time,
writes a page of the file for each series; appending it here writes a few bytes. So a write appends, and many are moved at once,
sorted: a disk, and an SD card more so, has far fewer pages to write. A reader takes what is here together with what is in its
place, and what is here counts: it came later.
"""

import sqlite3
from collections.abc import Sequence
from functools import cache

SCHEMA = (
    # No key: rows stand in the order of their rowid, the later below.
    "CREATE TABLE fresh (series INTEGER NOT NULL, time_ms INTEGER NOT NULL, value REAL NOT NULL) STRICT",
    # What there is, for who looks into the file by hand; readers of ours do it in less time.
    """CREATE VIEW readings AS
        SELECT samples.series, samples.time_ms, samples.value FROM samples
        LEFT JOIN (SELECT DISTINCT series, time_ms FROM fresh) AS newer
        ON newer.series = samples.series AND newer.time_ms = samples.time_ms WHERE newer.series IS NULL
        UNION ALL
        SELECT series, time_ms, value FROM (SELECT series, time_ms, value, max(rowid) FROM fresh GROUP BY series, time_ms)""",
    # How often rows were moved: who was about to move some sees that somebody else has, since he looked.
    "ALTER TABLE progress ADD COLUMN folds INTEGER NOT NULL DEFAULT 0",
)

ROWS_AT_ONCE = 100
"""Of one statement: a row then costs half of what it costs alone. SQLite takes three times as many."""

_VALUES = "(?, ?, ?)"


def put(connection: sqlite3.Connection, flat: Sequence[float]) -> None:
    """Appends points, given as series, time in ms, value, series, time in ms, ..."""
    size = 3 * ROWS_AT_ONCE
    whole = len(flat) // size * size
    if whole:
        connection.executemany(_insert(ROWS_AT_ONCE), [flat[at : at + size] for at in range(0, whole, size)])
    if whole < len(flat):
        connection.execute(_insert((len(flat) - whole) // 3), flat[whole:])


def count(connection: sqlite3.Connection) -> int:
    """How many rows are here, or a few more."""
    first, last = connection.execute("SELECT (SELECT min(rowid) FROM fresh), (SELECT max(rowid) FROM fresh)").fetchone()
    return 0 if first is None else last - first + 1


def of(connection: sqlite3.Connection, series: int, start_ms: int, end_ms: int) -> list[tuple[int, float]]:
    """What is here of a series with start <= time < end, oldest first; of one time the last that came."""
    rows = connection.execute(
        # SQLite gives `value` from the row that has the maximum (sqlite.org/lang_select.html, bare columns).
        "SELECT time_ms, value, max(rowid) FROM fresh WHERE series = ? AND time_ms >= ? AND time_ms < ?"
        " GROUP BY time_ms ORDER BY time_ms",
        (series, start_ms, end_ms),
    )
    return [(time_ms, value) for time_ms, value, _ in rows]


def newest(connection: sqlite3.Connection, series: int) -> list[tuple[int, float]]:
    """Time and value of the newest point that is here of a series; none where there is none."""
    return connection.execute(
        "SELECT time_ms, value FROM fresh WHERE series = ? ORDER BY time_ms DESC, rowid DESC LIMIT 1", (series,)
    ).fetchall()


def merged(old: Sequence[tuple[int, float]], new: Sequence[tuple[int, float]]) -> list[tuple[int, float]]:
    """Both, oldest first; of one time the new one."""
    return sorted({**dict(old), **dict(new)}.items()) if new else list(old)


def sort(connection: sqlite3.Connection, most: int) -> tuple[int, int, int]:
    """Lays the oldest rows out in the order of their places, for `move`: (how often rows were moved, up to which row, how many).

    Reads only; into a table of this connection alone.
    """
    connection.execute("DROP TABLE IF EXISTS temp.sorted")
    connection.execute("BEGIN")
    (folds,) = connection.execute("SELECT folds FROM progress").fetchone()
    (last,) = connection.execute("SELECT max(rowid) FROM (SELECT rowid FROM fresh ORDER BY rowid LIMIT ?)", (most,)).fetchone()
    connection.execute(
        "CREATE TEMP TABLE sorted AS SELECT series, time_ms, value FROM fresh WHERE rowid <= ? ORDER BY series, time_ms, rowid",
        (last or 0,),
    )
    (found,) = connection.execute("SELECT coalesce(max(rowid), 0) FROM temp.sorted").fetchone()
    connection.execute("COMMIT")
    return folds, last or 0, found


def move(connection: sqlite3.Connection, folds: int, after: int, upto: int) -> bool:
    """Puts some of the sorted rows in their places; False where anybody has moved any meanwhile. `folds` is one more then.

    They stay here too until `done`: a reader finds the same either way. Of two who move at the same time one gives up before the
    other is through: it would put what it sorted earlier over what the other sorted later.
    """
    if not _is_turn(connection, folds):
        return False
    connection.execute(
        "INSERT OR REPLACE INTO samples SELECT series, time_ms, value FROM temp.sorted WHERE rowid > ? AND rowid <= ?"
        " ORDER BY rowid",
        (after, upto),
    )
    return True


def done(connection: sqlite3.Connection, folds: int, last: int, rows: int) -> bool:
    """Lets go of the rows that `move` has put in their places, all that `sort` found; False as there."""
    # VACUUM, by hand, gives rows other numbers.
    if connection.execute("SELECT count(*) FROM fresh WHERE rowid <= ?", (last,)).fetchone() != (rows,):
        return False
    if not _is_turn(connection, folds):
        return False
    if connection.execute("SELECT max(rowid) FROM fresh").fetchone() == (last,):
        connection.execute("DELETE FROM fresh")  # SQLite lets go of all at once, without a look at each row
    else:
        connection.execute("DELETE FROM fresh WHERE rowid <= ?", (last,))
    return True


def fold(connection: sqlite3.Connection) -> None:
    """Puts all rows in their places, at once: for the few that are left."""
    if count(connection):
        connection.execute(
            "INSERT OR REPLACE INTO samples SELECT series, time_ms, value FROM fresh ORDER BY series, time_ms, rowid"
        )
        connection.execute("DELETE FROM fresh")
        connection.execute("UPDATE progress SET folds = folds + 1")


def _is_turn(connection: sqlite3.Connection, folds: int) -> bool:
    return connection.execute("UPDATE progress SET folds = folds + 1 WHERE folds = ?", (folds,)).rowcount == 1


@cache
def _insert(rows: int) -> str:
    return f"INSERT INTO fresh VALUES {', '.join([_VALUES] * rows)}"  # noqa: S608 - of question marks
