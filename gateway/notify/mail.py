"""mail: a message as one mail over SMTP, in plain text and in simple HTML, with the page to answer as its buttons.

Its Message-ID is made of the notification's id, the same at every attempt: mail programs show one of an id, and a bounce names
it. A connection that is lost after the text was handed over leaves it open whether it arrived. Bounces (RFC 3464) that the town's
mail server delivers into a Maildir are read by `Bounces`. Nothing that a message says can become a header.
"""

import asyncio
import email.errors
import email.policy
import hashlib
import html
import logging
import re
import socket
import ssl
from collections.abc import Callable
from datetime import UTC, datetime
from email.headerregistry import Address
from email.message import EmailMessage
from email.message import Message as Part
from email.parser import BytesParser, Parser
from email.utils import format_datetime
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

import aiosmtplib
from aiosmtplib.errors import (
    SMTPAuthenticationError,
    SMTPConnectError,
    SMTPDataError,
    SMTPException,
    SMTPRecipientRefused,
    SMTPResponseException,
    SMTPServerDisconnected,
    SMTPTimeoutError,
)
from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator
from sqlalchemy import select

from gateway.errors import ConfigError
from gateway.notify.afterwards import Lost, not_arrived
from gateway.notify.message import Message
from gateway.notify.outcome import Delivered, Gone, Outcome, Refused, Retry, Unknown
from gateway.secret_files import read_secret_text
from gateway.state import State
from gateway.state.tables import notifications
from gateway.words import text

log = logging.getLogger(__name__)

MOST_BOUNCE_BYTES = 512 * 1024
MOST_BOUNCES = 200
"""Read in one round: the next round takes the rest."""

_REASON = 300
_ADDRESS = re.compile(r"[A-Za-z0-9.!#$%&'*+/=?^_`{|}~-]{1,64}@(?=.{1,253}$)[A-Za-z0-9-]{1,63}(\.[A-Za-z0-9-]{1,63})+")
_OUR_ID = re.compile(r"<([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}|[0-9a-f]{32})@([A-Za-z0-9.-]{1,253})>")
# Of the mailbox: unknown, moved, disabled. 5.1.7 and 5.1.8 are about the sender's.
_NO_SUCH_MAILBOX = re.compile(r"\b5\.(1\.(1|2|3|4|6|10)|2\.1)\b")
_GONE_STATUS = re.compile(r"5\.(1\.(1|2|3|4|6|10)|2\.1)")

_frozen = ConfigDict(extra="forbid", frozen=True, populate_by_name=True)


def is_address(text: str) -> bool:
    """Whether it is a mail address that every server takes: name@host.example, in ASCII."""
    return _ADDRESS.fullmatch(text) is not None


class MailConfig(BaseModel):
    """`[channel.mail]`: messages by mail, through the town's mail server."""

    model_config = _frozen

    host: str = Field(description="The mail server that takes mails for others from us.")
    port: Annotated[int, Field(ge=0, le=65535)] = Field(587, description="Its port: 587 with starttls, 465 with tls.")
    tls: Literal["starttls", "tls", "none"] = Field(
        "starttls", description="How the connection is encrypted: starttls, tls or none."
    )
    ca_file: Path | None = Field(None, description="Certificates of the server's authority; the system's when absent.")
    username: str | None = Field(None, description="User name, where the server wants one.")
    password_file: Path | None = Field(None, description="File that holds the password.")
    from_: str = Field(alias="from", description="The address that mails come from: satomori@example.jp")
    from_name: Annotated[str, Field(max_length=60)] = Field("里守り", description="The name beside it.")
    reply_to: str | None = Field(None, description="Where an answer by mail goes; absent: to `from`.")
    timeout_s: Annotated[float, Field(gt=0, le=60)] = Field(20, description="How long one attempt may take.")
    bounces: Path | None = Field(None, description="Maildir into which mails to `from` are delivered: bounces are read there.")

    @field_validator("from_", "reply_to")
    @classmethod
    def _is_address(cls, address: str | None) -> str | None:
        if address is not None and not is_address(address):
            raise ValueError(f"{address!r} is no mail address like office@example.jp")
        return address

    @model_validator(mode="after")
    def _passwords_stay_secret(self) -> "MailConfig":
        if (self.username is None) != (self.password_file is None):
            raise ValueError("username and password_file go together")
        if self.username is not None and self.tls == "none" and self.host not in ("127.0.0.1", "::1", "localhost"):
            raise ValueError("with tls = none anybody on the way could read the password: use starttls or tls")
        return self

    @field_validator("from_name")
    @classmethod
    def _is_one_line(cls, name: str) -> str:
        if not name.isprintable():
            raise ValueError("it has characters that can't be shown")
        return name


