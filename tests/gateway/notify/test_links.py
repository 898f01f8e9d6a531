"""Links without a login: short, ours only, for one purpose, and not for ever."""

import base64
import stat
from pathlib import Path
from uuid import uuid4

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import ConfigError
from gateway.notify.links import KEY_FILE, Expired, Forged, Links, open_link_key

NOW_US = 1_780_434_720_000_000
HOUR_US = 3_600_000_000
ID = "0d9c3b1e-5f2a-5c3b-9c5d-2f6f5a746f6d"
LINKS = Links("https://gateway.example", bytes(range(32)))


def token(links: Links = LINKS, id_: str = ID, expires_us: int = NOW_US + HOUR_US) -> str:
    return links.answer_url(id_, expires_us).rpartition("/")[2]


def test_a_link_says_which_message_it_is_about() -> None:
    assert LINKS.read(token(), NOW_US) == ID


def test_a_link_fits_a_short_message() -> None:
    url = LINKS.answer_url(ID, NOW_US)
    assert url.startswith("https://gateway.example/a/")
    assert len(url.removeprefix("https://gateway.example")) <= 80


def test_a_link_ends() -> None:
    assert LINKS.read(token(), NOW_US + HOUR_US - 1) == ID
    assert LINKS.read(token(), NOW_US + HOUR_US) == Expired(NOW_US + HOUR_US)


def test_the_link_of_another_gateway_is_none_of_ours() -> None:
    assert LINKS.read(token(Links("https://gateway.example", bytes(32))), NOW_US) == Forged()


def test_no_bit_of_a_link_can_be_changed() -> None:
    good = token()
    raw = base64.urlsafe_b64decode(good + "=")
    for at in range(len(raw) * 8):
        changed = bytearray(raw)
        changed[at // 8] ^= 1 << at % 8
        assert LINKS.read(base64.urlsafe_b64encode(bytes(changed)).rstrip(b"=").decode(), NOW_US) == Forged()


def test_a_link_is_written_in_one_way_only() -> None:
    """The spare bits of the last character, padding and the other alphabet open nothing."""
    good = token()
    alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_"
    opened = [good[:-1] + last for last in alphabet if LINKS.read(good[:-1] + last, NOW_US) == ID]
    assert opened == [good]
    for other in (good + "=", good + "\n", " " + good, good + "A", good[:-1], ""):
        assert LINKS.read(other, NOW_US) == Forged()


def test_a_link_for_one_purpose_opens_nothing_else() -> None:
    contact = "0123456789abcdef"
    subscription = LINKS.contact_token(contact, NOW_US + HOUR_US)
    assert LINKS.read_contact(subscription, NOW_US) == contact
    assert LINKS.read(subscription, NOW_US) == Forged()
    assert LINKS.read_contact(token(), NOW_US) == Forged()
    visit = LINKS.visit_url("kitayama-03", "trap-11").rpartition("/")[2]
    assert LINKS.read(visit, NOW_US) == LINKS.read_contact(visit, NOW_US) == Forged()
    assert not LINKS.is_visit("kitayama-03", "trap-11", subscription)


def test_a_printed_code_can_not_be_turned_into_a_link_that_answers() -> None:
    """Names of 18 letters in all are, with what is printed, as long as what an answer's link signs: a UUID and a time in 2027."""
    url = LINKS.visit_url("kitayama-03", "trap-j")
    mac = base64.urlsafe_b64decode(url.rpartition("/")[2])
    signed = b"kitayama-03/trap-j/1"
    assert len(signed) == 20
    assert LINKS.read(base64.urlsafe_b64encode(signed + mac).rstrip(b"=").decode(), NOW_US) == Forged()


def test_a_printed_code_is_good_for_its_own_device_until_another_is_printed() -> None:
    url = LINKS.visit_url("kitayama-03", "trap-11")
    assert url.startswith("https://gateway.example/v/kitayama-03/trap-11/")
    printed = url.rpartition("/")[2]
    assert LINKS.is_visit("kitayama-03", "trap-11", printed)
    assert not LINKS.is_visit("kitayama-03", "trap-12", printed)
    assert not LINKS.is_visit("kitayama-03", "trap-11", printed[:-1])
    assert not LINKS.is_visit("kitayama-03", "trap-11", "")
    assert not LINKS.is_visit("kitayama-03", "trap-11", printed, printed=2)
    assert LINKS.visit_url("kitayama-03", "trap-11", 2) != url


@given(st.text(max_size=60) | st.binary(max_size=40).map(lambda data: base64.urlsafe_b64encode(data).decode()))
def test_whatever_is_asked_for_opens_nothing(asked: str) -> None:
    assert LINKS.read(asked, NOW_US) == Forged()
    assert LINKS.read_contact(asked, NOW_US) == Forged()
    assert not LINKS.is_visit("kitayama-03", "trap-11", asked)


@given(st.uuids(), st.integers(0, 2**32 - 1))
def test_what_goes_in_comes_out(id_: object, expires_s: int) -> None:
    made = token(id_=str(id_), expires_us=expires_s * 1_000_000)
    assert LINKS.read(made, expires_s * 1_000_000 - 1) == str(id_)
    assert LINKS.read(made, expires_s * 1_000_000) == Expired(expires_s * 1_000_000)


def test_only_a_message_with_a_uuid_has_a_link() -> None:
    with pytest.raises(ValueError, match="hexadecimal"):
        LINKS.answer_url("n-1", NOW_US)


def test_the_key_is_made_once_and_is_nobody_elses_to_read(tmp_path: Path) -> None:
    folder = tmp_path / "people"
    key = open_link_key(folder)
    assert open_link_key(folder) == key
    assert stat.S_IMODE((folder / KEY_FILE).stat().st_mode) == 0o600
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert [file.name for file in folder.iterdir()] == [KEY_FILE]
    assert open_link_key(tmp_path / "other") != key


def test_a_damaged_key_is_named_and_never_replaced(tmp_path: Path) -> None:
    (tmp_path / KEY_FILE).write_bytes(b"short")
    (tmp_path / KEY_FILE).chmod(0o600)
    with pytest.raises(ConfigError, match=r"people\.folder: .*link\.key has 5 bytes, not 32"):
        open_link_key(tmp_path)
    assert (tmp_path / KEY_FILE).read_bytes() == b"short"


def test_links_of_before_a_restart_are_still_good(tmp_path: Path) -> None:
    id_ = str(uuid4())
    made = token(Links("https://gateway.example", open_link_key(tmp_path)), id_)
    assert Links("https://gateway.example", open_link_key(tmp_path)).read(made, NOW_US) == id_
