"""Who is told: the members of a group who can be reached, or who stands in for them."""

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import event

from gateway.contacts import people, proof
from gateway.contacts.away import away, back, until
from gateway.contacts.book import unreachable
from gateway.contacts.config import QuietConfig
from gateway.contacts.person import Address, Person
from gateway.notify.message import Message
from gateway.notify.queue import queue
from gateway.state.tables import addresses, contacts, memberships, notifications
from tests.gateway.contacts.conftest import DAY_US, NOON_US, TOKYO, Village


def leave(village: Village, contact: str, deputy: str | None, until_us: int | None = None) -> str | None:
    """The name of who is told meanwhile."""
    with village.open() as connection:
        until_us = until_us or village.now_us + DAY_US
        return away(connection, village.desk.book, contact, until_us, village.now_us, deputy).deputy_name


def test_a_group_is_its_members_in_the_order_in_which_they_came(village: Village) -> None:
    for name in ("佐藤", "阿部", "鈴木"):
        village.add(name, "farmers", voice=f"+8150000000{len(name)}{ord(name[0]) % 90 + 10}")
    village.add("別の人", "hunters", mail="a@example.jp")
    assert village.names("farmers") == ["佐藤", "阿部", "鈴木"]


def test_addresses_are_tried_in_their_order_and_only_those_that_answered(village: Village) -> None:
    id_ = village.add("田中", "farmers", line="U" + "1" * 32, mail="tanaka@example.jp", voice="+815000000001")
    village.lose(id_, "line")
    with village.open() as connection:
        people.add_address(connection, id_, "sms", "+815000000001", village.now_us)  # never answered
    (person,) = village.who("farmers")
    assert [(way.channel, way.to) for way in person.addresses] == [("mail", "tanaka@example.jp"), ("voice", "+815000000001")]

    with village.state.read() as connection:
        tested = village.desk.book.person(connection, id_, village.now_us, testing=True)
    assert tested is not None
    assert [way.channel for way in tested.addresses] == ["mail", "voice", "sms"], "a test may go where nothing was proved"


