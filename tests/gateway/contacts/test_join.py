"""How people come in: by a code, each proving their own address."""

import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import insert

from gateway.contacts import people
from gateway.contacts.address import WrongAddress, clean_address, clean_name
from gateway.contacts.join import ALPHABET, BURST, Invitation, Joined, Open, Refused, open_invitations, read_code, shown
from gateway.state.tables import contacts, invitations, notifications, watched
from tests.gateway.contacts.conftest import DAY_US, Village

LINE = "U" + "1" * 32


def invite(village: Village, group: str = "farmers", **more: Any) -> Invitation:
    with village.open() as connection:
        return village.desk.joining.invite(connection, group, "tanaka", village.now_us, **more)


def join(
    village: Village, code: str, channel: Any = "line", to: str = LINE, name: str | None = "田中", language: Any = None
) -> Joined | Refused:
    with village.open() as connection:
        return village.desk.joining.join(connection, code, channel, to, name, language, village.now_us)


def joined(village: Village, code: str, *words: Any, **more: Any) -> Joined:
    outcome = join(village, code, *words, **more)
    assert isinstance(outcome, Joined), outcome
    return outcome


def test_who_sends_the_code_is_in_once_they_answered_the_test(village: Village) -> None:
    made = joined(village, invite(village).code)
    assert (made.name, made.group, made.label, made.again) == ("田中", "farmers", "北山のわな番", False)
    assert village.who("farmers") == [], "nothing is told to them before"
    (test,) = village.tests()
    assert (test["id"], test["contact"], test["channel"], test["due_us"]) == (made.test, made.contact, "line", village.now_us)
    village.answer(test)
    assert village.names("farmers") == ["田中"]


def test_a_code_is_without_look_alikes_and_its_hash_is_all_that_is_kept(village: Village) -> None:
    assert not set(ALPHABET) & set("01OILU")
    made = invite(village)
    assert len(made.code) == 8
    assert made.shown == f"{made.code[:4]}-{made.code[4:]}"
    assert made.url == f"https://gateway.example/join/{made.code}"
    with village.state.read() as connection:
        row = connection.execute(invitations.select()).one()
    assert made.code not in str(row)


@pytest.mark.parametrize(
    "typed", ["{0}{1}", "{0}-{1}", " {0} {1}\n", "{0}ー{1}", "{0}－{1}", "{0}‐{1}"]  # hyphens of many keyboards
)  # fmt: skip
def test_a_code_is_read_as_people_type_it(village: Village, typed: str) -> None:
    code = invite(village).code
    wide = "".join(chr(ord(letter) + 0xFEE0) for letter in code)
    for text in (code, code.lower(), wide):
        assert read_code(typed.format(text[:4], text[4:])) == code
    assert isinstance(join(village, typed.format(wide[:4], wide[4:])), Joined)


@pytest.mark.parametrize("text", ["", "留守にします", "ABCD", "ABCD-EFG0", "ABCDEFGHJ", "A" * 5000])
def test_what_is_no_code_is_none(text: str) -> None:
    assert read_code(text) is None


def test_one_line_user_in_two_groups_is_one_contact(village: Village) -> None:
    first = joined(village, invite(village, "farmers").code)
    village.answer(village.tests()[0])
    second = joined(village, invite(village, "hunters").code, name="別の名前", language="en")
    assert second.contact == first.contact
    assert (second.name, second.language) == ("田中", "ja"), "a code changes nothing of who is known"
    assert second.test is None, "proved already"
    assert village.names("farmers") == village.names("hunters") == ["田中"]
    with village.state.read() as connection:
        assert len(connection.execute(contacts.select()).all()) == 1


def test_who_joins_again_uses_up_nothing(village: Village) -> None:
    code = invite(village, uses=2).code
    joined(village, code)
    assert joined(village, code).again
    joined(village, code, to="U" + "2" * 32, name="鈴木")
    assert join(village, code, to="U" + "3" * 32) == Refused("over")


