"""The town's mode as it is now: the last row of its table, and who is told of it. Who switches it, and why, is the API's."""

from collections.abc import Iterable
from typing import Any, Literal

from sqlalchemy import Connection, select

from gateway.own_facts import add_fact
from gateway.paging import Notices
from gateway.state.tables import pages, town_modes

TownMode = Literal["normal", "disaster"]

MODE_FACT = "town_mode"
"""What rules are told of it: `{"mode": ...}`."""
MODE = "mode"
"""The kind and route of its pages: one is open as long as the town is in disaster mode."""

_LAST = select(town_modes.c.mode).order_by(town_modes.c.id.desc()).limit(1)


def town_mode(connection: Connection) -> TownMode:
    """Normal where nobody ever said otherwise."""
    return "disaster" if connection.scalar(_LAST) == "disaster" else "normal"


def tell_mode(connection: Connection, now_us: int) -> dict[str, Any]:
    """Tells the rules which it is: when it is switched, and when the gateway begins in disaster mode, as a shelter that was
    opened in the meantime has not heard of it. Returns the fact's row.
    """
    return add_fact(connection, "town", "mode", MODE_FACT, {"mode": town_mode(connection)}, now_us, now_us)


def tell_people(connection: Connection, notices: Notices, to: Iterable[str], who: str, why: str, now_us: int) -> None:
    """Tells the groups `to` which mode it is now, who switched it and why: in the transaction that switches it, so once.

    That it is over is told to whoever heard that it began; where nobody did, to the groups.
    """
    mode, facts = town_mode(connection), {"who": who, "why": why, "when": now_us}
    page: str | None = connection.scalar(select(pages.c.id).where(pages.c.route == MODE, pages.c.state == "asking"))
    if mode == "normal" and page is not None:
        notices.close(connection, page, now_us, moment="mode.normal", facts=facts)
        return
    # Where nobody heard that it began, nothing is left to close.
    notices.tell(
        connection, route=MODE, group_key="town", kind=MODE, severity="warning", to=to, moment=f"mode.{mode}", facts=facts,
        now_us=now_us, asks=False, ends=mode == "normal",
    )  # fmt: skip
