"""The phones of a town's people, with the providers behind them: LINE, a mail server, Twilio; each on loopback, each strict.

People are told apart by their names; their addresses are invented here. What came is read as they would see it.
"""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import httpx
from sqlalchemy import Connection, update

from gateway.contacts import people, proof
from gateway.contacts.config import QuietConfig
from gateway.state.tables import addresses, contacts
from simulators.line import LinePlatform, Webhook, user_id
from simulators.mail_server import MailServer
from simulators.twilio import Call, TwilioService, read_twiml

ACCOUNT, CALLER = "AC" + "0" * 32, "+815000000000"
TOKEN = "auth-token-of-the-simulator"  # noqa: S105 - of an account that does not exist
CHANNELS = ("line", "mail", "sms", "voice")
_LINK = re.compile(r"https?://\S+")


class Someone(NamedTuple):
    """One person of the town."""

    name: str
    groups: tuple[str, ...] = ()
    channels: tuple[str, ...] = ("line",)
    """In the order in which they are tried: line, mail, sms, voice."""
    language: str = "ja"
    quiet: tuple[Mapping[str, Any], ...] | None = None
    """Quiet hours, as QuietConfig takes them; None: those of their groups."""
    deputy: str | None = None
    joined: bool = True
    """Whether they stand in the book with proved addresses; else they are still to come."""


class Got(NamedTuple):
    """One message as its person has it."""

    to: str
    channel: str
    title: str
    body: str