def test_who_comes_back_after_leaving_line_is_heard_of(village: Village) -> None:
    made = joined(village, invite(village).code)
    village.answer(village.tests()[0])
    village.lose(made.contact, "line")
    assert joined(village, invite(village).code).test is None
    assert village.names("farmers") == ["田中"]


def test_the_language_is_theirs_or_else_the_groups(village: Village) -> None:
    assert joined(village, invite(village, "hunters").code).language == "ja-easy"
    assert joined(village, invite(village, "hunters").code, to="U" + "2" * 32, language="en").language == "en"


def test_who_says_no_name_gets_the_expected_one_or_the_groups(village: Village) -> None:
    assert joined(village, invite(village, name="花子").code, name=None).name == "花子"
    assert joined(village, invite(village).code, to="U" + "2" * 32, name=None).name == "北山のわな番 2"


def test_a_code_ends(village: Village) -> None:
    made = invite(village, days=1)
    village.now_us += DAY_US - 1
    joined(village, made.code)
    village.now_us += 1
    assert join(village, made.code, to="U" + "2" * 32) == Refused("over")


def test_an_invitation_can_be_ended_and_is_listed_without_its_code(village: Village) -> None:
    made = invite(village, uses=5)
    with village.state.read() as connection:
        (row,) = open_invitations(connection, village.now_us)
    assert (row.id, row.group, row.uses_left, row.created_by) == (made.id, "farmers", 5, "tanaka")
    assert made.code not in str(row)
    with village.open() as connection:
        village.desk.joining.end(connection, made.id, village.now_us)
    assert join(village, made.code) == Refused("over")
    with village.open() as connection, pytest.raises(people.NotDone):
        village.desk.joining.end(connection, made.id, village.now_us)


@pytest.mark.parametrize(
    ("group", "more"),
    [
        ("farmer", {}),
        ("farmers", {"uses": 0}),
        ("farmers", {"days": 367}),
        ("farmers", {"name": "田中", "uses": 2}),
        ("farmers", {"name": "\u200b"}),
    ],
)
def test_an_invitation_that_cannot_be_is_refused(village: Village, group: str, more: dict[str, Any]) -> None:
    with pytest.raises(people.NotDone):
        invite(village, group, **more)


def test_a_family_is_a_group_that_no_configuration_names(village: Village) -> None:
    with village.open() as connection:
        connection.execute(
            insert(watched).values(id="0a1b", name="", family="family-0a1b", homes="[]", created_us=1, created_by="x")
        )
    made = joined(village, invite(village, "family-0a1b").code)
    village.answer(village.tests()[0])
    assert [person.contact for person in village.who("family-0a1b")] == [made.contact]


def test_wrong_codes_are_limited_for_who_guesses_and_for_nobody_else(village: Village) -> None:
    code = invite(village).code
    for _ in range(BURST):
        assert join(village, "22222222") == Refused("wrong_code")
    limited = join(village, code)
    assert isinstance(limited, Refused)
    assert limited.why == "limited"
    assert limited.wait_s
    joined(village, code, to="U" + "2" * 32, name="鈴木")
    village.now_us += limited.wait_s * 1_000_000
    assert join(village, code) == Refused("over"), "looked at again"


def test_guesses_on_the_page_are_limited_for_codes_that_begin_alike_and_keep_nobody_else_out(village: Village) -> None:
    """Visitors have nothing that tells them apart and costs something; a code has its beginning."""
    code = invite(village, uses=9).code
    for number in range(BURST):
        other = f"{'3' if code[0] == '2' else '2'}{code[1:]}"
        assert join(village, other, "mail", f"{number}@example.jp") == Refused("wrong_code")
    joined(village, code, "mail", "b@example.jp")
    for number in range(BURST):
        wrong = code[:2] + ("222222" if code[2:] != "222222" else "333333")
        assert join(village, wrong, "mail", f"{number}@example.jp") == Refused("wrong_code")
    assert isinstance(join(village, code, "mail", "a@example.jp"), Refused)
    with village.open() as connection:
        assert isinstance(village.desk.joining.opened(connection, code, village.now_us), Refused)
    joined(village, code)  # by LINE


