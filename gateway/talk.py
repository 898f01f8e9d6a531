"""What we answer to who writes to the town's LINE account, and what follows from it. Works on the inbox's rows of channel `line`.

follow        a greeting: please send your code            unfollow   the address leads nowhere: unreachable
a button      the answer to a page, or to a test           join       of a LINE group: alone, please
a code        joins the group                              留守, 戻りました, ログイン, ヘルプ, else: help

Who has joined is answered through the delivery outbox, as a free reply within a minute, else as a push. A stranger is answered by
reply or not at all: pushes cost, and nobody outside may spend them.
"""

import re
import unicodedata
import uuid
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple, get_args
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway.contacts import people
from gateway.contacts.away import Choice, away, back, until
from gateway.contacts.book import Book
from gateway.contacts.join import Joined, Joining, Refused, read_code
from gateway.contacts.person import Address, Person
from gateway.contacts.proof import answered, heard, lost
from gateway.inbox import After, Came
from gateway.notify.line import REPLY_WITHIN_US, read_postback
from gateway.notify.message import Answer, Language, Link, Message
from gateway.notify.queue import mark_seen, queue, read_message
from gateway.paging import Answered, NotTaken
from gateway.state.tables import addresses, contacts, notifications
from gateway.words import LANGUAGES, Words, acknowledged, not_taken, text, words

ASKED_US = 10 * 60 * 1_000_000
"""So long after 「留守にします」 a bare 「今日」 is the answer to it."""
_MOST_ASKED = 1000
_MOST_TEXT = 500
_USER = re.compile(r"U[0-9a-f]{32}")
_IDS = uuid.UUID("3a6d0f4e-0d3b-5f0a-8a55-6c2b8f6f7a10")

_HEARD: Final = {
    "away": "heard.away",
    "back": "heard.back",
    "help": "heard.help",
    "login": "heard.login",
    "today": "heard.today",
    "tomorrow": "heard.tomorrow",
    "week": "heard.week",
}
"""What people write, by the catalogues: alternatives parted by |, the first as it is shown on a button."""

_CHOICES: tuple[Choice, ...] = ("today", "tomorrow", "week")


AnswerTo = Callable[[Connection, str, Answer, Literal["line"], int], Answered | NotTaken]
"""`gateway.paging.answers.Answers.answer_to`: (connection, notification, answer, via, now_us)."""

HelpLinks = Callable[[str, Language, int], Sequence[Link]]

LoginLink = Callable[[Connection, str, int], str | None]
"""`Accounts.line_link`: (connection, contact, now_us) -> where they come in, once; None: they have no account."""


class _Who(NamedTuple):
    contact: str
    address: str
    state: str
    heard_us: int
    name: str
    language: Language


