"""Whether a message would arrive: tests, what their silence means, and who hears of it."""

import json
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.contacts import people, proof
from gateway.contacts.office import Office
from gateway.state.tables import addresses, alerts, notifications
from tests.gateway.contacts.conftest import DAY_US, NOON_US, Village

LINE = "U" + "1" * 32


def look(village: Village, days: float = 0) -> None:
    """So many days later, at a look."""
    village.now_us += int(days * DAY_US)
    village.desk.proof.run(village.now_us)


def test_a_new_address_is_asked_and_used_once_it_answered(village: Village) -> None:
    village.add("田中", "farmers", proved=False, mail="tanaka@example.jp")
    look(village)
    (test,) = village.tests()
    assert (test["channel"], test["state"]) == ("mail", "queued")
    body = test["body"]
    assert body["title"] == "【連絡のテスト】"
    assert [(one["answer"], one["label"]) for one in body["buttons"]] == [("seen", "届きました")]
    assert body["answer_url"] == f"https://gateway.example/a/{test['id']}"
    assert body["severity"] == "info"
    assert village.who("farmers") == [], "not before"

    village.deliver()
    answered = village.answer(test)
    assert answered is not None
    assert answered.first
    assert village.names("farmers") == ["田中"]
    again = village.answer(test)
    assert again is not None
    assert not again.first, "pressed twice"
    assert village.tests()[0]["state"] == "answered"


def test_a_call_asks_for_a_key(village: Village) -> None:
    village.add("田中", "farmers", proved=False, voice="+815000000001")
    look(village)
    assert "1を押してください" in village.tests()[0]["body"]["spoken"]


def test_each_address_is_asked_anew_every_month(village: Village) -> None:
    village.add("田中", "farmers", mail="tanaka@example.jp")
    look(village, 29)
    assert village.tests() == []
    look(village, 1)
    (test,) = village.tests()
    assert test["body"]["title"] == "【定期のテスト】"
    assert "7月6日までに" in test["body"]["body"], "three days from 3 July"
    look(village)
    look(village, 1 / 24)
    assert len(village.tests()) == 1, "and once only"


