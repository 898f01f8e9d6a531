"""Sessions: what a cookie opens, until when, and how it ends. In the caller's transaction, but for `enter`.

The cookie is 32 random bytes and is kept as SHA-256 only. A session ends some time after it was last used, at the latest some
time after it was opened, and at once when its owner, or an officer, says so.
"""

import hashlib
import re
import secrets
from collections import Counter
from collections.abc import Collection
from typing import Any, Literal, NamedTuple, get_args

from sqlalchemy import Connection, insert, select, update

from gateway.accounts.account import GroupRoles, get
from gateway.policy import Actor
from gateway.state import State
from gateway.state.tables import sessions

How = Literal["passkey", "line", "mail", "hand"]
"""`hand`: by a link that an officer, or the command line, made and handed over."""

MINUTE_US = 60_000_000
HOUR_US, DAY_US = 60 * MINUTE_US, 24 * 60 * MINUTE_US


class Lasts(NamedTuple):
    """How long a session lasts."""

    idle_us: int
    """After its last use."""
    most_us: int
    """After it was opened."""


LASTS: dict[How, Lasts] = {
    "passkey": Lasts(14 * DAY_US, 90 * DAY_US),  # the device asks for a finger or a code each time
    "line": Lasts(7 * DAY_US, 30 * DAY_US),
    "mail": Lasts(DAY_US, 7 * DAY_US),
    "hand": Lasts(HOUR_US, 12 * HOUR_US),  # enough to make a passkey
}
KEPT_US = 90 * DAY_US
"""So long after its end a session is remembered."""
ID_LENGTH = 16
"""What a session is called where it is listed: this much of its hash."""


class Entered(NamedTuple):
    """Who came in by a cookie."""

    actor: Actor
    session: str
    """The cookie's SHA-256 in hex."""
    how: How


class Session(NamedTuple):
    """One as its owner sees it."""

    id: str
    how: str
    browser: str
    opened_us: int
    used_us: int
    ends_us: int
    """Unless it is used before."""


def sha256(token: str) -> str:
    """What is kept of a cookie, or of a link."""
    return hashlib.sha256(token.encode("utf-8", "surrogateescape")).hexdigest()


def open_session(connection: Connection, account: str, how: How, browser: str, now_us: int) -> str:
    """A new session; what its cookie holds."""
    token = secrets.token_urlsafe(32)
    connection.execute(
        insert(sessions).values(
            sha256=sha256(token), account=account, how=how, browser=browser_of(browser), opened_us=now_us,
            used_us=now_us, expires_us=now_us + LASTS[how].most_us,
        )
    )  # fmt: skip
    return token


def enter(state: State, token: str, group_roles: GroupRoles, now_us: int) -> Entered | None:
    """Who has this cookie; None where it opens nothing (any more). A read, and once a minute a write."""
    return entered(state, sha256(token), group_roles, now_us)


def entered(state: State, hashed: str, group_roles: GroupRoles, now_us: int) -> Entered | None:
    """The same, of the cookie's SHA-256."""
    with state.read() as connection:
        row = connection.execute(select(sessions).where(sessions.c.sha256 == hashed)).first()
        if row is None or not _is_open(row, now_us):
            return None
        account = get(connection, row.account, group_roles)
    if account is None or account.disabled_us is not None:
        return None
    if not 0 <= now_us - row.used_us < MINUTE_US:
        used = update(sessions).where(sessions.c.sha256 == hashed, sessions.c.ended_us.is_(None))
        with state.write() as connection:
            connection.execute(used.values(used_us=now_us))
    return Entered(account.actor(row.how), hashed, row.how)


def open_sessions(connection: Connection, account: str, now_us: int) -> list[Session]:
    """Those of an account that go on, the one used last first."""
    rows = connection.execute(
        select(sessions).where(sessions.c.account == account).order_by(sessions.c.used_us.desc(), sessions.c.sha256)
    )
    return [
        Session(row.sha256[:ID_LENGTH], row.how, row.browser, row.opened_us, row.used_us, _ends_us(row))
        for row in rows
        if _is_open(row, now_us)
    ]


def counted(connection: Connection, accounts: Collection[str], now_us: int) -> Counter[str]:
    """How many sessions of each of these accounts go on."""
    rows = connection.execute(select(sessions).where(sessions.c.account.in_(accounts), sessions.c.ended_us.is_(None)))
    return Counter(row.account for row in rows if _is_open(row, now_us))


def end(connection: Connection, account: str, id_: str, now_us: int) -> bool:
    """Ends one of the account's, by what it is called or its whole SHA-256. False where none of theirs goes on by that."""
    mine = sessions.c.sha256.startswith(id_, autoescape=True) & (sessions.c.account == account)
    done = connection.execute(update(sessions).where(mine, sessions.c.ended_us.is_(None)).values(ended_us=now_us))
    return done.rowcount > 0


def end_all(connection: Connection, account: str, now_us: int) -> int:
    """Ends every session of the account; how many went on."""
    done = connection.execute(
        update(sessions).where(sessions.c.account == account, sessions.c.ended_us.is_(None)).values(ended_us=now_us)
    )
    return done.rowcount


_SYSTEMS = ("Android", "iPhone", "iPad", "Windows", "Mac OS X", "CrOS", "Linux")
_PROGRAMS = (("Line/", "LINE"), ("Edg", "Edge"), ("SamsungBrowser", "Samsung Internet"), ("OPR/", "Opera"),
             ("SamsungBrowser", "Samsung Internet"), ("Firefox", "Firefox"), ("FxiOS", "Firefox"), ("CriOS", "Chrome"),
             ("Chrome", "Chrome"), ("Safari", "Safari"))  # fmt: skip


def browser_of(agent: str) -> str:
    """As its owner would know it, and no more: `Android, Chrome`. Of a browser's own, long and telling, name for itself."""
    system = next((one for one in _SYSTEMS if one in agent), "")
    program = next((called for sign, called in _PROGRAMS if sign in agent), "")
    return ", ".join(part for part in (system.replace("Mac OS X", "Mac"), program) if part) or "?"


def is_id(text: str) -> bool:
    """Whether a session could be called so."""
    return re.fullmatch(rf"[0-9a-f]{{{ID_LENGTH}}}", text) is not None


def _is_open(row: Any, now_us: int) -> bool:
    # Opened a little in the future: the clock was set back since. By more than a day it was a wrong clock that opened it, and
    # the session would last until that day comes.
    is_of_now = row.opened_us <= now_us + DAY_US
    return row.ended_us is None and row.how in get_args(How) and is_of_now and now_us < _ends_us(row)


def _ends_us(row: Any) -> int:
    how: How = row.how if row.how in get_args(How) else "hand"
    return int(min(row.expires_us, row.used_us + LASTS[how].idle_us))
