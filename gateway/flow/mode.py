"""The town's mode as it is now: the last row of its table. Who switches it, and why, is the API's."""

from typing import Any, Literal

from sqlalchemy import Connection, select

from gateway.own_facts import add_fact
from gateway.state.tables import town_modes

TownMode = Literal["normal", "disaster"]

MODE_FACT = "town_mode"
"""What rules are told of it: `{"mode": ...}`."""

_LAST = select(town_modes.c.mode).order_by(town_modes.c.id.desc()).limit(1)


def town_mode(connection: Connection) -> TownMode:
    """Normal where nobody ever said otherwise."""
    return "disaster" if connection.scalar(_LAST) == "disaster" else "normal"


def tell_mode(connection: Connection, now_us: int) -> dict[str, Any]:
    """Tells the rules which it is: when it is switched, and when the gateway begins in disaster mode, as a shelter that was
    opened in the meantime has not heard of it. Returns the fact's row.
    """
    return add_fact(connection, "town", "mode", MODE_FACT, {"mode": town_mode(connection)}, now_us, now_us)
