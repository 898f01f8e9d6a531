"""A mail server on loopback, and the mailboxes behind it: what the town's own server does with a mail for somebody.

It is strict about what a mail must be (one From, Date, Message-ID, Subject; lines of 998 bytes; no bare line feeds) and dedupes
nothing: a server does not. A mail program shows a Message-ID once, so `seen` does. It can be told to misbehave, and it bounces.
"""

import asyncio
import email.policy
import html
import re
import ssl
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from email.header import decode_header, make_header
from email.message import EmailMessage
from email.parser import BytesParser
from typing import Any, cast
from urllib.parse import quote

from aiosmtpd.smtp import SMTP, AuthResult, Envelope, LoginPassword, Session

MOST_BYTES = 1024 * 1024
LONGEST_LINE = 998


def _in_a_tab(letter: str) -> str:
    """A letter whose links open beside the mail program, as mail programs do it: no page lets itself be shown within a letter."""
    return letter.replace("<body", '<head><base target="_blank"></head><body', 1)


@dataclass(frozen=True, slots=True)
class Mail:
    """One mail as it came in, whatever was answered."""

    at_us: int
    to: str
    sender: str
    """Of the envelope."""
    raw: bytes
    encrypted: bool
    login: str | None
    """Who it was taken from; None without AUTH."""
    taken: bool
    """Whether it lies in the mailbox: also when the sender was never told so."""

    @property
    def message(self) -> EmailMessage:
        """Parsed."""
        return BytesParser(policy=email.policy.default).parsebytes(self.raw)

    @property
    def id(self) -> str:
        """Its Message-ID."""
        return str(self.message["Message-ID"])

    @property
    def subject(self) -> str:
        """As people read it."""
        return str(make_header(decode_header(str(self.message["Subject"]))))

    def text(self, kind: str = "plain") -> str:
        """Its body in plain text, or as `html`."""
        part = self.message.get_body((kind,))
        return str(cast("EmailMessage", part).get_content()) if part else ""