class Mail:
    """The channel `mail`."""

    knows_repetition = False

    def __init__(self, config: MailConfig, now_us: Callable[[], int]) -> None:
        """`now_us`: the clock of `Date`. ConfigError when a file it names can't be read."""
        self._config, self._now_us = config, now_us
        self._password = _password(config)
        self._tls = _tls(config)

    def send(self, id_: str, to: str, message: Message) -> Outcome:
        """One attempt, over a connection of its own."""
        if not is_address(to):
            return Gone("this is no mail address")
        content = compose(id_, to, message, self._config, self._now_us()).as_bytes(policy=email.policy.SMTP)
        try:
            # Our own socket, so that it is closed however the encryption of it fails.
            with socket.create_connection((self._config.host, self._config.port), self._config.timeout_s) as connection:
                connection.setblocking(False)
                return asyncio.run(self._hand_over(connection, to, content))
        except (OSError, ValueError, SMTPException) as error:  # before anything of the message was sent
            return Retry(_said(error))

    async def _hand_over(self, connection: socket.socket, to: str, content: bytes) -> Outcome:
        config = self._config
        client = aiosmtplib.SMTP(
            hostname=config.host,
            sock=connection,
            use_tls=config.tls == "tls",
            start_tls=config.tls == "starttls",
            tls_context=self._tls,
            timeout=config.timeout_s,
            local_hostname=config.from_.partition("@")[2],
        )
        try:
            return await self._attempt(client, to, content)
        finally:
            await _hang_up(client)

    async def _attempt(self, client: aiosmtplib.SMTP, to: str, content: bytes) -> Outcome:
        try:
            # One limit for all of it: each answer may take `timeout_s`, and a server that is slow at every step would take many.
            async with asyncio.timeout(self._config.timeout_s):
                refused = await self._open(client, to)
        except TimeoutError:
            return Retry(f"no answer in {self._config.timeout_s:g} s")
        if refused is not None:
            await _leave(client)
            return refused
        try:
            answer = await client.data(content)
        except SMTPDataError as error:
            await _leave(client)
            return _refusal(error.code, error.message)
        except (OSError, SMTPException) as error:
            return Unknown(f"the connection was lost after the text was handed over: {_said(error)}"[:_REASON])
        await _leave(client)
        return Delivered(answer.message[:200] or None)

    async def _open(self, client: aiosmtplib.SMTP, to: str) -> Outcome | None:
        """As far as the server takes sender and receiver; what it refused, or None."""
        try:
            await client.connect()
            if self._config.username is not None:
                await client.login(self._config.username, self._password)
            await client.mail(self._config.from_)
            await client.rcpt(to)
        except SMTPAuthenticationError as error:
            return Retry(f"{error.code} {error.message}: check channel.mail.username and password_file"[:_REASON])
        except SMTPRecipientRefused as error:
            if error.code >= 500 and _NO_SUCH_MAILBOX.search(error.message):
                return Gone(f"{error.code} {_without(to, error.message)}"[:_REASON])
            return _refusal(error.code, _without(to, error.message))
        except SMTPConnectError as error:
            return Retry(_said(error))
        except (SMTPServerDisconnected, SMTPTimeoutError) as error:
            return Retry(_said(error))
        except SMTPResponseException as error:
            # Of us, not of the receiver: what is refused today may be mended tomorrow, by the office or by the server's.
            return Retry(f"{error.code} {error.message}"[:_REASON])
        return None

    def close(self) -> None:
        """Each attempt has closed its own connection."""


async def _leave(client: aiosmtplib.SMTP) -> None:
    """QUIT, whatever comes of it: what was taken is taken."""
    try:
        await client.execute_command(b"QUIT", timeout=2)
    except (OSError, SMTPException):
        pass


async def _hang_up(client: aiosmtplib.SMTP) -> None:
    """At once: a farewell of the encryption that nobody answers would outlast the attempt."""
    if isinstance(client.transport, asyncio.Transport):
        client.transport.abort()
    client.close()
    await asyncio.sleep(0)  # in which the loop closes it


def _refusal(code: int, text: str) -> Outcome:
    reason = f"{code} {text}"[:_REASON]
    return Refused(reason) if code >= 500 else Retry(reason)


