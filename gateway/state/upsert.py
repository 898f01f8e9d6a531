"""Insert-or-update, the one statement that databases spell differently."""

from sqlalchemy import Table
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
