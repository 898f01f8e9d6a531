"""What a provider says of a message after it took it: that it has it after all, or that it did not reach anybody.

Everything here works in the caller's transaction, and repeating it changes nothing.
"""

from collections.abc import Callable
from typing import Any

from sqlalchemy import Connection, func, select, update

from gateway.notify.queue import STAYS
from gateway.state.tables import addresses, notifications, pages

Lost = Callable[[Connection, str, str, int], object]
"""lost(connection, address id, why, now_us): this address leads nowhere any more. gateway.contacts.proof.lost is one."""


def arrived(connection: Connection, id_: str, provider_id: str, now_us: int) -> None:
    """The provider has it. An attempt of which we never heard the end needs no repetition then."""
    connection.execute(
        update(notifications)
        .where(notifications.c.id == id_)
        .values(provider_id=func.coalesce(notifications.c.provider_id, provider_id))
    )
    connection.execute(
        update(notifications)
        .where(notifications.c.id == id_, notifications.c.state == "queued", notifications.c.intent_us.is_not(None))
        .values(state="sent", sent_us=now_us, intent_us=None, error=None)
    )


def not_arrived(
    connection: Connection, id_: str, reason: str, now_us: int, *, lost: Lost | None = None, why: str = "gone"
) -> None:
    """It was taken, and did not get to its person: the ledger says so, and its page is thought over at once.

    With `lost` it is the address that leads nowhere, for the reason `why`: then the deliverer goes on to the contact's next one.
    Not where somebody answered over the address since: what is said late, or by somebody else, is not believed against that.
    """
    row = connection.execute(select(notifications).where(notifications.c.id == id_)).first()
    if row is None or row.state in ("answered", "seen"):
        return  # somebody has it, whatever is said now
    values: dict[str, object] = {"error": reason[:300]}
    if lost is not None and row.address is not None and not _was_heard_since(connection, row):
        lost(connection, row.address, why, now_us)
        if row.state == "sent" and row.kind not in STAYS:
            # The deliverer does not send to an address that is lost: it finds the next one, or says that there is none.
            values |= {"state": "queued", "due_us": now_us, "intent_us": None}
    connection.execute(update(notifications).where(notifications.c.id == id_).values(values))
    if row.page is not None:
        connection.execute(update(pages).where(pages.c.id == row.page, pages.c.state != "closed").values(changed=True))


def _was_heard_since(connection: Connection, row: Any) -> bool:
    heard_us = connection.scalar(select(addresses.c.heard_us).where(addresses.c.id == row.address))
    return heard_us is not None and heard_us > (row.sent_us or row.created_us)