def _said(error: BaseException) -> str:
    text = str(error) or type(error).__name__
    return text[:_REASON]


def _without(to: str, text: str) -> str:
    """A server's answer without the address, which belongs into no log."""
    return re.sub(re.escape(to), "...", text, flags=re.IGNORECASE).replace("\n", " ")


def _password(config: MailConfig) -> str:
    if config.password_file is None:
        return ""
    return read_secret_text(config.password_file, "channel.mail.password_file").strip()


def _tls(config: MailConfig) -> ssl.SSLContext | None:
    if config.tls == "none":
        return None
    try:
        return ssl.create_default_context(cafile=config.ca_file)
    except OSError as error:
        raise ConfigError(f"channel.mail.ca_file: {config.ca_file} can't be read: {error}") from error


# --- The mail ---------------------------------------------------------------------------------------


def message_id(id_: str, config: MailConfig) -> str:
    """The same for the same notification for ever."""
    own = id_ if re.fullmatch(r"[0-9a-f-]{32,36}", id_) else hashlib.sha256(id_.encode()).hexdigest()[:32]
    return f"<{own}@{config.from_.partition('@')[2]}>"


def compose(id_: str, to: str, message: Message, config: MailConfig, now_us: int) -> EmailMessage:
    """The mail as it is sent. All that comes from outside goes through `_line`, so that it can't end a header."""
    mail = EmailMessage(policy=email.policy.SMTP)
    name, _, domain = config.from_.partition("@")
    mail["From"] = Address(config.from_name, name, domain)
    mail["To"] = to
    mail["Subject"] = _line(message.title)
    mail["Date"] = format_datetime(datetime.fromtimestamp(now_us / 1e6, UTC))
    mail["Message-ID"] = message_id(id_, config)
    if config.reply_to is not None:
        mail["Reply-To"] = config.reply_to
    if message.page is not None and message.page != id_:
        mail["References"] = message_id(message.page, config)  # so that mail programs show what belongs together, together
    mail["Auto-Submitted"] = "auto-generated"
    mail["X-Auto-Response-Suppress"] = "All"
    if message.severity == "critical":
        mail["Importance"] = "high"
        mail["X-Priority"] = "1"
    if message.kind == "digest":
        mail["List-Unsubscribe"] = f"<mailto:{config.reply_to or config.from_}?subject=unsubscribe>"
    # Who is used to mail answers by mail: nobody would read it in time.
    how = text(message.language, "mail.how") if message.buttons and message.answer_url and config.reply_to is None else ""
    mail.set_content(_plain(message, how), cte="base64")
    mail.add_alternative(_marked_up(message, how), subtype="html", cte="base64")
    mail["Content-Language"] = "en" if message.language == "en" else "ja"
    return mail


def _line(text: str) -> str:
    """One line without what can't be seen, in at most 200 characters."""
    kept = "".join(one if one.isprintable() else " " for one in text.encode(errors="replace").decode())
    return " ".join(kept.split())[:200] or "（件名なし）"


def _body(text: str) -> str:
    return "".join(one for one in text.encode(errors="replace").decode() if one.isprintable() or one in "\n\t")


def _plain(message: Message, how: str) -> str:
    parts = [_body(message.title), "", _body(message.body)]
    if message.answer_url:
        labels = "".join(f"〔{button.label}〕" for button in message.buttons)
        parts += ["", *([_body(labels)] if labels else []), _body(message.answer_url), *([how] if how else [])]
    parts += [f"{_body(link.label)}: {_body(link.url)}" for link in message.links]
    return "\n".join(parts) + "\n"


_COLOUR = {"critical": "#b3261e", "warning": "#8a5a00", "info": "#1f5fa8"}
_BUTTON = (
    "display:inline-block;padding:14px 20px;margin:0 8px 8px 0;border-radius:8px;background:#1f5fa8;color:#ffffff;"
    "text-decoration:none;font-weight:bold"
)