def test_who_answers_alerts_need_not_be_tested(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp")
    village.now_us += 20 * DAY_US
    with village.open() as connection:
        assert proof.heard(connection, village.address(id_, "mail").id, village.now_us)
    look(village, 20)
    assert village.tests() == []


def test_nobody_is_woken_by_a_test(village: Village) -> None:
    """Noon is the fixture's; those that are due go out from nine to six."""
    village.add("田中", "farmers", mail="tanaka@example.jp")
    look(village, 30.5)
    assert village.tests() == [], "midnight"
    look(village, 8.9 / 24)
    assert village.tests() == []
    look(village, 0.2 / 24)
    assert len(village.tests()) == 1, "after nine"


def test_an_unanswered_test_makes_the_address_unreachable(village: Village) -> None:
    id_ = village.add("田中", "farmers", line=LINE, mail="tanaka@example.jp")
    look(village, 30)
    village.deliver()
    by_mail = next(test for test in village.tests() if test["channel"] == "mail")
    village.answer(by_mail)
    look(village, 2.9)
    assert village.address(id_, "line").state == "proved", "there is still time"
    look(village, 0.2)
    assert (village.address(id_, "line").state, village.address(id_, "line").why) == ("unreachable", "unanswered")
    assert [way.channel for way in village.who("farmers")[0].addresses] == ["mail"], "the other one is used"


def test_a_test_that_did_not_leave_us_is_not_their_silence(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp")
    look(village, 30)
    look(village, 10)
    assert village.address(id_, "mail").state == "proved", "the channel is down: queued for ten days"
    village.deliver()
    look(village, 2)
    assert village.address(id_, "mail").state == "proved", "their time begins with the sending"
    look(village, 2)
    assert village.address(id_, "mail").state == "unreachable"


def test_a_test_that_could_not_be_sent_is_tried_each_day_and_then_said(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp")
    days = [30, 1, 1, 1.01]
    for number, day in enumerate(days, 1):
        look(village, day)
        if number < len(days):
            assert len(village.tests()) == number
            assert village.address(id_, "mail").state == "proved"
        with village.open() as connection:
            connection.execute(update(notifications).values(state="dead"))
    assert (village.address(id_, "mail").state, village.address(id_, "mail").why) == ("unreachable", "undelivered")


def test_a_late_answer_revives(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp")
    look(village, 30)
    village.deliver()
    look(village, 4)
    assert village.who("farmers") == []
    village.answer(village.tests()[0])
    assert village.names("farmers") == ["田中"]
    assert village.address(id_, "mail").why is None
    look(village)
    assert village.names("farmers") == ["田中"]


@pytest.mark.parametrize("why", ["unfollowed", "bounced", "gone"])
def test_what_is_gone_is_unreachable_at_once_and_not_asked_again_until_it_speaks(village: Village, why: str) -> None:
    id_ = village.add("田中", "farmers", line=LINE)
    village.lose(id_, "line", why)
    assert village.who("farmers") == []
    look(village, 40)
    assert village.tests() == []
    with village.open() as connection:
        proof.heard(connection, village.address(id_, "line").id, village.now_us)  # a friend again
    assert village.names("farmers") == ["田中"]


def test_open_pages_that_asked_them_are_thought_over_at_once(village: Village) -> None:
    tanaka, suzuki = village.add("田中", "farmers", line=LINE), village.add("鈴木", "farmers", mail="s@example.jp")
    village.page("p-1", tanaka, suzuki)
    village.page("p-2", suzuki)
    village.page("p-3", tanaka, state="closed")
    village.lose(tanaka, "line")
    assert [village.is_changed(page) for page in ("p-1", "p-2", "p-3")] == [True, False, False]


def test_losing_it_twice_is_once(village: Village) -> None:
    id_ = village.address(village.add("田中", "farmers", line=LINE), "line").id
    with village.open() as connection:
        assert proof.lost(connection, id_, "unfollowed", village.now_us)
        assert not proof.lost(connection, id_, "bounced", village.now_us)
        assert not proof.lost(connection, "0" * 16, "gone", village.now_us)
        assert not proof.heard(connection, "0" * 16, village.now_us)
        assert proof.answered(connection, "no-such-notification", village.now_us) is None


def test_a_test_asked_for_twice_in_a_minute_is_one(village: Village) -> None:
    address = village.address(village.add("田中", "farmers", mail="t@example.jp"), "mail").id
    village.now_us += DAY_US
    with village.open() as connection:
        first = village.desk.proof.test(connection, address, village.now_us)
        assert village.desk.proof.test(connection, address, village.now_us + 59_000_000) == first
        assert village.desk.proof.test(connection, address, village.now_us + 61_000_000) != first
    assert len(village.tests()) == 2


def test_what_an_officer_enters_at_night_is_tested_in_the_morning(village: Village) -> None:
    id_ = village.add("花子", "families")
    village.now_us = NOON_US + 10 * 3_600_000_000  # 22:00
    with village.open() as connection:
        village.desk.add_address(connection, id_, "voice", "050-0000-0001", village.now_us)
    (test,) = village.tests()
    assert test["due_us"] == NOON_US + 18 * 3_600_000_000, "06:00"
    assert village.address(id_, "voice").address == "+815000000001"


def test_a_look_sends_only_so_many(village: Village) -> None:
    for number in range(proof.AT_ONCE + 3):
        village.add(f"p{number}", "farmers", mail=f"p{number}@example.jp")
    look(village, 31)
    assert len(village.tests()) == proof.AT_ONCE
    look(village)
    assert len(village.tests()) == proof.AT_ONCE + 3


def test_no_name_and_no_address_stands_in_the_log(village: Village, caplog: pytest.LogCaptureFixture) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp", line=LINE)
    with caplog.at_level("DEBUG"):
        village.lose(id_, "mail", "bounced")
        look(village, 31)
        with village.open() as connection:
            people.remove(connection, id_, village.now_us)
    assert caplog.records
    assert not any(word in caplog.text for word in ("田中", "tanaka@", LINE))


# --- The office -------------------------------------------------------------------------------------


class Said:
    """What the gateway was told of itself."""

    def __init__(self) -> None:
        self.parts: dict[str, tuple[str, Any, str]] = {}

    def __call__(self, part: str, level: str, reason: str = "", facts: Any = None, opening: str = "") -> None:
        self.parts[part] = (level, facts, opening)


def test_the_office_hears_of_who_cannot_be_reached_and_of_their_return(village: Village) -> None:
    said = Said()
    office = Office(village.state, said)
    id_ = village.add("田中", "farmers", line=LINE, mail="tanaka@example.jp")
    village.add("鈴木", "farmers", proved=False, mail="suzuki@example.jp")  # has not answered yet
    village.lose(id_, "line")
    look(village)
    office(village.told[-1], village.now_us)
    assert said.parts == {}, "one way is left, and the other's test is on its way"

    village.lose(id_, "mail", "bounced")
    look(village)
    office(village.told[-1], village.now_us)
    level, facts, opening = said.parts["contact"]
    assert (level, facts["why"], facts["contacts"]) == ("firing", "unfollowed", [id_])
    assert "田中" not in str(facts)
    look(village, 1)
    office(village.told[-1], village.now_us)
    assert said.parts["contact"][2] == opening, "one alert, however often it is said"

    with village.open() as connection:
        proof.heard(connection, village.address(id_, "mail").id, village.now_us)
    look(village)
    office(village.told[-1], village.now_us)
    assert said.parts["contact"][0] == "ok"


def test_thirty_who_leave_at_once_are_one_thing_to_know_and_one_more_is_another(village: Village) -> None:
    said = Said()
    office = Office(village.state, said)
    ids = [village.add(f"田中{n}", "farmers", line=f"U{n:032x}") for n in range(30)]
    for id_ in ids[:29]:
        village.lose(id_, "line")
    look(village)
    office(village.told[-1], village.now_us)
    assert list(said.parts) == ["contact"]
    _, facts, opening = said.parts["contact"]
    assert (facts["n"], set(facts["contacts"])) == (29, set(ids[:29]))

    with village.open() as connection:
        proof.heard(connection, village.address(ids[0], "line").id, village.now_us)
    look(village, 1)
    office(village.told[-1], village.now_us)
    level, facts, same = said.parts["contact"]
    assert (level, facts["n"], same) == ("firing", 28, opening), "that somebody came back wakes nobody"

    village.lose(ids[29], "line")
    look(village, 1)
    office(village.told[-1], village.now_us)
    _, facts, other = said.parts["contact"]
    assert (facts["n"], facts["contacts"][0]) == (29, ids[29]), "who is new is named first"
    assert other != opening


def test_who_was_said_before_a_start_is_not_said_again(village: Village) -> None:
    id_ = village.add("田中", "farmers", line=LINE)
    village.lose(id_, "line")
    look(village)
    with village.open() as connection:
        connection.execute(
            insert(alerts).values(
                id="a-1", rule="gateway", kind="gateway", severity="warning", node="gateway", device="contact", opening="17",
                state="acknowledged", since_us=1, late=False, summary="contact_unreachable", version=1,
                facts=json.dumps({"contacts": [id_]}),
            )
        )  # fmt: skip
    said = Said()
    office = Office(village.state, said)
    office(village.told[-1], village.now_us)
    assert said.parts["contact"][2] == "17"
    office([], village.now_us)
    assert said.parts["contact"][0] == "ok"


def test_who_came_back_while_the_gateway_was_down_is_well_again(village: Village) -> None:
    with village.open() as connection:
        connection.execute(
            insert(alerts).values(
                id="a-1", rule="gateway", kind="gateway", severity="warning", node="gateway", device="contact-0123456789abcdef",
                opening="1", state="firing", since_us=1, late=False, summary="contact_unreachable", version=1,
            )
        )  # fmt: skip
    said = Said()
    Office(village.state, said)([], village.now_us)
    assert said.parts["contact-0123456789abcdef"][0] == "ok"


def test_addresses_of_who_was_removed_are_not_tested(village: Village) -> None:
    id_ = village.add("田中", "farmers", mail="tanaka@example.jp")
    with village.open() as connection:
        people.remove(connection, id_, village.now_us)
        assert connection.execute(addresses.select()).all() == []
    look(village, 40)
    assert village.tests() == []
