"""The simulated mail server: it takes what a real one takes, and shows what a mail program would."""

import smtplib
from collections.abc import Iterator

import pytest

from simulators.mail_server import MailServer, mail_fault

NOW_US = 1_780_434_720_000_000
RIGHT = "From: a@example.jp\r\nTo: b@example.jp\r\nDate: Tue, 02 Jun 2026 21:12:00 +0000\r\nMessage-ID: <1@example.jp>\r\n"
RIGHT += "Subject: =?utf-8?b?44KP44Gq?=\r\n\r\nhello\r\n"


@pytest.fixture
def server() -> Iterator[MailServer]:
    with MailServer(now_us=lambda: NOW_US) as opened:
        yield opened


def send(server: MailServer, text: str = RIGHT, to: str = "b@example.jp") -> None:
    with smtplib.SMTP(server.host, server.port, local_hostname="example.jp", timeout=10) as client:
        client.sendmail("a@example.jp", [to], text.encode())


def test_a_right_mail_lies_in_its_mailbox(server: MailServer) -> None:
    send(server)
    (mail,) = server.mailbox("b@example.jp")
    assert (mail.at_us, mail.subject, mail.id, mail.sender) == (NOW_US, "わな", "<1@example.jp>", "a@example.jp")
    assert server.mailbox("c@example.jp") == []
    assert "わな" in server.page("b@example.jp")


def test_the_server_keeps_repetitions_and_the_mail_program_shows_one(server: MailServer) -> None:
    for _ in range(2):
        send(server)
    assert (len(server.mailbox("b@example.jp")), len(server.seen("b@example.jp"))) == (2, 1)


@pytest.mark.parametrize(
    ("text", "why"),
    [
        (RIGHT.replace("Message-ID: <1@example.jp>\r\n", ""), "0 headers message-id"),
        ("Message-ID: <2@example.jp>\r\n" + RIGHT, "2 headers message-id"),
        (RIGHT.replace("Date", "X-Date"), "0 headers date"),
        (RIGHT + "x" * 999 + "\r\n", "a line of more than 998 bytes"),
        (RIGHT.replace("=?utf-8?b?44KP44Gq?=", "わな"), "a header that is not ASCII"),
    ],
)
def test_what_is_no_right_mail_is_refused(server: MailServer, text: str, why: str) -> None:
    assert mail_fault(text.encode()) == why
    with pytest.raises(smtplib.SMTPDataError, match=why):
        send(server, text)
    assert server.mailbox("b@example.jp") == []


def test_bare_line_feeds_are_a_fault() -> None:
    assert mail_fault(RIGHT.replace("\r\n", "\n").encode()) == "bare line feeds"


def test_a_mail_whose_answer_never_came_lies_in_the_mailbox(server: MailServer) -> None:
    server.drop()
    with pytest.raises(smtplib.SMTPServerDisconnected):
        send(server)
    assert len(server.mailbox("b@example.jp")) == 1


def test_a_mail_that_is_put_off_does_not_lie_there(server: MailServer) -> None:
    server.answer("data", "451 4.3.0 later")
    with pytest.raises(smtplib.SMTPDataError):
        send(server)
    assert server.mailbox("b@example.jp") == []
    assert [mail.taken for mail in server.mails] == [False]


def test_a_mailbox_that_is_gone_is_refused_before_the_text(server: MailServer) -> None:
    server.knows_not("b@example.jp")
    with pytest.raises(smtplib.SMTPRecipientsRefused):
        send(server)
    assert server.mails == ()


def test_it_comes_back_under_its_port(server: MailServer) -> None:
    port = server.port
    server.refuse()
    with pytest.raises(OSError, match="refused"):
        send(server)
    server.take()
    send(server)
    assert server.port == port


def test_waiting_in_vain_says_what_did_come(server: MailServer) -> None:
    send(server)
    with pytest.raises(TimeoutError, match=r"<1@example\.jp>"):
        server.wait_for(lambda mails: len(mails) > 1, timeout_s=0.01)
