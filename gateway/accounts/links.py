"""One-time links: the way in for who has no passkey. In the caller's transaction.

A link is 32 random bytes, kept as SHA-256, for 15 minutes and one use. Looking at it uses nothing: scanners of mails and
previews open links by themselves. It goes to an address that its owner has proved, or is handed over by an officer.
"""

import secrets
from typing import NamedTuple

from sqlalchemy import ColumnElement, Connection, insert, select, update

from gateway.accounts.sessions import MINUTE_US, How, sha256
from gateway.state.tables import accounts, login_links

LASTS_US = 15 * MINUTE_US
KEPT_US = 24 * 60 * MINUTE_US
LONGEST = 64
"""No token of a link is longer."""


class Used(NamedTuple):
    """A link that has just opened a session."""

    account: str
    via: How


def make(connection: Connection, account: str, via: How, now_us: int) -> str:
    """A new link's token."""
    token = secrets.token_urlsafe(32)
    row = {"sha256": sha256(token), "account": account, "via": via, "created_us": now_us, "expires_us": now_us + LASTS_US}
    connection.execute(insert(login_links).values(row))
    return token


def is_good(connection: Connection, token: str, now_us: int) -> bool:
    """Whether it would open a session now."""
    good = _good(token, now_us)
    return connection.execute(select(login_links.c.account).where(*good)).first() is not None


def use(connection: Connection, token: str, now_us: int) -> Used | None:
    """Uses it up; None where it is none, is over or was used. Of two who press at once, one comes in."""
    good = _good(token, now_us)
    row = connection.execute(select(login_links).where(*good)).first()
    if row is None:
        return None
    done = connection.execute(update(login_links).where(*good).values(used_us=now_us))
    if done.rowcount != 1:
        return None
    shut = connection.scalar(select(accounts.c.disabled_us).where(accounts.c.id == row.account))
    return None if shut is not None else Used(row.account, row.via)


def _good(token: str, now_us: int) -> tuple[ColumnElement[bool], ...]:
    link = login_links.c
    mine = link.sha256 == sha256(token[: LONGEST + 1])
    # Made in the future: the clock went back since. It would open for longer than it was said to.
    return mine, link.used_us.is_(None), link.expires_us > now_us, link.created_us <= now_us
