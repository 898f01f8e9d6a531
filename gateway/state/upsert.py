"""Insert-or-update, the one statement that databases spell differently."""

from collections.abc import Sequence
from functools import lru_cache

from sqlalchemy import Connection, Dialect, Table
from sqlalchemy.dialects.sqlite import Insert, insert


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
    connection.exec_driver_sql(_text(table, changed, connection.dialect), list(rows))


@lru_cache(maxsize=100)
def _text(table: Table, changed: tuple[str, ...], dialect: Dialect) -> str:
    """The upsert as the driver takes it, with places for the columns in their order."""
    names = [*table.primary_key.columns.keys(), *changed]
    compiled = upsert(table, *changed).compile(dialect=dialect, column_keys=names)
    if not compiled.positional or compiled.positiontup != names:
        raise TypeError(f"upsert_rows knows drivers with places by number only, not {dialect.name}/{dialect.driver}")
    return str(compiled)
