"""Insert-or-update. SQLite took the words of it from PostgreSQL, so that PostgreSQL's do for both."""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects.postgresql import Insert, insert


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

    The values go to the driver as they are: for columns of text and numbers.
    """
    if not rows:
        return
    text, order = _statement(table, changed, connection.dialect)
    if order is None:
        names = [*table.primary_key.columns.keys(), *changed]
        connection.exec_driver_sql(text, [dict(zip(names, row, strict=True)) for row in rows])
    else:
        connection.exec_driver_sql(text, [tuple(row[at] for at in order) for row in rows] if order else list(rows))


@lru_cache(maxsize=100)
def _statement(table: Table, changed: tuple[str, ...], dialect: Dialect) -> tuple[str, list[int] | None]:
    """The upsert as the driver takes it, and in which order it wants a row's values: as they are where empty; None: by name."""
    names = [*table.primary_key.columns.keys(), *changed]
    compiled = upsert(table, *changed).compile(dialect=dialect, column_keys=names)
    if compiled.positiontup is None:
        return str(compiled), None
    order = [names.index(name) for name in compiled.positiontup]
    return str(compiled), [] if order == sorted(order) else order
