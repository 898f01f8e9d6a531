"""Insert-or-update. SQLite took the words of it from PostgreSQL, so that PostgreSQL's do for both."""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects.postgresql import Insert, insert


@lru_cache(maxsize=100)
def upsert(table: Table, *changed: str) -> Insert:
    """Inserts rows; where a row with the same primary key stands, sets its `changed` columns to the new values.

    No `changed`: the row that stands is left as it is.
    """
    statement = insert(table)
    if not changed:
        return statement.on_conflict_do_nothing()
    return statement.on_conflict_do_update(
        index_elements=list(table.primary_key.columns), set_={name: statement.excluded[name] for name in changed}
    )


_AT_ONCE = 40
"""Rows of one statement on SQLite: one then costs two thirds of what it costs alone, and hardly less with more."""


def upsert_rows(connection: Connection, table: Table, changed: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    """The same for many rows of the primary key's columns and `changed`, in this order, at a fraction of the cost a row.

    The values go to the driver as they are: for columns of text and numbers, each column's of one type or None. No two rows have
    the same primary key.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(in_one(table, changed, connection.dialect), by_column(rows))
        return
    whole = len(rows) // _AT_ONCE * _AT_ONCE
    if whole:
        together = [tuple(chain.from_iterable(rows[at : at + _AT_ONCE])) for at in range(0, whole, _AT_ONCE)]
        connection.exec_driver_sql(_in_values(table, changed, _AT_ONCE), together)
    if whole < len(rows):
        connection.exec_driver_sql(_in_values(table, changed, 1), list(rows[whole:]))


@lru_cache(maxsize=100)
def in_one(table: Table, changed: tuple[str, ...], dialect: Dialect, where: str = "SELECT") -> str:
    """PostgreSQL's words for all rows in one statement, which takes them `by_column`: of many statements it takes each by itself,
    and an answer each. Writes nothing where `where` has no row.
    """
    return f"{added(table, (*_key(table), *changed), dialect, where)} {_on_conflict(table, changed)}"


@lru_cache(maxsize=100)
def added(table: Table, names: tuple[str, ...], dialect: Dialect, where: str = "SELECT") -> str:
    """The same for rows that are only added."""
    arrays = ", ".join(f"%b::{table.c[name].type.compile(dialect)}[]" for name in names)
    return (
        f"WITH holds AS ({where}) INSERT INTO {table.name} ({', '.join(names)}) "  # noqa: S608 - names of ours
        f"SELECT one.* FROM holds, unnest({arrays}) AS one"
    )


def by_column(rows: Sequence[tuple[object, ...]]) -> tuple[list[object], ...]:
    """One list a column."""
    return tuple(map(list, zip(*rows, strict=True)))


@lru_cache(maxsize=100)
def _in_values(table: Table, changed: tuple[str, ...], number: int) -> str:
    """SQLite's words for so many rows."""
    names = (*_key(table), *changed)
    row = f"({', '.join('?' * len(names))})"
    return f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {', '.join([row] * number)} {_on_conflict(table, changed)}"  # noqa: S608


def _on_conflict(table: Table, changed: tuple[str, ...]) -> str:
    sets = ", ".join(f"{name} = excluded.{name}" for name in changed)
    return f"ON CONFLICT ({', '.join(_key(table))}) DO UPDATE SET {sets}"


def _key(table: Table) -> list[str]:
    return table.primary_key.columns.keys()