class LineTalk:
    """The worker of channel `line`; runs in the inbox's thread."""

    def __init__(  # noqa: PLR0913 - what the wiring has
        self,
        book: Book,
        joining: Joining,
        answer_to: AnswerTo,
        zone: ZoneInfo,
        reply: Callable[[str, Message], object],
        ring: Callable[[], None] = lambda: None,
        *,
        office: str | None = None,
        help_links: HelpLinks = lambda _contact, _language, _now_us: (),
        login_link: LoginLink = lambda _connection, _contact, _now_us: None,
    ) -> None:
        """`reply(token, message)`: at once, for strangers. `ring`: a message was queued. `office`: hears of gaps.

        `help_links(contact, language, now_us)`: what stands below the help: the office's telephone, one more way to be told.
        """
        self._book, self._joining, self._answer_to, self._zone = book, joining, answer_to, zone
        self._reply, self._ring, self._office = reply, ring, office
        self._help_links, self._login_link = help_links, login_link
        self._asked: OrderedDict[str, int] = OrderedDict()
        self._words = {
            _plain(one): kind for kind, id_ in _HEARD.items() for language in LANGUAGES for one in _ways(language, id_)
        }
        self._until = {
            _plain(when + between + away_): choice
            for language in LANGUAGES
            for choice in _CHOICES
            for when in _ways(language, _HEARD[choice])
            for between in _ways(language, "heard.until")
            for away_ in _ways(language, _HEARD["away"])
        }
        """「明日まで留守にします」: how it is said in one breath."""

    def __call__(self, connection: Connection, came: Came, now_us: int) -> After | None:
        """One event of LINE's. Kinds that we do not know change nothing."""
        event = came.body
        source, kind = event.get("source"), event.get("type")
        if not isinstance(source, dict):
            return None
        user = source.get("userId")
        if event.get("mode", "active") != "active":
            return None  # somebody else talks with them just now
        if source.get("type") != "user":
            return self._stranger(came, "ja", "contact.alone_please", now_us) if kind == "join" else None
        if not isinstance(user, str) or not _USER.fullmatch(user):
            return None
        who = _who(connection, user)
        if kind == "follow":
            return self._follows(connection, came, who, now_us)
        if kind == "unfollow":
            self._unfollows(connection, came, who, now_us)
        if kind == "postback":
            return self._presses(connection, came, who, now_us)
        message = event.get("message")
        if kind == "message" and isinstance(message, dict) and message.get("type") == "text":
            return self._writes(connection, came, who, user, _text_of(message), now_us)
        return None

    # --- what they do -------------------------------------------------------------------------------

    def _follows(self, connection: Connection, came: Came, who: _Who | None, now_us: int) -> After | None:
        if who is None:
            return self._stranger(came, "ja", "contact.greeting", now_us)
        if who.state == "unreachable":
            heard(connection, who.address, now_us)
        return self._helps(connection, came, who, now_us)

    def _unfollows(self, connection: Connection, came: Came, who: _Who | None, now_us: int) -> None:
        # Events may overtake each other: who was heard of since has come back.
        if who is not None and _at_us(came) >= who.heard_us:
            lost(connection, who.address, "unfollowed", now_us)

    def _presses(self, connection: Connection, came: Came, who: _Who | None, now_us: int) -> After | None:
        postback = came.body.get("postback")
        data = read_postback(_text_of(postback, "data")) if isinstance(postback, dict) else None
        if who is None:
            return self._stranger(came, "ja", "contact.help_stranger", now_us)
        if data is None or data[0] not in get_args(Answer):
            return self._helps(connection, came, who, now_us)
        answer: Answer = data[0]  # type: ignore[assignment]
        columns = select(
            notifications.c.id, notifications.c.contact, notifications.c.page, notifications.c.kind, notifications.c.body
        )
        row = connection.execute(columns.where(notifications.c.id == data[1])).first()
        heard(connection, who.address, now_us)
        if row is None:
            said = Words("", not_taken("unknown", who.language))
        elif row.contact != who.contact:
            said = Words("", not_taken("not_told", who.language))
        elif row.kind == "test" and row.page is None:
            proved = answered(connection, row.id, now_us)
            said = words(who.language, "contact.proved") if proved else Words("", acknowledged("seen", who.language))
        elif row.page is None:
            mark_seen(connection, row.id, now_us)
            said = Words("", acknowledged("seen", who.language) if answer == "seen" else not_taken("not_asked", who.language))
        else:
            result = self._answer_to(connection, row.id, answer, "line", now_us)
            said = Words("", _said_of(result, answer, who.language))
            if answer == "done" and isinstance(result, Answered):
                return self._says(connection, came, who, said, now_us, links=_record_of(read_message(row.id, row.body)))
        return self._says(connection, came, who, said, now_us)

    def _writes(self, connection: Connection, came: Came, who: _Who | None, user: str, said: str, now_us: int) -> After | None:
        code, name = _code_and_name(said)
        if code is not None:
            joined = self._joining.join(connection, code, "line", user, name, None, now_us)
            return self._joined(connection, came, who, user, joined, now_us)
        if who is None:
            return self._stranger(came, "ja", "contact.help_stranger", now_us)
        if who.state != "new":
            heard(connection, who.address, now_us)  # who writes follows us
        heard_words = {self._words.get(_plain(part)) for part in (said, *said.split())} - {None}
        if (by_then := self._until.get(_plain(said))) is not None:
            heard_words |= {"away", by_then}
        choice = next((one for one in _CHOICES if one in heard_words), None)
        if choice is not None and ("away" in heard_words or self._was_asked(who.contact, now_us)):
            # By when they wrote it: what reaches us a day later says 今日 of yesterday.
            until_us = until(choice, min(_at_us(came), now_us), self._zone)
            return self._goes_away(connection, came, who, until_us, now_us) if until_us > now_us else None
        if "away" in heard_words:
            self._asked[who.contact] = now_us
            self._asked.move_to_end(who.contact)
            if len(self._asked) > _MOST_ASKED:
                self._asked.popitem(last=False)
            quick = [[label, f"{_ways(who.language, 'heard.away')[0]} {label}"] for label in self._labels(who.language)]
            return self._says(connection, came, who, words(who.language, "contact.away_ask"), now_us, quick)
        if "back" in heard_words:
            was = back(connection, who.contact)
            return self._says(
                connection, came, who, words(who.language, "contact.back" if was else "contact.back_anyway"), now_us
            )
        if "login" in heard_words and who.state != "unreachable":
            return self._lets_in(connection, came, who, now_us)
        return self._helps(connection, came, who, now_us)

    def _lets_in(self, connection: Connection, came: Came, who: _Who, now_us: int) -> After | None:
        # Who has joined and not answered a test yet has shown by this that the account is theirs: LINE says who wrote.
        url = self._login_link(connection, who.contact, now_us)
        if url is None:
            return self._says(connection, came, who, words(who.language, "contact.login_none"), now_us)
        # LINE's own browser forgets cookies and has no passkeys; by this it opens the telephone's.
        link = Link(label=text(who.language, "link.login"), url=f"{url}?openExternalBrowser=1")
        return self._says(connection, came, who, words(who.language, "contact.login"), now_us, links=[link])

    def _goes_away(self, connection: Connection, came: Came, who: _Who, until_us: int, now_us: int) -> After | None:
        self._asked.pop(who.contact, None)
        noted = away(connection, self._book, who.contact, until_us, now_us)
        if noted.deputy is None or noted.deputy_name is None:
            self._tell_office(connection, came, who, until_us, now_us)
            said = words(who.language, "contact.away_nobody", zone=self._zone, until=until_us)
        else:
            said = words(who.language, "contact.away", zone=self._zone, until=until_us, deputy=[noted.deputy_name])
            deputy = self._book.person(connection, noted.deputy, now_us)
            if deputy is not None:
                asked = words(deputy.language, "contact.deputy", zone=self._zone, until=until_us, name=[who.name])
                self._tells(connection, came, deputy, asked, now_us)
        return self._says(connection, came, who, said, now_us)

    def _joined(
        self, connection: Connection, came: Came, who: _Who | None, user: str, joined: Joined | Refused, now_us: int
    ) -> After | None:
        if isinstance(joined, Refused):
            about = "contact.too_many" if joined.why == "limited" else "contact.code_wrong"
            if who is None:
                return self._stranger(came, "ja", about, now_us)
            return self._says(connection, came, who, words(who.language, about), now_us)
        known = _who(connection, user)
        if known is None:
            raise LookupError("who has just joined is not there")
        if joined.test is None:
            return self._says(connection, came, known, words(known.language, "contact.proved"), now_us)
        return self._says(connection, came, known, words(known.language, "contact.joined", group=joined.label), now_us)

    # --- what we say --------------------------------------------------------------------------------

    def _helps(self, connection: Connection, came: Came, who: _Who, now_us: int) -> After | None:
        links = self._help_links(who.contact, who.language, now_us)
        return self._says(connection, came, who, words(who.language, "contact.help"), now_us, links=links)

    def _says(
        self,
        connection: Connection,
        came: Came,
        who: _Who,
        said: Words,
        now_us: int,
        quick: list[list[str]] | None = None,
        links: Sequence[Link] = (),
    ) -> After | None:
        to = connection.scalar(select(addresses.c.address).where(addresses.c.id == who.address))
        person = Person(who.contact, who.name, who.language, (Address(who.address, "line", to or ""),))
        message = _message(came, who.language, said, quick).model_copy(update={"links": tuple(links)})
        queue(connection, person, message, now_us, by="line")
        return self._ring

    def _stranger(self, came: Came, language: Language, about: str, now_us: int) -> After | None:
        token, message = _token(came), _message(came, language, words(language, about))
        if token is None or now_us >= came.received_us + REPLY_WITHIN_US:
            return None
        return lambda: self._reply(token, message)

    def _tells(self, connection: Connection, came: Came, person: Person, said: Words, now_us: int) -> None:
        message = Message(
            id=str(uuid.uuid5(_IDS, f"{came.id}/{person.contact}")), kind="update", severity="info", language=person.language,
            title=said.title, body=said.body,
        )  # fmt: skip
        queue(connection, person, message, now_us, due_us=person.quiet_until_us)

    def _tell_office(self, connection: Connection, came: Came, who: _Who, until_us: int, now_us: int) -> None:
        for person in self._book.who(connection, self._office, now_us) if self._office else []:
            said = words(person.language, "contact.away_office", zone=self._zone, until=until_us, name=[who.name])
            self._tells(connection, came, person, said, now_us)

    def _was_asked(self, contact: str, now_us: int) -> bool:
        return now_us - self._asked.get(contact, -ASKED_US) < ASKED_US

    def _labels(self, language: Language) -> list[str]:
        return [_ways(language, _HEARD[choice])[0] for choice in _CHOICES]


