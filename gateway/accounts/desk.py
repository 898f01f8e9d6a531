"""`Accounts`: the rooms of this folder together, and what is told and kept of what happens there. API and pages work with it.

Whoever asks for a link is answered before anything is looked up: the asking and the looking up are two threads' work, so that
neither the answer nor its time says whether an address is known.
"""

import logging
import uuid
from collections import Counter, deque
from collections.abc import Callable, Mapping
from threading import Lock
from typing import Any, NamedTuple
from urllib.parse import quote

from sqlalchemy import Connection, delete, select

from gateway import audit
from gateway.accounts import links, passkeys
from gateway.accounts.account import STRONG, Account, GroupRoles, get, of_contact
from gateway.accounts.limits import Limits
from gateway.accounts.passkeys import Begun, Refused, Site
from gateway.accounts.sessions import KEPT_US, Entered, How, end_all, enter, entered, open_session
from gateway.audit.acts import WITH
from gateway.contacts.address import WrongAddress, clean_address
from gateway.contacts.book import Book
from gateway.contacts.people import owner
from gateway.contacts.person import Address, Person
from gateway.notify.message import Language, Link, Message
from gateway.notify.queue import queue
from gateway.policy import Actor
from gateway.state import State
from gateway.state.tables import ceremonies, contacts, login_links, sessions, watched
from gateway.words import LANGUAGES, text, words

log = logging.getLogger(__name__)

MOST_ASKED = 1000
"""Asked for, and not looked up yet; of more, those who came last must ask again."""
TIDY_US = 60_000_000
_IDS = uuid.UUID("0a5f6e0c-6c0a-5d0e-9a53-3a1d5c7e2b90")


class Opened(NamedTuple):
    """A session that was just opened."""

    account: str
    how: How
    cookie: str
    """What its cookie holds."""