def _marked_up(message: Message, how: str) -> str:
    """Tables and scripts are not needed: one heading, the text, and links that look like buttons. Nothing is loaded."""
    title, body = html.escape(_body(message.title)), html.escape(_body(message.body)).replace("\n", "<br>")
    parts = [f'<h1 style="font-size:20px;color:{_COLOUR[message.severity]}">{title}</h1>', f"<p>{body}</p>"]
    if message.answer_url:
        url = html.escape(_body(message.answer_url))
        labels = [button.label for button in message.buttons] or [message.answer_url]
        parts.append(f"<p>{''.join(_linked(url, label, _BUTTON) for label in labels)}</p>")
        parts += [f"<p>{html.escape(how)}</p>"] if how else []
    parts += [f"<p>{_linked(html.escape(_body(link.url)), link.label)}</p>" for link in message.links]
    language = "en" if message.language == "en" else "ja"
    style = "font:17px/1.7 sans-serif;color:#1c1b1f;max-width:600px"
    return f'<!doctype html><html lang="{language}"><body style="{style}">{"".join(parts)}</body></html>'


def _linked(url: str, label: str, style: str = "") -> str:
    return f'<a style="{style}" href="{url}">{html.escape(_body(label))}</a>'


# --- Bounces ----------------------------------------------------------------------------------------


class Bounce(NamedTuple):
    """A mail of ours that did not arrive, as a mail server says."""

    id: str
    """The notification's."""
    status: str
    """RFC 3463: 5.1.1."""

    @property
    def gone(self) -> bool:
        """Whether it is the address that is wrong, and not the mail."""
        return _GONE_STATUS.fullmatch(self.status) is not None


def parse_bounce(raw: bytes, domain: str) -> Bounce | None:
    """A delivery status notification of a final failure, about a mail from `domain`; None for every other mail."""
    try:
        mail = BytesParser(policy=email.policy.compat32).parsebytes(raw)
        if mail.get_content_type() != "multipart/report" or not mail.is_multipart():
            return None
        parts = [part for part in mail.get_payload() if isinstance(part, Part)]
        status = next((found for part in parts if (found := _failed(part))), None)
        id_ = next((found for part in parts if (found := _original(part, domain))), None)
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError, email.errors.MessageError):
        return None
    return Bounce(id_, status) if status and id_ else None


def _failed(part: Part) -> str | None:
    """The status of the first receiver whom it finally did not reach."""
    if part.get_content_type() != "message/delivery-status" or not part.is_multipart():
        return None
    for fields in part.get_payload():
        if isinstance(fields, Part) and str(fields.get("Action", "")).strip().lower() == "failed":
            found = re.match(r"\s*(5\.\d{1,3}\.\d{1,3})\b", str(fields.get("Status", "")))
            if found:
                return found[1]
    return None


def _original(part: Part, domain: str) -> str | None:
    """The notification whose mail comes back in this part."""
    if part.get_content_type() == "message/rfc822" and part.is_multipart():
        inner = next(iter(part.get_payload()))
    elif part.get_content_type() in ("text/rfc822-headers", "message/rfc822-headers"):
        text = part.get_payload(decode=True)
        inner = Parser().parsestr(text.decode("ascii", "replace") if isinstance(text, bytes) else str(text), headersonly=True)
    else:
        return None
    found = _OUR_ID.search(str(inner.get("Message-ID", ""))) if isinstance(inner, Part) else None
    return found[1] if found and found[2].lower() == domain.lower() else None


class Bounces:
    """Reads the Maildir, as a chore."""

    def __init__(self, config: MailConfig, state: State, lost: Lost) -> None:
        self._folder, self._state, self._lost = config.bounces, state, lost
        self._domain = config.from_.partition("@")[2]

    def run(self, now_us: int) -> None:
        """Takes in what is new. A bounce is removed once it is written down; other mail is left, as read."""
        if self._folder is None:
            return
        new, read = self._folder / "new", self._folder / "cur"
        # Whatever else lies there (a folder, a pipe) must not hold up the mails behind it.
        for path in [path for path in sorted(new.iterdir()) if path.is_file()][:MOST_BOUNCES]:
            with path.open("rb") as file:
                bounce = parse_bounce(file.read(MOST_BOUNCE_BYTES), self._domain)
            if bounce is None:
                path.replace(read / f"{path.name.partition(':')[0]}:2,S")
                continue
            self._note(bounce, now_us)
            path.unlink()

    def _note(self, bounce: Bounce, now_us: int) -> None:
        with self._state.write() as connection:
            mine = select(notifications.c.id).where(notifications.c.id == bounce.id, notifications.c.channel == "mail")
            row = connection.execute(mine).first()
            if row is None:
                return
            lost = self._lost if bounce.gone else None
            not_arrived(connection, row.id, f"bounced: {bounce.status}", now_us, lost=lost, why="bounced")