class MailServer:
    """A context manager: on a free loopback port while open. All methods may be called from any thread.

    `tls`: offers STARTTLS, and takes nothing without it. `login`: the user name and password that it wants. Behaviours last until
    the next one is chosen; `take()` is the first.
    """

    def __init__(
        self,
        port: int = 0,
        *,
        tls: ssl.SSLContext | None = None,
        login: tuple[str, str] | None = None,
        now_us: Callable[[], int] = lambda: time.time_ns() // 1000,
    ) -> None:
        self._port, self._tls, self._login, self._now_us = port, tls, login, now_us
        self._changed = threading.Condition()
        self._mails: list[Mail] = []
        self._answers: dict[str, str] = {}
        self._delay: tuple[str, float] | None = None
        self._drops = False
        self._unknown: set[str] = set()
        self._full: set[str] = set()
        self._sessions: list[SMTP] = []
        self._loop = asyncio.new_event_loop()
        self._thread: threading.Thread | None = None
        self._server: asyncio.Server | None = None

    def __enter__(self) -> "MailServer":
        self._thread = threading.Thread(target=self._loop.run_forever, name="sim-mail", daemon=True)
        self._thread.start()
        self._listen()
        return self

    def __exit__(self, *_: object) -> None:
        self._hang_up()
        self._call(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        if self._thread is not None:
            self._thread.join()
        self._loop.close()

    @property
    def host(self) -> str:
        """Where it listens."""
        return "127.0.0.1"

    @property
    def port(self) -> int:
        """The same over `refuse`."""
        return self._port

    # --- behaviours ---------------------------------------------------------------------------------

    def take(self) -> None:
        """Takes everything that is right."""
        self._behave()

    def answer(self, step: str, text: str) -> None:
        """Answers so at `mail`, `rcpt` or `data`: "450 4.2.1 try again later"."""
        self._behave(answers={step: text})

    def slow(self, seconds: float, step: str = "data") -> None:
        """Answers only after so long at `mail`, `rcpt` or `data`; there the mail is taken before."""
        self._behave(delay=(step, seconds))

    def drop(self) -> None:
        """Takes the text, then closes the connection without a word."""
        self._behave(drops=True)

    def refuse(self) -> None:
        """Nobody listens on the port any more."""
        self._hang_up()

    def knows_not(self, to: str) -> None:
        """There is no such mailbox any more: 550 5.1.1."""
        with self._changed:
            self._unknown.add(to)

    def fill(self, to: str, *, full: bool = True) -> None:
        """Their mailbox holds no more: 552 5.2.2, for good. Not `full`: somebody has made room."""
        with self._changed:
            (self._full.add if full else self._full.discard)(to)

    def _behave(
        self, *, answers: dict[str, str] | None = None, delay: tuple[str, float] | None = None, drops: bool = False
    ) -> None:
        with self._changed:
            self._answers, self._delay, self._drops = answers or {}, delay, drops
        self._listen()

    # --- what it got --------------------------------------------------------------------------------

    @property
    def mails(self) -> tuple[Mail, ...]:
        """Every mail whose text came, in order."""
        with self._changed:
            return tuple(self._mails)

    def mailbox(self, to: str) -> list[Mail]:
        """What lies in somebody's mailbox, repetitions too."""
        return [one for one in self.mails if one.to == to and one.taken]

    def seen(self, to: str) -> list[Mail]:
        """What their mail program shows: each Message-ID once."""
        first: dict[str, Mail] = {}
        for one in self.mailbox(to):
            first.setdefault(one.id, one)
        return list(first.values())

    def wait_for(self, condition: Callable[[tuple[Mail, ...]], object], timeout_s: float = 10) -> tuple[Mail, ...]:
        """Waits until `condition(mails)` holds; TimeoutError with what did come."""
        with self._changed:
            if not self._changed.wait_for(lambda: condition(tuple(self._mails)), timeout_s):
                came = [(one.to, one.id, one.taken) for one in self._mails]
                raise TimeoutError(f"the mail server waited {timeout_s:g} s in vain; (to, Message-ID, taken) came: {came}")
            return tuple(self._mails)

    def bounce(self, mail: Mail, status: str = "5.1.1", action: str = "failed") -> bytes:
        """The mail by which another server says that it could not deliver this one (RFC 3464)."""
        head = mail.raw.replace(b"\r\n", b"\n").split(b"\n\n", 1)[0].decode("ascii")
        lines = [
            f"From: MAILER-DAEMON@{self.host}", f"To: {mail.sender}", "Subject: Undelivered Mail Returned to Sender",
            "Message-ID: <bounce-1@mx.example.jp>", "Auto-Submitted: auto-replied", "MIME-Version: 1.0",
            'Content-Type: multipart/report; report-type=delivery-status; boundary="x1"', "",
            "--x1", "Content-Type: text/plain", "", "This is the mail system. I'm sorry.", "",
            "--x1", "Content-Type: message/delivery-status", "",
            "Reporting-MTA: dns; mx.example.jp", "",
            f"Final-Recipient: rfc822; {mail.to}", f"Action: {action}", f"Status: {status}",
            f"Diagnostic-Code: smtp; 550 {status} no such user", "",
            "--x1", "Content-Type: text/rfc822-headers", "", *head.split("\n"), "", "--x1--", "",
        ]  # fmt: skip
        return "\n".join(lines).encode()

    def page(self, to: str) -> str:
        """The mail program's window as a page: buttons lead where they lead. Above them what fills the mailbox, or empties it."""
        to_do, words = ("room", "受信箱を空ける（模擬）") if to in self._full else ("full", "受信箱をいっぱいにする（模擬）")
        says = "<p><strong>受信箱がいっぱいです。新しいメールは届きません。</strong></p>" if to in self._full else ""
        shown = "".join(
            f"<article><b>{html.escape(one.subject)}</b><iframe sandbox='allow-popups allow-popups-to-escape-sandbox' "
            f'srcdoc="{html.escape(_in_a_tab(one.text("html")))}"></iframe></article>'
            for one in reversed(self.seen(to))
        )
        return (
            '<!doctype html><html lang="ja"><head><meta charset="utf-8"><meta http-equiv="refresh" content="10">'
            '<meta name="viewport" content="width=device-width,initial-scale=1"><title>メール（模擬）</title>'
            "<style>body{margin:0 auto;max-width:390px;font:17px/1.6 sans-serif;padding:12px;box-sizing:border-box}"
            "iframe{border:0;width:100%;height:300px}article{border-bottom:1px solid #ccc;padding:8px 0}"
            "button{font:inherit;min-height:44px;padding:0 16px}</style></head>"
            f"<body><h1 style='font-size:17px'>メール（模擬）</h1>{says}"
            f'<form method="post" action="/mail/{quote(to)}/{to_do}"><button>{words}</button></form>'
            f"{shown or '<p>まだ何も届いていません。</p>'}</body></html>"
        )

    # --- the server ---------------------------------------------------------------------------------

    def _listen(self) -> None:
        if self._server is None:
            self._server = self._call(self._open())
            self._port = int(self._server.sockets[0].getsockname()[1])

    def _hang_up(self) -> None:
        if self._server is not None:
            self._loop.call_soon_threadsafe(self._server.close)
            self._call(asyncio.sleep(0))
            self._server = None

    def _call(self, work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(10)

    async def _open(self) -> asyncio.Server:
        return await self._loop.create_server(self._session, self.host, self._port)

    async def _end_all(self) -> None:
        for session in self._sessions:
            if isinstance(session.transport, asyncio.Transport):
                session.transport.abort()
        others = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def _session(self) -> SMTP:
        session = SMTP(
            _Handler(self),
            data_size_limit=MOST_BYTES,
            hostname="mx.example.jp",
            loop=self._loop,
            tls_context=self._tls,
            require_starttls=self._tls is not None,
            authenticator=self._may_log_in if self._login else None,
            auth_required=self._login is not None,
            auth_require_tls=self._tls is not None,
            timeout=30,
        )
        self._sessions.append(session)
        return session

    def _may_log_in(self, _server: SMTP, _session: Session, _envelope: Envelope, _mechanism: str, data: Any) -> AuthResult:
        login = cast("tuple[str, str]", self._login)
        right = isinstance(data, LoginPassword) and (data.login, data.password) == tuple(one.encode() for one in login)
        return AuthResult(success=right, handled=False, auth_data=login[0] if right else None)


class _Handler:
    """aiosmtpd's hooks, by the names that it looks for."""

    def __init__(self, server: MailServer) -> None:
        self._of = server

    async def handle_MAIL(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if refused := await self._step("mail"):
            return refused
        envelope.mail_from = address
        envelope.mail_options.extend(options)
        return "250 2.1.0 OK"

    async def handle_RCPT(  # noqa: N802
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, _options: list[str]
    ) -> str:
        if refused := await self._step("rcpt"):
            return refused
        if address in self._of._unknown:
            return f"550 5.1.1 <{address}>: Recipient address rejected: User unknown"
        if address in self._of._full:
            return f"552 5.2.2 <{address}>: Mailbox full"
        envelope.rcpt_tos.append(address)
        return "250 2.1.5 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        of = self._of
        raw = envelope.original_content or b""
        refused = mail_fault(raw)
        answer = of._answers.get("data", "")
        taken = not refused and (not answer or answer.startswith("2"))
        with of._changed:
            for to in envelope.rcpt_tos:
                login = session.auth_data if session.authenticated else None
                of._mails.append(
                    Mail(of._now_us(), to, str(envelope.mail_from), raw, session.ssl is not None, login, bool(taken))
                )
            of._changed.notify_all()
        if refused:
            return f"554 5.6.0 {refused}"
        if of._drops:
            cast("asyncio.Transport", server.transport).abort()
            return ""
        return await self._step("data") or "250 2.0.0 queued as 4F2A"

    async def _step(self, step: str) -> str:
        of = self._of
        if of._delay and of._delay[0] == step:
            await asyncio.sleep(of._delay[1])
        return of._answers.get(step, "")


def mail_fault(raw: bytes) -> str:
    """What is wrong with a mail as it travels; empty where it is right."""
    if re.search(rb"(?<!\r)\n|\r(?!\n)", raw):
        return "bare line feeds"
    head, _, _ = raw.partition(b"\r\n\r\n")
    if any(len(line) > LONGEST_LINE for line in raw.split(b"\r\n")):
        return "a line of more than 998 bytes"
    if any(byte > 126 for byte in head):
        return "a header that is not ASCII"
    names = [line.partition(b":")[0].lower() for line in head.split(b"\r\n") if line[:1] not in (b" ", b"\t")]
    for needed in (b"from", b"to", b"date", b"message-id", b"subject"):
        if names.count(needed) != 1:
            return f"{names.count(needed)} headers {needed.decode()}"
    return ""