class Accounts:
    """Safe on many threads."""

    def __init__(
        self,
        state: State,
        group_roles: GroupRoles,
        public_url: str,
        now_us: Callable[[], int],
        book: Book,
        office: str | None = None,
        ring: Callable[[], None] = lambda: None,
        mails: bool = True,
    ) -> None:
        """`public_url`: the gateway as phones reach it. `office`: hears of copied passkeys, and of its own new ones.

        `ring`: a message was queued.

        `mails`: this gateway sends mail, so links can be asked for by an address.
        """
        self.state, self.group_roles, self.now_us, self.mails = state, group_roles, now_us, mails
        self.site, self.limits = Site.of(public_url, text("ja", "screen.name")), Limits(now_us)
        self._url, self._book, self._office, self._ring = public_url.rstrip("/"), book, office, ring
        self._asked: deque[tuple[str, str | None]] = deque(maxlen=MOST_ASKED)
        self._failed: Counter[str] = Counter()
        self._lock = Lock()
        self._tidied_us = 0

    # --- Sessions -----------------------------------------------------------------------------------

    @property
    def https(self) -> bool:
        """Whether phones reach the gateway by it, as they should."""
        return self._url.startswith("https://")

    def enter(self, cookie: str) -> Entered | None:
        """Who comes in by this cookie."""
        return enter(self.state, cookie, self.group_roles, self.now_us())

    def still(self, known: Entered) -> bool:
        """Whether the session goes on, and its owner is still what they were when they came in."""
        return entered(self.state, known.session, self.group_roles, self.now_us()) == known

    def account_of(self, connection: Connection, actor: Actor) -> Account | None:
        """The account behind an actor; None: a token's."""
        return None if actor.account is None else get(connection, actor.account, self.group_roles)

    # --- Coming in ----------------------------------------------------------------------------------

    def begin_login(self) -> Begun:
        """A challenge to whoever has a passkey."""
        with self.state.write() as connection:
            return passkeys.begin_login(connection, self.site, self.now_us())

    def login(self, ticket: str, said: Mapping[str, Any], browser: str) -> Opened | None:
        """By a passkey; None: it opens nothing, and for the browser it is always the same nothing."""
        now_us = self.now_us()
        with self.state.write() as connection:
            try:
                account = passkeys.login(connection, self.site, ticket, said, now_us)
            except Refused as error:
                # In the transaction: its challenge is used up.
                self._refused(connection, error, now_us)
                return None
            return self._open(connection, account, "passkey", browser, now_us)

    def is_good(self, token: str) -> bool:
        """Whether a link would open a session. Looking uses nothing."""
        with self.state.read() as connection:
            return links.is_good(connection, token, self.now_us())

    def use_link(self, token: str, browser: str) -> Opened | None:
        """By a one-time link; None: it opens nothing (any more)."""
        now_us = self.now_us()
        with self.state.write() as connection:
            used = links.use(connection, token, now_us)
            if used is None:
                self._failed["link"] += 1
                return None
            return self._open(connection, used.account, used.via, browser, now_us)

    def wait_for_link_s(self, mail: str) -> int:
        """0 when one more link to this address may be asked for, which then counts, be it anybody's or not; else the wait."""
        try:
            key = clean_address("mail", mail, "81").casefold()  # however it is written, it is one mail box
        except WrongAddress:
            key = mail.strip().casefold()
        return self.limits.wait_s("asked", key) or self.limits.wait_s("asked_day", key)

    def ask(self, mail: str, wanted: str | None = None) -> None:
        """Somebody wants a link to this mail address. Says nothing, and looks nothing up: `step` does.

        `wanted`: the path of ours to open by it.
        """
        with self._lock:
            if len(self._asked) < MOST_ASKED:
                self._asked.append((mail, wanted))

    def line_link(self, connection: Connection, contact: str, now_us: int) -> str | None:
        """A link for who wrote to the town's LINE account, in the caller's transaction. None: they have no account."""
        account = of_contact(connection, contact, self.group_roles, now_us)
        if account is None or not _comes_in(account, "line"):
            return None
        return self.url_of(links.make(connection, account.id, "line", now_us))

    def hand_link(self, connection: Connection, account: str, who: str, now_us: int) -> str:
        """A link that the caller hands over. Whom its owner watches over, its entry is about too: whoever uses it sees them."""
        url = self.url_of(links.make(connection, account, "hand", now_us))
        owner_ = get(connection, account, self.group_roles)
        theirs = select(watched.c.id).where(watched.c.family.in_(owner_.groups if owner_ is not None else ()))
        seen = [f"watched/{id_}" for id_ in connection.scalars(theirs.order_by(watched.c.id))]
        audit.record(connection, who, "account.link", f"account/{account}", now_us, more={WITH: seen} if seen else None)
        return url

    def url_of(self, token: str) -> str:
        """The page of a link."""
        return f"{self._url}/login/link/{token}"

    # --- Passkeys -----------------------------------------------------------------------------------

    def may_add_passkey(self, account: Account, how: How) -> bool:
        """A passkey opens all that an account is: so who has more by it than by a link must have come in as strongly."""
        return how in STRONG or not account.own

    def begin_register(self, connection: Connection, account: Account, now_us: int) -> Begun:
        """Refused for who has as many as there may be."""
        return passkeys.begin_register(connection, self.site, account.id, account.name, now_us)

    def register(self, account: str, ticket: str, said: Mapping[str, Any], name: str) -> str | None:
        """Keeps a new passkey; its id. None: what the browser said proves none."""
        now_us = self.now_us()
        with self.state.write() as connection:
            try:
                id_ = passkeys.register(connection, self.site, account, ticket, said, name, now_us)
            except Refused as error:
                self._refused(connection, error, now_us)
                return None
            audit.record(connection, f"account:{account}", "passkey.add", f"account/{account}", now_us)
            self._tell_of_passkey(connection, account, id_, now_us)
        self._ring()
        return id_

    def _tell_of_passkey(self, connection: Connection, id_: str, passkey: str, now_us: int) -> None:
        """Its owner, and of who works for the office the office too: a passkey that a stranger made would last for good."""
        account = get(connection, id_, self.group_roles)
        if account is None:
            return
        told = self._book.who(connection, self._office, now_us) if account.own and self._office is not None else []
        owner = self._book.person(connection, account.contact, now_us) if account.contact is not None else None
        for person in {one.contact: one for one in (*told, *([owner] if owner is not None else []))}.values():
            said = words(person.language, "contact.passkey_added", name=[account.name])
            message = Message(
                id=str(uuid.uuid5(_IDS, f"added/{passkey}/{person.contact}")), kind="office", severity="warning",
                language=person.language, title=said.title, body=said.body,
            )  # fmt: skip
            queue(connection, person, message, now_us, due_us=person.quiet_until_us)

    # --- What may come a little later ---------------------------------------------------------------

    def step(self, now_us: int) -> None:
        """A chore, each second: sends the links that were asked for; each minute forgets what is over."""
        with self._lock:
            asked, self._asked = dict(self._asked), deque(maxlen=MOST_ASKED)
        for mail, wanted in asked.items():
            with self.state.write() as connection:
                self._send(connection, mail, wanted, now_us)
        if asked:
            self._ring()
        if not 0 <= now_us - self._tidied_us < TIDY_US:
            self._tidied_us = now_us
            self._tidy(now_us)

    def _send(self, connection: Connection, mail: str, wanted: str | None, now_us: int) -> None:
        try:
            clean = clean_address("mail", mail, "81")
        except WrongAddress:
            return
        known = owner(connection, "mail", clean)
        if known is None or known.state != "proved":
            return
        account = of_contact(connection, known.contact, self.group_roles, now_us)
        if account is None or not _comes_in(account, "mail"):
            return
        row = connection.execute(select(contacts.c.name, contacts.c.language).where(contacts.c.id == known.contact)).one()
        language: Language = row.language if row.language in LANGUAGES else "ja"
        token = links.make(connection, account.id, "mail", now_us)
        url = self.url_of(token) + (f"?next={quote(wanted, safe='/')}" if wanted is not None else "")
        said = words(language, "contact.login")
        message = Message(
            id=str(uuid.uuid5(_IDS, token)), kind="reply", severity="info", language=language, title=said.title, body=said.body,
            links=(Link(label=text(language, "link.login"), url=url),),
        )  # fmt: skip
        person = Person(known.contact, row.name, language, (Address(known.address, "mail", clean),))
        queue(connection, person, message, now_us, by="mail")

    def _tidy(self, now_us: int) -> None:
        with self._lock:
            failed, self._failed = self._failed, Counter()
        with self.state.write() as connection:
            # A challenge of the future is one of before the clock went back.
            far_us = now_us + passkeys.CHALLENGE_LASTS_US
            over = (ceremonies.c.expires_us <= now_us) | (ceremonies.c.expires_us > far_us)
            connection.execute(delete(ceremonies).where(over))
            connection.execute(delete(login_links).where(login_links.c.expires_us < now_us - links.KEPT_US))
            ended = (sessions.c.expires_us < now_us - KEPT_US) | (sessions.c.ended_us < now_us - KEPT_US)
            connection.execute(delete(sessions).where(ended))
            if failed:
                # One entry a minute: who tries a thousand times must not write a thousand.
                more = {"count": failed.total(), "of": dict(sorted(failed.items()))}
                audit.record(connection, "gateway", "login.failed", "", now_us, more=more)

    def _open(self, connection: Connection, id_: str, how: How, browser: str, now_us: int) -> Opened | None:
        account = get(connection, id_, self.group_roles)
        if account is None or account.disabled_us is not None or not _comes_in(account, how):
            self._failed["shut"] += 1
            return None
        cookie = open_session(connection, id_, how, browser, now_us)
        audit.record(connection, f"account:{id_}", "login", f"account/{id_}", now_us, more={"how": how})
        return Opened(id_, how, cookie)

    def _refused(self, connection: Connection, error: Refused, now_us: int) -> None:
        self._failed[error.why] += 1
        if error.why != "copied" or error.account is None or error.passkey is None:
            return
        log.warning("a passkey of account %s counted backwards: it may have been copied; it is shut", error.account)
        end_all(connection, error.account, now_us)  # whoever came in by the copy is out as well
        audit.record(connection, f"account:{error.account}", "passkey.copied", f"account/{error.account}", now_us)
        account = get(connection, error.account, self.group_roles)
        for person in self._book.who(connection, self._office, now_us) if self._office and account else []:
            said = words(person.language, "contact.passkey_copied", name=[account.name if account else ""])
            id_ = str(uuid.uuid5(_IDS, f"copied/{error.passkey}/{person.contact}"))
            message = Message(
                id=id_, kind="office", severity="warning", language=person.language, title=said.title, body=said.body
            )
            queue(connection, person, message, now_us, due_us=person.quiet_until_us)
        self._ring()


def _comes_in(account: Account, how: How) -> bool:
    """Whether there is anything that they may do there."""
    return account.disabled_us is None and bool(account.actor(how).roles)