def _who(connection: Connection, user: str) -> _Who | None:
    known = people.owner(connection, "line", user)
    if known is None:
        return None
    query = select(contacts.c.name, contacts.c.language, addresses.c.heard_us).join(
        addresses, addresses.c.contact == contacts.c.id
    )
    query = query.where(addresses.c.id == known.address, contacts.c.removed_us.is_(None))
    row = connection.execute(query).first()
    if row is None:
        return None
    language: Language = row.language if row.language in LANGUAGES else "ja"
    return _Who(known.contact, known.address, known.state, row.heard_us or 0, row.name, language)


def _message(came: Came, language: Language, said: Words, quick: list[list[str]] | None = None) -> Message:
    data: dict[str, Any] = {}
    token = _token(came)
    if token is not None:
        data |= {"reply_token": token, "reply_until_us": came.received_us + REPLY_WITHIN_US}
    if quick:
        data["quick"] = quick
    id_ = str(uuid.uuid5(_IDS, came.id))
    return Message(id=id_, kind="reply", severity="info", language=language, title=said.title, body=said.body, data=data)


def _token(came: Came) -> str | None:
    token = came.body.get("replyToken")
    return token if isinstance(token, str) and token.isascii() else None


def _text_of(part: Mapping[str, Any], field: str = "text") -> str:
    """What somebody wrote, without halves of signs, which no database takes."""
    return str(part.get(field, ""))[:_MOST_TEXT].encode("utf-8", "replace").decode()


