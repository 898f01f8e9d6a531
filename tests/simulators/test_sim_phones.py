"""The phones of several people: who has what, over what it came, and the page that shows them side by side."""

from collections.abc import Iterator
from email.message import EmailMessage
from smtplib import SMTP, SMTPRecipientsRefused

import httpx
import pytest

from simulators.phones import Got, Phones, Someone, without_links

TANAKA, SATO = Someone("田中", ("farmers",)), Someone("佐藤", ("farmers",), ("mail", "voice"))
BEARER = {"Authorization": "Bearer access-token-of-the-simulator"}


@pytest.fixture
def phones() -> Iterator[Phones]:
    with Phones([TANAKA, SATO], now_us=lambda: 0, public_url="https://gateway.example.jp", desk_port=0) as phones:
        yield phones


def push(phones: Phones, text: str) -> None:
    body = {"to": phones.address("田中", "line"), "messages": [{"type": "text", "text": text}]}
    assert httpx.post(f"{phones.line.url}/v2/bot/message/push", json=body, headers=BEARER).status_code == 200


def mail(phones: Phones, subject: str, text: str) -> None:
    message = EmailMessage()
    message["From"], message["To"], message["Subject"] = "satomori@example.jp", phones.address("佐藤", "mail"), subject
    message["Date"], message["Message-ID"] = "Wed, 03 Jun 2026 06:12:00 +0900", "<1@example.jp>"
    message.set_content(text, cte="base64")
    with SMTP(phones.mail.host, phones.mail.port) as server:
        server.send_message(message)


def test_news_are_told_once_with_whom_and_over_what(phones: Phones) -> None:
    phones.line.follow("田中")
    push(phones, "わなが動きました")
    mail(phones, "わな", "わなが動きました。\n\n答える: https://gateway.example.jp/a/abc\n")
    assert list(phones.news()) == [
        Got("田中", "line", "", "わなが動きました"),
        Got("佐藤", "mail", "わな", "わなが動きました。"),
    ]
    assert list(phones.news()) == []
    assert phones.count() == {"line": 1, "mail": 1}


def test_who_has_blocked_the_account_has_nothing(phones: Phones) -> None:
    phones.line.follow("田中")
    phones.line.block("田中")
    push(phones, "わなが動きました")
    assert list(phones.news()) == []


def test_the_newest_link_is_the_one_that_answers(phones: Phones) -> None:
    with pytest.raises(LookupError, match="佐藤"):
        phones.link("佐藤")
    mail(phones, "わな", "見回り: https://gateway.example.jp/v/x\n答える: https://gateway.example.jp/a/abc\n")
    assert phones.link("佐藤") == "https://gateway.example.jp/a/abc"


def test_a_telephone_that_does_not_ring_can_not_be_answered(phones: Phones) -> None:
    with pytest.raises(LookupError, match="佐藤"):
        phones.call("佐藤")


def test_one_page_shows_every_phone_and_each_can_be_opened(phones: Phones) -> None:
    page = httpx.get(phones.url).text
    for one in (TANAKA, SATO):
        for channel in one.channels:
            address = phones.page(one.name, channel)
            assert f'src="{address}"' in page
            assert httpx.get(address).status_code == 200


def test_a_mailbox_is_filled_and_emptied_on_the_desks_own_page_and_on_no_other(phones: Phones) -> None:
    box, own = phones.page("佐藤", "mail"), {"Origin": phones.desk_url.rstrip("/")}
    assert httpx.post(f"{box}/full", headers={"Origin": "https://elsewhere.example"}).status_code == 403
    assert "受信箱がいっぱいです" in httpx.post(f"{box}/full", headers=own, follow_redirects=True).text
    with pytest.raises(SMTPRecipientsRefused, match=r"5\.2\.2"):
        mail(phones, "わな", "わなが動きました。")
    assert httpx.post(f"{box}/room", headers=own).status_code == 303
    mail(phones, "わな", "わなが動きました。")
    assert phones.count() == {"mail": 1}


def test_only_channels_that_somebody_has_are_configured(phones: Phones, tmp_path_factory: pytest.TempPathFactory) -> None:
    settings = phones.channel_settings(tmp_path_factory.mktemp("channels"))
    assert set(settings) == {"line", "mail", "twilio"}
    with Phones([TANAKA], now_us=lambda: 0, public_url="https://gateway.example.jp") as only_line:
        assert set(only_line.channel_settings(tmp_path_factory.mktemp("channels"))) == {"line"}


def test_a_text_is_shown_as_far_as_its_first_link() -> None:
    assert without_links("一行目\r\n\r\n答える https://example.jp/a\r\n後") == "一行目"
    assert without_links("リンクなし") == "リンクなし"
