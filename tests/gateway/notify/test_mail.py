"""Mail, against a server that checks what a real one checks."""

import json
import os
import ssl
from collections.abc import Iterator
from email.header import decode_header, make_header
from email.parser import BytesHeaderParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlalchemy import insert, select

from gateway.errors import ConfigError
from gateway.notify.mail import Bounce, Bounces, Mail, MailConfig, compose, is_address, message_id, parse_bounce
from gateway.notify.message import Button, Link, Message
from gateway.notify.outcome import Delivered, Gone, Refused, Retry, Unknown
from gateway.state import State, open_state
from gateway.state.tables import addresses, contacts, notifications, pages
from simulators.mail_server import MailServer, mail_fault
from tests.edge.authority import Authority

NOW_US = 1_780_434_720_000_000  # 2026-06-02T21:12:00Z
ID = "6f0c1d3e-5a0e-5c3b-9c5d-2f6f5a746f6d"
PAGE = "0b5c1d3e-5a0e-5c3b-9c5d-2f6f5a746f00"
TO = "tanaka@example.jp"


def sprung(**changed: Any) -> Message:
    return Message(
        **{
            "id": ID,
            "page": PAGE,
            "severity": "critical",
            "title": "【わな作動】北尾根 3番",
            "body": "6月3日 午前6時12分。写真1枚。\nまだ誰も向かっていません。",
            "buttons": (Button(answer="going", label="行きます"), Button(answer="cannot", label="行けません")),
            "links": (Link(label="地図", url="https://maps.example.jp/3?a=1&b=2"),),
            "answer_url": "https://gateway.example.jp/a/abc",
            **changed,
        }
    )


def config(server: MailServer | None = None, **changed: Any) -> MailConfig:
    where = {"host": server.host, "port": server.port} if server else {"host": "mx.example.jp"}
    return MailConfig(**{**where, "tls": "none", "from": "satomori@town.example.jp", "timeout_s": 5, **changed})


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer(now_us=lambda: NOW_US) as opened:
        yield opened


def send(server: MailServer, message: Message | None = None, to: str = TO, **changed: Any) -> object:
    return Mail(config(server, **changed), lambda: NOW_US).send(ID, to, message or sprung())


def test_a_mail_says_what_happened_and_leads_to_the_page_to_answer(server: MailServer) -> None:
    assert isinstance(send(server), Delivered)
    (mail,) = server.seen(TO)
    assert mail.subject == "【わな作動】北尾根 3番"
    assert mail.sender == "satomori@town.example.jp"
    plain, marked_up = mail.text(), mail.text("html")
    assert "まだ誰も向かっていません。" in plain
    assert "〔行きます〕〔行けません〕" in plain
    assert "https://gateway.example.jp/a/abc" in plain
    assert marked_up.count('href="https://gateway.example.jp/a/abc"') == 2
    assert 'href="https://maps.example.jp/3?a=1&amp;b=2"' in marked_up
    assert 'lang="ja"' in marked_up


def test_headers_say_that_no_person_wrote_it_and_whom_to_answer(server: MailServer) -> None:
    send(server, reply_to="office@example.jp")
    (mail,) = server.seen(TO)
    headers = mail.message
    assert headers["Auto-Submitted"] == "auto-generated"
    assert headers["Reply-To"] == "office@example.jp"
    assert headers["From"] == "里守り <satomori@town.example.jp>"
    assert headers["Date"].startswith("Tue, 02 Jun 2026 21:12:00")
    assert headers["Importance"] == "high"
    assert headers["List-Unsubscribe"] is None
    assert headers["References"] == f"<{PAGE}@town.example.jp>"


def test_a_digest_says_how_to_get_no_more_of_them(server: MailServer) -> None:
    send(server, sprung(kind="digest", severity="info"))
    assert server.seen(TO)[0].message["List-Unsubscribe"] == "<mailto:satomori@town.example.jp?subject=unsubscribe>"


def test_a_repeated_attempt_has_the_same_message_id_so_a_mail_program_shows_one(server: MailServer) -> None:
    server.drop()
    assert isinstance(send(server), Unknown)
    server.take()
    assert isinstance(send(server), Delivered)
    assert len(server.mailbox(TO)) == 2
    assert [mail.id for mail in server.seen(TO)] == [f"<{ID}@town.example.jp>"]