def test_the_order_of_the_addresses_is_theirs_to_choose(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp", voice="+815000000001")
    order = [village.address(id_, "voice").id, village.address(id_, "mail").id]
    with village.open() as connection:
        people.prefer(connection, id_, order)
    assert [way.channel for way in village.who("farmers")[0].addresses] == ["voice", "mail"]
    with village.open() as connection, pytest.raises(people.NotDone):
        people.prefer(connection, id_, order[:1])


def test_who_cannot_be_reached_is_left_out_and_shown_to_the_office(village: Village) -> None:
    lost = village.add("田中", "farmers", "hunters", line="U" + "1" * 32)
    village.lose(lost, "line")
    never = village.add("鈴木", "farmers", proved=False, mail="suzuki@example.jp")
    village.add("佐藤", "farmers", mail="sato@example.jp")
    assert village.names("farmers") == ["佐藤"]
    with village.state.read() as connection:
        rows = unreachable(connection)
    assert [(row.contact, row.why, row.waiting) for row in rows] == [(lost, "unfollowed", False), (never, None, True)]
    assert rows[0].groups == ("farmers", "hunters")
    assert rows[0].since_us == village.address(lost, "line").heard_us


def test_by_one_channel_only_who_has_it_is_told(village: Village) -> None:
    village.add("田中", "farmers", line="U" + "1" * 32, voice="+815000000001")
    village.add("鈴木", "farmers", mail="suzuki@example.jp")
    assert [(p.name, [way.channel for way in p.addresses]) for p in village.who("farmers", by="voice")] == [("田中", ["voice"])]
    assert village.who("siren", by="voice") == []


def test_a_contact_of_the_configuration_is_one_person_with_its_own_channel(village: Village) -> None:
    assert village.who("siren") == [Person("siren", "siren", "ja", (Address(None, "webhook", ""),))]
    assert village.who("siren", by="webhook") == village.who("siren")
    assert village.who("nobody-of-that-name") == []


def test_a_group_that_is_not_configured_is_its_members(village: Village) -> None:
    id_ = village.add("花子", "family-0a1b", mail="hanako@example.jp")
    assert [person.contact for person in village.who("family-0a1b")] == [id_]


# --- Away -------------------------------------------------------------------------------------------


def test_who_is_away_is_replaced_by_their_deputy_until_they_are_back(village: Village) -> None:
    tanaka = village.add("田中", "farmers", mail="tanaka@example.jp")
    suzuki = village.add("鈴木", "hunters", mail="suzuki@example.jp")
    assert leave(village, tanaka, suzuki) == "鈴木"
    (person,) = village.who("farmers")
    assert (person.name, person.stands_in_for) == ("鈴木", tanaka)

    village.now_us += DAY_US - 1
    assert village.names("farmers") == ["鈴木"]
    village.now_us += 1
    assert village.names("farmers") == ["田中"], "the time is over"

    leave(village, tanaka, suzuki)
    with village.open() as connection:
        assert back(connection, tanaka)
        assert not back(connection, tanaka)
    assert village.names("farmers") == ["田中"], "they said that they are back"


def test_without_a_deputy_nobody_is_told_in_their_place_and_the_others_are(village: Village) -> None:
    tanaka = village.add("田中", "farmers", mail="tanaka@example.jp")
    village.add("佐藤", "farmers", mail="sato@example.jp")
    assert leave(village, tanaka, None) is None
    assert village.names("farmers") == ["佐藤"]


def test_a_deputy_who_is_away_hands_on_to_theirs(village: Village) -> None:
    a, b, c = (village.add(name, group, mail=f"{name}@example.jp") for name, group in (("a", "farmers"), ("b", "x"), ("c", "x")))
    leave(village, b, c)
    assert leave(village, a, b) == "c"
    (person,) = village.who("farmers")
    assert (person.name, person.stands_in_for) == ("c", a)


def test_deputies_in_a_circle_are_nobody(village: Village) -> None:
    a, b = (village.add(name, "farmers", mail=f"{name}@example.jp") for name in ("a", "b"))
    leave(village, a, b)
    assert leave(village, b, a) is None
    assert village.who("farmers") == []


def test_a_deputy_who_cannot_be_reached_or_was_removed_is_nobody(village: Village) -> None:
    a, b = village.add("a", "farmers", mail="a@example.jp"), village.add("b", "x", mail="b@example.jp")
    leave(village, a, b)
    village.lose(b, "mail", "bounced")
    assert village.who("farmers") == []
    with village.open() as connection:
        people.remove(connection, b, village.now_us)
    assert village.who("farmers") == []


@pytest.mark.parametrize("order", ["abc", "cab"])
def test_nobody_is_told_twice(village: Village, order: str) -> None:
    """The deputy c is in the group too, and stands in for a and b."""
    ids = {name: village.add(name, "farmers", mail=f"{name}@example.jp") for name in order}
    leave(village, ids["a"], ids["c"])
    leave(village, ids["b"], ids["c"])
    (person,) = village.who("farmers")
    assert (person.contact, person.stands_in_for) == (ids["c"], None), "told for themself"


def test_a_deputy_of_two_is_told_once_for_the_first(village: Village) -> None:
    c = village.add("c", "x", mail="c@example.jp")
    a, b = (village.add(name, "farmers", mail=f"{name}@example.jp") for name in "ab")
    leave(village, a, c)
    leave(village, b, c)
    assert [(person.contact, person.stands_in_for) for person in village.who("farmers")] == [(c, a)]


@pytest.mark.parametrize("until_us", [NOON_US - DAY_US, NOON_US + 400 * DAY_US])
def test_away_until_a_time_that_cannot_be_is_refused(village: Village, until_us: int) -> None:
    a = village.add("a", "farmers", mail="a@example.jp")
    with pytest.raises(people.NotDone, match="within a year"):
        leave(village, a, None, until_us)
    assert village.names("farmers") == ["a"]


def test_nobody_is_their_own_deputy_nor_is_somebody_unknown(village: Village) -> None:
    a = village.add("a", "farmers", mail="a@example.jp")
    for deputy in (a, "0" * 16):
        with pytest.raises(people.NotDone):
            leave(village, a, deputy)
    assert village.names("farmers") == ["a"]


def test_the_deputy_is_remembered_for_the_next_time(village: Village) -> None:
    a, b = village.add("a", "farmers", mail="a@example.jp"), village.add("b", "x", mail="b@example.jp")
    leave(village, a, b)
    with village.open() as connection:
        back(connection, a)
        noted = away(connection, village.desk.book, a, village.now_us + DAY_US, village.now_us)
    assert noted.deputy == b


def test_open_pages_that_asked_them_are_thought_over(village: Village) -> None:
    a, b = village.add("a", "farmers", mail="a@example.jp"), village.add("b", "farmers", mail="b@example.jp")
    village.page("p-a", a)
    village.page("p-b", b)
    village.page("p-closed", a, state="closed")
    leave(village, a, b)
    assert [village.is_changed(page) for page in ("p-a", "p-b", "p-closed")] == [True, False, False]


def test_today_tomorrow_and_a_week_end_at_midnight(village: Village) -> None:
    """Noon of 3 June."""
    ends = [(until(choice, NOON_US, TOKYO) - NOON_US) / 3600e6 for choice in ("today", "tomorrow", "week")]
    assert ends == [12, 36, 12 + 7 * 24]


# --- Quiet hours ------------------------------------------------------------------------------------


def test_the_quiet_hours_are_the_groups_unless_they_chose_their_own(village: Village) -> None:
    id_ = village.add("花子", "families", "farmers", mail="hanako@example.jp")
    village.now_us = NOON_US + 10 * 3600_000_000  # 22:00
    six = NOON_US + 18 * 3600_000_000
    assert village.who("families")[0].quiet_until_us == six
    assert village.who("farmers")[0].quiet_until_us is None, "the farmers have none"

    own = [QuietConfig.model_validate({"from": "21:30", "to": "07:00"})]
    with village.open() as connection:
        people.change(connection, id_, {"quiet": own})
    assert village.who("families")[0].quiet_until_us == six + 3600_000_000
    with village.open() as connection:
        people.change(connection, id_, {"quiet": []})
    assert village.who("families")[0].quiet_until_us is None, "they want none"
    with village.open() as connection:
        people.change(connection, id_, {"quiet": None})
    assert village.who("families")[0].quiet_until_us == six


# --- Removing ---------------------------------------------------------------------------------------


def test_who_is_removed_is_erased(village: Village) -> None:
    a, b = village.add("田中", "farmers", mail="tanaka@example.jp"), village.add("b", "farmers", mail="b@example.jp")
    leave(village, b, a)
    with village.open() as connection:
        village.desk.proof.test(connection, village.address(a, "mail").id, village.now_us + DAY_US)
        people.remove(connection, a, village.now_us)
    assert village.who("farmers") == []
    assert [test["state"] for test in village.tests()] == ["dropped"], "nothing goes to them any more"
    with village.state.read() as connection:
        assert village.desk.book.name_of(connection, a) == people.REMOVED
        everything = [row for table in (contacts, addresses, memberships) for row in connection.execute(table.select())]
    assert not any("田中" in str(row) or "tanaka@" in str(row) for row in everything)
    with village.open() as connection, pytest.raises(people.NotDone):
        people.remove(connection, a, village.now_us)


@pytest.mark.parametrize("name", ["田中", "森", 'O"Neill'])
def test_the_name_of_who_was_removed_stands_in_no_message_any_more(village: Village, name: str) -> None:
    a, b = village.add(name, "farmers", mail="tanaka@example.jp"), village.add("森川", "farmers", mail="b@example.jp")
    with village.open() as connection:
        for contact, body in ((a, "【わな作動】北尾根 森林公園"), (b, f"{name}さんが向かっています。森林公園")):
            person = village.desk.book.person(connection, contact, village.now_us)
            assert person is not None
            queue(connection, person, Message(id=f"m-{contact}", title="t", body=body), village.now_us)
        people.remove(connection, a, village.now_us)
    with village.state.read() as connection:
        rows = {row.contact: Message.model_validate_json(row.body) for row in connection.execute(notifications.select())}
    assert rows[a].body == "", "what they were told"
    assert rows[b].body == "—さんが向かっています。森林公園"


def test_what_a_browser_left_behind_makes_room_for_its_next_subscription(village: Village) -> None:
    a = village.add("田中", "farmers", mail="tanaka@example.jp")
    with village.open() as connection:
        for number in range(people.MOST_ADDRESSES - 1):
            people.add_address(connection, a, "push", f"old {number}", village.now_us + number)
        with pytest.raises(people.NotDone):
            people.add_address(connection, a, "push", "new", village.now_us)
        old = people.owner(connection, "push", "old 3")
        assert old is not None
        proof.lost(connection, old.address, "gone", village.now_us)
        people.add_address(connection, a, "push", "new", village.now_us)
        assert people.owner(connection, "push", "old 3") is None
        assert people.owner(connection, "mail", "tanaka@example.jp") is not None


@pytest.mark.sqlite_only("asks SQLite for its plan")
def test_whom_open_pages_asked_is_found_without_reading_the_whole_ledger(village: Village) -> None:
    """It is asked each time that somebody comes, goes or can't be reached."""
    asked: list[str] = []
    event.listen(village.state._engine, "before_cursor_execute", lambda *call: asked.append(call[2]))
    with village.open() as connection:
        people.look_again(connection, "x")
        (statement,) = [one for one in asked if one.startswith("UPDATE pages")]
        plan = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (1, "closed", "x", "x")).all()
    assert not any("SCAN notifications" in str(row) or "SCAN answers" in str(row) for row in plan), plan


people_away = st.dictionaries(st.integers(0, 4), st.none() | st.integers(0, 4), max_size=5)


@given(gone=people_away)
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_whoever_is_away_for_whomever_nobody_is_told_twice_and_nobody_away_is_told(
    village: Village, gone: dict[int, int | None]
) -> None:
    """Three of the five are in the group."""
    group = f"g-{village.now_us}"
    ids = [village.add(f"p{n}", group if n < 3 else "x", mail=f"{n}-{village.now_us}@example.jp") for n in range(5)]
    gone = {who: deputy for who, deputy in gone.items() if deputy != who}
    with village.open() as connection:
        for who, deputy in gone.items():
            until_us = village.now_us + DAY_US
            away(connection, village.desk.book, ids[who], until_us, village.now_us, None if deputy is None else ids[deputy])
    told = [ids.index(person.contact) for person in village.who(group)]
    assert len(told) == len(set(told))
    assert not set(told) & set(gone)
    assert set(told) >= {0, 1, 2} - set(gone)
    assert set(told) <= ({0, 1, 2} | {deputy for deputy in gone.values() if deputy is not None})