def test_no_number_of_wrong_codes_makes_room_for_more(village: Village) -> None:
    """Each beginning has its own limit, and none is forgotten while somebody tries them all."""
    for first in ALPHABET:
        for second in ALPHABET:
            join(village, f"{first}{second}222222", "mail", "a@example.jp")
    for _ in range(BURST - 1):
        assert join(village, "22222222", "mail", "a@example.jp") == Refused("wrong_code")
    limited = join(village, "22222222", "mail", "a@example.jp")
    assert isinstance(limited, Refused)
    assert limited.why == "limited"


def test_a_strangers_telephone_does_not_ring_as_often_as_its_number_is_typed(village: Village) -> None:
    code = invite(village, uses=2).code
    for _ in range(30):
        joined(village, code, "voice", "050-0000-0001")
        village.now_us += 119 * 1_000_000
    assert len(village.tests()) == 1
    village.now_us += 3600 * 1_000_000
    joined(village, code, "voice", "050-0000-0001")
    assert len(village.tests()) == 2


def test_who_types_an_address_that_is_known_can_not_make_it_unreachable(village: Village) -> None:
    """Its owner hears once a day that they are in a group; they need not answer, and no test runs out."""
    owner = village.add("田中", "farmers", mail="tanaka@example.jp")
    before = len(village.tests())
    for group in ("hunters", "hunters", "farmers"):
        assert joined(village, invite(village, group).code, "mail", "tanaka@example.jp", name="誰か").contact == owner
    assert len(village.tests()) == before
    with village.state.read() as connection:
        told = [row for row in connection.execute(notifications.select()) if row.contact == owner and row.kind == "reply"]
    assert sorted("猟友会" in row.body for row in told) == [False, True]
    assert all("市役所に" in row.body for row in told), "what to do who did not ask for it"
    village.deliver()
    village.now_us += 4 * DAY_US
    village.desk.proof.run(village.now_us)
    assert village.address(owner, "mail").state == "proved"


def test_who_joins_for_their_browser_is_there_without_an_address(village: Village) -> None:
    code = invite(village).code
    with village.open() as connection:
        made = village.desk.joining.join_without(connection, code, "鈴木", None, village.now_us)
        again = village.desk.joining.join_without(connection, code, "鈴木", None, village.now_us)
        nameless = village.desk.joining.join_without(connection, invite_in(village, connection), " ", None, village.now_us)
    assert isinstance(made, Joined)
    assert (made.name, made.test) == ("鈴木", None)
    assert (again, nameless) == (Refused("over"), Refused("wrong_name"))
    assert village.who("farmers") == []


def invite_in(village: Village, connection: Any) -> str:
    code: str = village.desk.joining.invite(connection, "farmers", "tanaka", village.now_us).code
    return code


def test_the_page_is_told_what_the_code_is_for(village: Village) -> None:
    made = invite(village, "hunters", name="花子")
    with village.open() as connection:
        assert village.desk.joining.opened(connection, made.shown, village.now_us) == Open("hunters", "猟友会", "ja-easy", "花子")


def test_two_with_the_last_use_of_a_code_are_not_both_in(village: Village) -> None:
    code = invite(village).code
    outcomes: list[Joined | Refused] = []
    start = threading.Barrier(2)

    def come(to: str) -> None:
        start.wait()
        outcomes.append(join(village, code, to=to))

    both = [threading.Thread(target=come, args=("U" + digit * 32,)) for digit in "12"]
    for one in both:
        one.start()
    for one in both:
        one.join()
    assert sorted(type(one).__name__ for one in outcomes) == ["Joined", "Refused"]