@pytest.mark.parametrize("step", ["mail", "rcpt", "data"])
def test_a_server_that_says_later_is_asked_later(server: MailServer, step: str) -> None:
    server.answer(step, "450 4.2.1 try again later")
    assert send(server) == Retry("450 4.2.1 try again later")
    assert server.seen(TO) == []


def test_a_mailbox_that_is_not_there_leads_nowhere_and_its_name_is_not_repeated(server: MailServer) -> None:
    server.knows_not(TO)
    outcome = send(server)
    assert isinstance(outcome, Gone)
    assert TO not in outcome.reason
    assert "5.1.1" in outcome.reason


@pytest.mark.parametrize("step", ["rcpt", "data"])
def test_a_mail_that_is_refused_says_nothing_of_the_address(server: MailServer, step: str) -> None:
    server.answer(step, "550 5.7.1 message refused by policy")
    assert send(server) == Refused("550 5.7.1 message refused by policy")


def test_a_sender_that_is_refused_today_may_be_taken_tomorrow(server: MailServer) -> None:
    server.answer("mail", "550 5.7.1 you may not send from here")
    assert isinstance(send(server), Retry)


def test_a_server_out_of_reach_is_tried_again(server: MailServer) -> None:
    server.refuse()
    assert isinstance(send(server), Retry)
    server.take()
    assert isinstance(send(server), Delivered)


def test_a_slow_server_holds_a_thread_no_longer_than_the_timeout_and_only_after_the_text_it_is_unknown(
    server: MailServer,
) -> None:
    server.slow(30, "rcpt")
    assert isinstance(send(server, timeout_s=0.3), Retry)
    server.slow(30, "data")
    assert isinstance(send(server, timeout_s=0.3), Unknown)


def test_what_is_no_address_is_never_handed_to_the_server(server: MailServer) -> None:
    for to in ("tanaka", "a@b", "a@example.jp\r\nBcc: x@example.jp", "a b@example.jp", "<a@example.jp>", "田中@example.jp", ""):
        assert isinstance(send(server, to=to), Gone)
    assert server.mails == ()


# --- Encryption and password ------------------------------------------------------------------------


def encrypted(folder: Path) -> tuple[ssl.SSLContext, Path]:
    authority = Authority()
    certificate, key = authority.write_pair(folder, "localhost")
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context, authority.write(folder)


def test_starttls_and_the_password_before_the_mail(tmp_path: Path) -> None:
    context, ca_file = encrypted(tmp_path)
    (tmp_path / "password").write_text("geheim 1234\n")
    (tmp_path / "password").chmod(0o600)
    said: dict[str, Any] = {"tls": "starttls", "username": "satomori", "password_file": tmp_path / "password"}
    with MailServer(tls=context, login=("satomori", "geheim 1234")) as server:
        assert isinstance(send(server, **said, ca_file=ca_file), Delivered)
        (mail,) = server.seen(TO)
        assert (mail.encrypted, mail.login) == (True, "satomori")
        (tmp_path / "password").write_text("wrong")
        outcome = send(server, **said, ca_file=ca_file)
        assert isinstance(outcome, Retry)
        assert "check channel.mail.username and password_file" in outcome.reason


def test_a_server_that_nobody_vouches_for_gets_no_password_and_no_mail(tmp_path: Path) -> None:
    context, _ = encrypted(tmp_path)
    with MailServer(tls=context) as server:
        assert isinstance(send(server, tls="starttls"), Retry)
        assert server.mails == ()


def test_a_server_that_takes_the_encryption_away_gets_nothing(server: MailServer) -> None:
    assert isinstance(send(server, tls="starttls"), Retry)
    assert server.mails == ()


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"from": "satomori"}, "is no mail address"),
        ({"reply_to": "x@y\nBcc: z"}, "is no mail address"),
        ({"username": "satomori"}, "go together"),
        ({"username": "satomori", "password_file": "x", "tls": "none"}, "anybody on the way could read the password"),
        ({"from_name": "里守り\r\nBcc: x"}, "can't be shown"),
    ],
)
def test_settings_that_can_not_be_right_are_refused(changed: dict[str, Any], why: str) -> None:
    with pytest.raises(ValueError, match=why):
        config(**changed)