class Phones:
    """A context manager: everything listens while it is open. All methods may be called from any thread."""

    def __init__(
        self,
        everybody: Sequence[Someone],
        *,
        now_us: Callable[[], int],
        public_url: str,
        webhook: Webhook = None,
        gateway_url: str | None = None,
        client: httpx.Client | None = None,
        limit: int | None = None,
        ports: Mapping[str, int] | None = None,
    ) -> None:
        """`webhook` and `gateway_url` or `client`: the way back to the gateway. `limit`: messages that LINE takes this month.

        `ports`: by line, mail, twilio; absent: free ones.
        """
        ports = ports or {}
        self.everybody = tuple(everybody)
        self._number = {one.name: number for number, one in enumerate(self.everybody, 1)}
        self.line = LinePlatform(webhook, limit=limit, now_us=now_us, port=ports.get("line", 0))
        self.mail = MailServer(ports.get("mail", 0), now_us=now_us)
        self.twilio = TwilioService(
            ACCOUNT, TOKEN, [CALLER], public_url=public_url, gateway_url=gateway_url, client=client, now_us=now_us,
            port=ports.get("twilio", 0),
        )  # fmt: skip
        self._seen: dict[tuple[str, str], int] = {}
        self._open = ExitStack()

    def __enter__(self) -> "Phones":
        for one in (self.line, self.mail, self.twilio):
            self._open.enter_context(one)
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def address(self, name: str, channel: str) -> str:
        """Where this person is reached over line, mail, sms or voice."""
        if channel == "line":
            return user_id(name)
        number = self._number[name]
        return f"person-{number}@example.jp" if channel == "mail" else f"+8150{number:08}"

    def channel_settings(self, folder: Path) -> dict[str, Any]:
        """`[channel]` of a gateway.toml that leads here; secrets are written into `folder`."""
        folder.mkdir(parents=True, exist_ok=True)
        for name, secret in (("line-secret", self.line.secret), ("line-token", self.line.token), ("twilio-token", TOKEN)):
            (folder / name).touch(mode=0o600)
            (folder / name).write_text(secret, encoding="ascii")
        used = {channel for one in self.everybody for channel in one.channels}
        settings: dict[str, Any] = {}
        if "line" in used:
            settings["line"] = {"channel_secret_file": str(folder / "line-secret"), "url": self.line.url,
                                "access_token_file": str(folder / "line-token"), "timeout_s": 2.0}  # fmt: skip
        if "mail" in used:
            settings["mail"] = {"host": self.mail.host, "port": self.mail.port, "tls": "none", "from": "satomori@example.jp",
                                "timeout_s": 2.0}  # fmt: skip
        if used & {"sms", "voice"}:
            settings["twilio"] = {"account_sid": ACCOUNT, "auth_token_file": str(folder / "twilio-token"), "from": CALLER,
                                  "url": self.twilio.url, "timeout_s": 2.0}  # fmt: skip
        return settings

    def enrol(self, connection: Connection, now_us: int) -> None:
        """Puts everybody who has joined into the book, each address proved just now. They follow the LINE account."""
        ids: dict[str, str] = {}
        for number, one in enumerate(self.everybody):
            if not one.joined:
                continue
            language: Any = one.language
            ids[one.name] = id_ = people.add(connection, one.name, language, one.groups, "simulator", now_us + number)
            if one.quiet is not None:
                people.change(connection, id_, {"quiet": [QuietConfig.model_validate(hours) for hours in one.quiet]})
            for channel in one.channels:
                way: Any = channel
                address = people.add_address(connection, id_, way, self.address(one.name, channel), now_us)
                proof.heard(connection, address, now_us)
                # As after a test that was answered just now: nobody is tested in the next days.
                connection.execute(update(addresses).where(addresses.c.id == address).values(tested_us=now_us))
            if "line" in one.channels:
                self.line._user(one.name).follows = True
        for one in self.everybody:
            if one.deputy is not None:
                connection.execute(update(contacts).where(contacts.c.id == ids[one.name]).values(deputy=ids[one.deputy]))

    # What they have

    def news(self) -> Iterator[Got]:
        """What came since the last look, person by person."""
        for one in self.everybody:
            for channel in CHANNELS:
                all_of_it = list(self._got(one.name, channel))
                before = self._seen.get((one.name, channel), 0)
                self._seen[one.name, channel] = len(all_of_it)
                yield from all_of_it[before:]

    def _got(self, name: str, channel: str) -> Iterator[Got]:
        if channel == "line":
            for shown in self.line.phone(name).messages:
                yield Got(name, channel, shown.title, shown.body)
        elif channel == "mail":
            for mail in self.mail.seen(self.address(name, channel)):
                yield Got(name, channel, mail.subject, without_links(mail.text()))
        elif channel == "sms":
            for text in self.twilio.inbox(self.address(name, channel)):
                yield Got(name, channel, "", without_links(text))
        else:
            for call in self.twilio.rings(self.address(name, channel)):
                yield Got(name, channel, "", spoken(call))

    def count(self) -> dict[str, int]:
        """How many messages people have, by channel; those over which nothing came are left out."""
        found = {channel: sum(1 for one in self.everybody for _ in self._got(one.name, channel)) for channel in CHANNELS}
        return {channel: number for channel, number in found.items() if number}

    def call(self, name: str) -> Call:
        """The newest call to this person that is not over. LookupError when there is none."""
        for call in reversed(self.twilio.rings(self.address(name, "voice"))):
            if call.status in ("ringing", "in-progress"):
                return call
        raise LookupError(f"no telephone of {name} rings")

    def link(self, name: str) -> str:
        """The newest link by which this person can answer, in a mail or a short message. LookupError when there is none."""
        texts = [one.text() for one in self.mail.seen(self.address(name, "mail"))]
        texts += self.twilio.inbox(self.address(name, "sms"))
        for text in reversed(texts):
            for found in _LINK.findall(text):
                if "/a/" in found:
                    return str(found)
        raise LookupError(f"{name} has no link to answer by")

    def page(self, name: str, channel: str) -> str:
        """The address of the page that shows this phone; mail has none of its own."""
        if channel == "line":
            return f"{self.line.url}/phones/{user_id(name)}"
        return f"{self.twilio.url}/phones/{self.address(name, channel)}"


def without_links(text: str) -> str:
    """A text as far as its first link: links are another each time."""
    return re.split(r"\n*[^\n]*https?://", text, maxsplit=1)[0].strip()


def spoken(call: Call) -> str:
    """What a call says to who takes it."""
    return "".join(say.text or "" for verb in read_twiml(call.twiml) for say in verb.iter("Say"))