@pytest.mark.parametrize(
    ("channel", "to", "name", "why"),
    [
        ("line", "U123", "田中", "wrong_address"),
        ("mail", "tanaka at example.jp", "田中", "wrong_address"),
        ("voice", "12", "田中", "wrong_address"),
        ("mail", "tanaka@example.jp", "\n\u200b", "wrong_name"),
        ("mail", "tanaka@example.jp", "長" * 41, "wrong_name"),
    ],
)
def test_what_is_refused_uses_up_nothing(village: Village, channel: Any, to: str, name: str, why: Any) -> None:
    code = invite(village).code
    assert join(village, code, channel, to, name) == Refused(why)
    with village.state.read() as connection:
        assert connection.execute(contacts.select()).all() == []
        assert open_invitations(connection, village.now_us)[0].uses_left == 1


# --- Addresses as people type them ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("channel", "typed", "kept"),
    [
        ("voice", "050-0000-0001", "+815000000001"),
        ("sms", "０５０ー００００ー０００１", "+815000000001"),
        ("voice", "(050) 0000.0001", "+815000000001"),
        ("voice", "+81 50 0000 0001", "+815000000001"),
        ("mail", " ｈａｎａｋｏ＠example.jp ", "hanako@example.jp"),
        ("push", '{"keys":{"p256dh":"x","auth":"y"},"endpoint":"https://push.example.jp/1","expirationTime":null}',
         '{"endpoint":"https://push.example.jp/1","keys":{"auth":"y","p256dh":"x"}}'),
    ],
)  # fmt: skip
def test_addresses_are_taken_as_people_type_them(channel: Any, typed: str, kept: str) -> None:
    assert clean_address(channel, typed, "81") == kept
    assert clean_address(channel, kept, "81") == kept


@pytest.mark.parametrize(
    ("channel", "typed"),
    [
        ("mail", "a@b"),
        ("mail", "a@example.jp\r\nBcc: b@example.jp"),
        ("mail", "a@example.jp, b@example.jp"),
        ("voice", "ring me"),
        ("voice", "0081500000001"),
        ("voice", "+8150000000012345678"),
        ("push", '{"endpoint":"http://push.example.jp/1","keys":{"p256dh":"x","auth":"y"}}'),
        ("push", '{"endpoint":"https://me@push.example.jp/1","keys":{"p256dh":"x","auth":"y"}}'),
        ("push", "[]"),
        ("push", "9" * 3001),
    ],
)
def test_what_leads_nowhere_is_refused_without_repeating_it(channel: Any, typed: str) -> None:
    with pytest.raises(WrongAddress) as refused:
        clean_address(channel, typed, "81")
    assert typed not in str(refused.value)


@given(channel=st.sampled_from(["line", "push", "mail", "sms", "voice"]), text=st.text(max_size=80))
@settings(max_examples=200, deadline=None)
def test_any_text_is_an_address_for_good_or_none(channel: Any, text: str) -> None:
    try:
        kept = clean_address(channel, text, "81")
    except WrongAddress:
        return
    assert clean_address(channel, kept, "81") == kept
    assert "\n" not in kept
    assert "\r" not in kept


@given(text=st.text(max_size=80))
def test_any_text_is_a_name_in_one_line_or_none(text: str) -> None:
    name = clean_name(text)
    if name is not None:
        assert name == clean_name(name)
        assert name.strip() == name
        assert len(name.splitlines()) == 1
        assert len(name) <= 40


@given(text=st.text(max_size=12) | st.text(ALPHABET, min_size=8, max_size=8))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
def test_no_made_up_code_comes_in(village: Village, text: str) -> None:
    invite(village)
    village.now_us += 5_000_000  # as often as one may be wrong
    assert join(village, text) == Refused("wrong_code")


def test_a_code_is_shown_in_groups_of_four() -> None:
    assert shown("ABCDEFGH") == "ABCD-EFGH"