def test_a_password_that_can_not_be_read_names_its_setting(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"channel\.mail\.password_file: .* can't be read"):
        Mail(config(tls="tls", username="x", password_file=tmp_path / "none"), lambda: NOW_US)


# --- Whatever a message says ------------------------------------------------------------------------


@given(title=st.text(max_size=300), body=st.text(max_size=300), url=st.text(max_size=100), label=st.text(min_size=1, max_size=20))
@settings(max_examples=60, deadline=None)
def test_nothing_that_a_message_says_becomes_a_header_or_markup(title: str, body: str, url: str, label: str) -> None:
    message = sprung(title=title, body=body, answer_url=url, buttons=(Button(answer="going", label=label),), links=())
    raw = compose(ID, TO, message, config(), NOW_US).as_bytes()
    assert mail_fault(raw) == ""
    headers = BytesHeaderParser().parsebytes(raw)
    assert sorted(set(headers.keys())) == sorted(
        ("From", "To", "Subject", "Date", "Message-ID", "References", "Auto-Submitted", "X-Auto-Response-Suppress",
         "Content-Language", "Importance", "X-Priority", "MIME-Version", "Content-Type")
    )  # fmt: skip
    assert "\n" not in str(make_header(decode_header(headers["Subject"].replace("\r\n", ""))))


def test_markup_in_a_name_stays_text(server: MailServer) -> None:
    send(server, sprung(title='<img src="x">', body="<script>"))
    marked_up = server.seen(TO)[0].text("html")
    assert "<img" not in marked_up
    assert "<script" not in marked_up


def test_an_id_that_is_no_uuid_has_its_own_message_id_all_the_same() -> None:
    first, second = (message_id(one, config()) for one in ("n-1", "n-1>\r\nBcc: x"))
    assert first != second
    assert first == message_id("n-1", config())
    assert all(one.startswith("<") and one.endswith("@town.example.jp>") and len(one) == 50 for one in (first, second))


@given(st.text(max_size=80))
def test_no_text_that_could_end_a_line_is_an_address(text: str) -> None:
    assert not is_address(text) or (text.isascii() and text.isprintable() and text.count("@") == 1)


# --- Bounces ----------------------------------------------------------------------------------------


@pytest.fixture
def sent(server: MailServer, tmp_path: Path) -> Iterator[tuple[State, MailConfig]]:
    """A mail that was sent, its row, and a Maildir for what comes back."""
    for name in ("new", "cur", "tmp"):
        (tmp_path / "bounces" / name).mkdir(parents=True)
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    with state.write() as connection:
        connection.execute(insert(contacts).values(id="c1", name="田中", created_us=1, created_by="office"))
        connection.execute(
            insert(addresses).values(id="a1", contact="c1", channel="mail", address=TO, rank=0, state="proved", created_us=1)
        )
        connection.execute(
            insert(pages).values(
                id=PAGE, route="main", group_key="x", severity="critical", kind="trap", state="asking", needed=1, step=1,
                opened_us=1, changed=False, version=1,
            )
        )  # fmt: skip
        connection.execute(
            insert(notifications).values(
                id=ID, page=PAGE, kind="alert", contact="c1", address="a1", channel="mail", state="sent", severity_rank=0,
                body=sprung().model_dump_json(), created_us=1, due_us=1, attempts=1, sent_us=NOW_US,
            )
        )  # fmt: skip
    send(server)
    yield state, config(server, bounces=tmp_path / "bounces")
    state.close()


def bounced(sent: tuple[State, MailConfig], raw: bytes) -> tuple[list[tuple[str, str]], Any, bool]:
    """(addresses lost and why, the row, whether its page is looked at again) after this mail came back."""
    state, mail = sent
    assert mail.bounces is not None
    (mail.bounces / "new" / "1.mx").write_bytes(raw)
    lost: list[tuple[str, str]] = []
    chore = Bounces(mail, state, lambda _, address, why, now_us: lost.append((address, why)))
    for _ in range(2):
        chore.run(NOW_US)
    with state.read() as connection:
        row = connection.execute(select(notifications)).one()
        return lost, row, bool(connection.scalar(select(pages.c.changed)))


