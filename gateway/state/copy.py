"""All rows of one state database into another that is empty: how a town that outgrew its SQLite file comes to PostgreSQL."""

from collections.abc import Callable, Mapping

from sqlalchemy import BigInteger, Connection, Table, func, insert, select, text
from sqlalchemy.exc import DataError, IntegrityError

from gateway.errors import ConfigError
from gateway.state.database import State
from gateway.state.tables import leases, metadata, workers

ROWS = 1000
PASSING = frozenset({leases.name, workers.name})
"""What is of running processes, and stays behind."""


def copy(
    source: State,
    target: State,
    said: Callable[[str, int], object] = lambda *_: None,
    last: Callable[[Connection], object] = lambda _: None,
) -> Mapping[str, int]:
    """In one transaction of each, so that the target has all of it or nothing; rows of each table.

    `said(table, rows)` hears how it goes; `last(connection)` writes what is to stand behind the rows, in the same transaction.
    ConfigError where the target holds something already, or can't hold what comes.
    """
    counts: dict[str, int] = {}
    with source.read() as old, target.write() as new:
        full = [table.name for table in metadata.sorted_tables if table.name not in PASSING and _count(new, table)]
        if full:
            raise ConfigError(f"state.url: the database is not empty ({', '.join(full[:5])}): copy into a new one")
        for table in metadata.sorted_tables:
            if table.name in PASSING:
                continue
            rows = old.execution_options(yield_per=ROWS).execute(select(table).order_by(*table.primary_key.columns))
            for group in rows.partitions():
                try:
                    new.execute(insert(table), [dict(zip(table.c.keys(), row, strict=True)) for row in group])
                except (DataError, IntegrityError) as error:
                    raise ConfigError(f"state: a row of {table.name} can't be copied: {error.orig}") from error
            counts[table.name] = _count(new, table)
            if counts[table.name] != (wanted := _count(old, table)):
                raise ConfigError(f"state: {counts[table.name]} of {wanted} rows of {table.name} came over; nothing was kept")
            _number_on(new, table)
            said(table.name, counts[table.name])
        last(new)
    return counts


def _count(connection: Connection, table: Table) -> int:
    return int(connection.scalar(select(func.count()).select_from(table)) or 0)


def _number_on(connection: Connection, table: Table) -> None:
    """Rows to come get higher numbers than those that came: PostgreSQL's sequences know nothing of numbers that were given."""
    [key, *more] = table.primary_key.columns
    if connection.dialect.name != "postgresql" or more or not isinstance(key.type, BigInteger):
        return
    sequence = connection.scalar(text("SELECT pg_get_serial_sequence(:table, :key)"), {"table": table.name, "key": key.name})
    highest = connection.scalar(select(func.max(key)))
    if sequence is not None and highest is not None:
        connection.execute(select(func.setval(sequence, highest)))