def _said_of(result: Answered | NotTaken, answer: Answer, language: Language) -> str:
    """What is said back, and how things stand now: who goes, and how many more are needed."""
    now = result.now
    if isinstance(result, NotTaken):
        parts = [not_taken(result.reason, language)]
    else:
        parts = [acknowledged(answer, language, result.now.kind)]
    if now is not None and now.going and now.state != "closed":
        if answer != "done":  # who has been there is among them, and goes no more
            parts.append(text(language, "screen.goes", name=now.going))
        parts += [text(language, "screen.needed", needed=now.missing)] if now.missing else []
    return "\n".join(parts)


def _record_of(message: Message) -> list[Link]:
    """Where the visit is recorded that they speak of, as their message offers it."""
    return [link for link in message.links if link.label == text(message.language, "link.visit")]


def _at_us(came: Came) -> int:
    at = came.body.get("timestamp")
    return at * 1000 if isinstance(at, int) and 0 < at < 2**50 else came.received_us


def _ways(language: Language, id_: str) -> list[str]:
    return text(language, id_).split("|")


def _plain(said: str) -> str:
    """For comparing: full-width and half-width, capitals, blanks and full stops are all one."""
    return "".join(sign for sign in unicodedata.normalize("NFKC", said).casefold() if sign.isalnum())


def _code_and_name(said: str) -> tuple[str | None, str | None]:
    """A code, and the name that may stand behind it: ABCD-2345 田中."""
    if (code := read_code(said)) is not None:
        return code, None
    parts = said.split()
    for number in (2, 1):
        if len(parts) > number and (code := read_code(" ".join(parts[:number]))) is not None:
            return code, " ".join(parts[number:])
    return None, None
