"""Insert-or-update. SQLite took the words of it from PostgreSQL, so that PostgreSQL's do for both."""

from collections.abc import Sequence
from functools import lru_cache

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


def upsert_rows(connection: Connection, table: Table, changed: tuple[str, ...], rows: Sequence[tuple[object, ...]]) -> None:
    """The same for many rows of the primary key's columns and `changed`, in this order; a fifth of the cost a row.

    The values go to the driver as they are: for columns of text and numbers, each column's of one type or None. No two rows have
    the same primary key.
    """
    if not rows:
        return
    if connection.dialect.name == "postgresql":
        connection.exec_driver_sql(in_one(table, changed, connection.dialect), by_column(rows))
    else:
        text, order = _statement(table, changed, connection.dialect)
        connection.exec_driver_sql(text, [tuple(row[at] for at in order) for row in rows] if order else list(rows))


@lru_cache(maxsize=100)
def in_one(table: Table, changed: tuple[str, ...], dialect: Dialect, where: str = "SELECT") -> str:
    """PostgreSQL's words for all rows in one statement, which takes them `by_column`: of many statements it takes each by itself,
    and an answer each. Writes nothing where `where` has no row.
    """
    key = table.primary_key.columns.keys()
    sets = ", ".join(f"{name} = excluded.{name}" for name in changed)
    return f"{added(table, (*key, *changed), dialect, where)} ON CONFLICT ({', '.join(key)}) DO UPDATE SET {sets}"


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
def _statement(table: Table, changed: tuple[str, ...], dialect: Dialect) -> tuple[str, list[int]]:
    """The upsert as SQLite's driver takes it, and in which order it wants a row's values; empty: as they are."""
    names = [*table.primary_key.columns.keys(), *changed]
    compiled = upsert(table, *changed).compile(dialect=dialect, column_keys=names)
    order = [names.index(name) for name in compiled.positiontup or ()]
    return str(compiled), [] if order == sorted(order) else order