def test_a_bounce_of_a_mailbox_that_is_gone_loses_the_address_once_and_goes_on_to_the_next(
    server: MailServer, sent: tuple[State, MailConfig]
) -> None:
    lost, row, changed = bounced(sent, server.bounce(server.mails[0]))
    assert lost == [("a1", "bounced")]
    assert (row.state, row.error, changed) == ("queued", "bounced: 5.1.1", True)
    assert sent[1].bounces
    assert list((sent[1].bounces / "new").iterdir()) == list((sent[1].bounces / "cur").iterdir()) == []


def test_a_full_mailbox_is_told_but_is_still_an_address(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    lost, row, changed = bounced(sent, server.bounce(server.mails[0], status="5.2.2"))
    assert (lost, row.state, row.error, changed) == ([], "sent", "bounced: 5.2.2", True)


def test_a_mail_that_is_only_late_changes_nothing(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    lost, row, changed = bounced(sent, server.bounce(server.mails[0], status="4.4.1", action="delayed"))
    assert (lost, row.error, changed) == ([], None, False)


def test_what_is_no_mail_holds_up_none(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    assert sent[1].bounces
    (sent[1].bounces / "new" / "0").mkdir()
    os.mkfifo(sent[1].bounces / "new" / "00")
    lost, _, _ = bounced(sent, server.bounce(server.mails[0]))
    assert lost == [("a1", "bounced")]


def test_other_mail_is_left_as_read(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    lost, _, changed = bounced(sent, b"From: tanaka@example.jp\nSubject: thanks\n\nThank you.\n")
    assert (lost, changed) == ([], False)
    assert sent[1].bounces
    assert [path.name for path in (sent[1].bounces / "cur").iterdir()] == ["1.mx:2,S"]


def test_who_has_answered_has_it_whatever_a_bounce_says(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    state, _ = sent
    with state.write() as connection:
        connection.execute(notifications.update().values(state="answered"))
    lost, row, _ = bounced(sent, server.bounce(server.mails[0]))
    assert (lost, row.state) == ([], "answered")


def test_who_was_heard_since_is_there_whatever_a_bounce_says_now(server: MailServer, sent: tuple[State, MailConfig]) -> None:
    """It may be late, or forged by somebody who saw the mail's id."""
    state, _ = sent
    with state.write() as connection:
        connection.execute(addresses.update().values(heard_us=NOW_US + 1))
    lost, row, changed = bounced(sent, server.bounce(server.mails[0]))
    assert (lost, row.state, row.error, changed) == ([], "sent", "bounced: 5.1.1", True)


def test_it_says_that_nobody_reads_an_answer_by_mail_unless_somebody_does(server: MailServer) -> None:
    said = "このメールに返信しても、届きません。"
    for reply_to, expected in ((None, True), ("office@example.jp", False)):
        mail = compose(ID, TO, sprung(), config(server, reply_to=reply_to), NOW_US)
        parts = [part.get_content() for part in mail.walk() if not part.is_multipart()]
        assert len(parts) == 2
        assert all((said in part) == expected for part in parts)


def test_a_bounce_names_its_mail_and_how_final_it_is(server: MailServer) -> None:
    send(server)
    raw = server.bounce(server.mails[0], status="5.1.1")
    assert parse_bounce(raw, "town.example.jp") == Bounce(ID, "5.1.1")
    assert parse_bounce(raw, "other.example.jp") is None


@given(st.binary(max_size=400), st.integers(0, 1200), st.integers(0, 40))
@settings(max_examples=120, deadline=None)
def test_any_bytes_are_a_bounce_or_none(noise: bytes, at: int, cut: int) -> None:
    whole = _BOUNCE[:at] + noise + _BOUNCE[at + cut :]
    for raw in (noise, whole):
        found = parse_bounce(raw, "town.example.jp")
        assert found is None or (json.dumps(found) and found.status.startswith("5."))


_BOUNCE = b"\n".join(
    (
        b'Content-Type: multipart/report; report-type=delivery-status; boundary="x1"', b"", b"--x1",
        b"Content-Type: message/delivery-status", b"", b"Reporting-MTA: dns; mx", b"", b"Action: failed", b"Status: 5.1.1", b"",
        b"--x1", b"Content-Type: message/rfc822", b"", f"Message-ID: <{ID}@town.example.jp>".encode(), b"", b"x", b"--x1--",
    )
)  # fmt: skip


def test_the_whole_mail_may_come_back_too() -> None:
    assert parse_bounce(_BOUNCE, "town.example.jp") == Bounce(ID, "5.1.1")
