"""Nobody is watched over without a word of theirs that holds; and nothing stands still that nobody was told of before."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, select, update

from gateway.mimamori import enrolment
from gateway.mimamori.config import MimamoriConfig
from gateway.mimamori.consent import Consents, Given, NoConsent, enter, mark_revoked, standing
from gateway.mimamori.enrolled import Enrolled
from gateway.state import tables
from tests.gateway.keeping.erased import looked_through
from tests.gateway.mimamori.searching import HANA, IDS, TAG, Searching, everything
from tests.gateway.paged import HOUR_US, ZONE

DAY_US = 24 * HOUR_US
CONFIG = MimamoriConfig.model_validate({"confirm_every": "182d", "confirm_grace": "60d"})
DAUGHTER = Given("representative", "はるか", "長女", "成年後見人（登記事項証明書）")


class Town(Searching):
    """With the chore that looks after consents."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.enrolled = Enrolled()
        self.consents = Consents(
            self.state, CONFIG, lambda: self.paging.notices, office="office", zone=ZONE, learn=self.learn,
        )  # fmt: skip
        self.now_us += 6 * HOUR_US  # by day
        self.told()

    def learn(self) -> None:
        with self.state.read() as connection:
            self.enrolled.read(connection)

    def agrees(self, given: Given = DAUGHTER) -> None:
        with self.state.write() as connection:
            self.consents.enter(connection, HANA, given, "tanaka", self.now_us)

    def lives(self, days: int, *, arrives: bool = True) -> dict[str, list[str]]:
        """Days pass, looked at thrice each; what was told, by name."""
        for _ in range(days * 3):
            self.now_us += DAY_US // 3
            self.consents.tick(self.now_us)
            if arrives:
                self.arrive()
        return self.told()

    def arrive(self) -> None:
        with self.state.write() as connection:
            connection.execute(
                update(tables.notifications)
                .where(tables.notifications.c.state == "queued")
                .values(state="sent", sent_us=self.now_us)
            )

    def state_now(self) -> str:
        with self.state.read() as connection:
            return standing(connection, HANA, self.now_us).state

    def says_yes(self, who: str = "haruka") -> None:
        with self.state.write() as connection:
            self.consents.confirm(connection, HANA, f"contact:{IDS[who]}", self.now_us)
        self.learn()


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Town]:
    made = Town(tmp_path)
    with made:
        yield made


# --- Entering -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "why"),
    [
        (Given("self", "  "), "who agreed"),
        (Given("representative", "はるか"), "relation"),
        (Given("representative", "はるか", "長女", ""), "right"),
        (Given("missing", "はるか"), "self"),
        (Given("self", "ハナ", given_us=10**18), "before now"),
    ],
)
def test_a_word_without_who_and_by_which_right_is_none(town: Town, given: Given, why: str) -> None:
    with town.state.write() as connection, pytest.raises(NoConsent, match=why):
        enrolment.add(connection, enrolment.Entry("トメさん", "family-hana", ["tsubaki/tags"]), given, "tanaka", town.now_us)
    assert [row["name"] for row in town.rows(tables.watched)] == ["ハナさん"]
    assert town.rows(tables.consents) == []


def test_no_tag_is_given_to_whom_nobody_has_spoken_for(town: Town) -> None:
    with town.state.write() as connection, pytest.raises(NoConsent, match="enter it first"):
        enrolment.give_tag(connection, HANA, "ibeacon:0f:1:3", "tanaka", town.now_us)
    town.agrees()
    with town.state.write() as connection:
        enrolment.give_tag(connection, HANA, "ibeacon:0f:1:3", "tanaka", town.now_us)
    assert len(town.rows(tables.tags)) == 2


def test_it_is_on_record_who_agreed_by_which_right_and_who_entered_it(town: Town) -> None:
    town.agrees()
    [row] = town.rows(tables.consents)
    assert (row["basis"], row["given_by"], row["relation"], row["entered_by"]) == ("representative", "はるか", "長女", "tanaka")
    assert "登記事項証明書" in row["entitled"]
    assert row["confirm_by_us"] == town.now_us + 182 * DAY_US
    assert "watched.consent" in [row["action"] for row in town.rows(tables.audit_details)]


# --- Half a year later ----------------------------------------------------------------------------------


def test_nobody_is_asked_before_its_time_and_then_once_a_week_by_day(town: Town) -> None:
    town.agrees()
    assert town.lives(181) == {}
    told = town.lives(21)
    assert set(told) == {"haruka", "minoru"}
    assert len(told["haruka"]) == 3
    asked = [row for row in town.ledger() if row["contact"] == IDS["haruka"]]
    hours = {(row["created_us"] // HOUR_US + 9) % 24 for row in asked}
    assert all(9 <= hour < 18 for hour in hours)


def test_the_question_brings_the_link_to_answer_it(town: Town) -> None:
    town.agrees()
    town.lives(183)
    assert [link.url.split("/")[3] for link in town.last("haruka").links] == ["c"]


def test_a_yes_is_a_new_word_and_the_others_hear_it(town: Town) -> None:
    town.agrees()
    town.lives(190)
    town.says_yes()
    told = town.told()
    assert list(told) == ["minoru"]
    assert "見守りを続けます" in told["minoru"][0]
    first, second = town.rows(tables.consents)
    assert (second["given_by"], second["entered_by"]) == ("はるか", f"contact:{IDS['haruka']}")
    assert second["confirm_by_us"] == town.now_us + 182 * DAY_US > first["confirm_by_us"]
    assert town.state_now() == "held"
    assert town.lives(181) == {}


def test_it_stands_still_only_after_everybody_was_told_the_day_and_it_came(town: Town) -> None:
    town.agrees()
    town.lives(182 + 59)
    assert (town.state_now(), town.enrolled.whose(TAG)) == ("due", HANA)
    told = town.lives(1)
    assert {"haruka", "minoru", "yakuba"} == set(told)
    assert "に止まります" in told["yakuba"][-1]
    assert "に止まります" in town.last("haruka").title
    assert town.state_now() == "ending"
    town.lives(13)
    assert town.enrolled.whose(TAG) == HANA
    told = town.lives(2)
    assert {name: len(titles) for name, titles in told.items()} == {"haruka": 1, "minoru": 1, "yakuba": 1}
    assert town.state_now() == "lapsed"
    assert (town.enrolled.whose(TAG), town.enrolled.heeded(HANA)) == (None, None)
    assert town.enrolled.of(HANA) is not None


def test_where_the_office_can_not_have_heard_of_it_nothing_stands_still(town: Town) -> None:
    town.agrees()
    town.lives(182 + 60 + 40, arrives=False)
    assert town.state_now() == "ending"
    assert town.enrolled.whose(TAG) == HANA


def test_a_late_yes_starts_it_again(town: Town) -> None:
    town.agrees()
    town.lives(182 + 60 + 20)
    assert town.enrolled.whose(TAG) is None
    town.says_yes()
    assert (town.state_now(), town.enrolled.whose(TAG)) == ("held", HANA)


@pytest.mark.parametrize("days", [0, 1])
def test_a_clock_that_leaps_ahead_asks_and_warns_nobody_before_it_has_stayed_there_for_a_day(town: Town, days: int) -> None:
    town.agrees()
    town.lives(1)
    town.now_us += 400 * DAY_US
    town.consents.tick(town.now_us)
    assert town.told() == {}
    if days == 0:  # it was wrong
        town.now_us -= 400 * DAY_US
        assert town.lives(3) == {}
        assert town.state_now() == "held"
    else:
        assert set(town.lives(2)) == {"haruka", "minoru", "yakuba"}
        assert town.state_now() == "ending"


# --- Who was there before consents were -----------------------------------------------------------------


def test_the_office_hears_once_of_all_who_lack_one_and_they_go_on(town: Town) -> None:
    with town.state.write() as connection:
        connection.execute(
            insert(tables.watched),
            {"id": "cd" * 8, "name": "トメさん", "family": "family-tome", "homes": json.dumps(["eki/tags"]), "created_us": 0,
             "created_by": "test"},
        )  # fmt: skip
    town.consents.tick(town.now_us)
    assert list(town.told()) == ["yakuba"]
    assert "2人" in town.last("yakuba").body
    assert "ハナさん" in town.last("yakuba").body
    assert "トメさん" in town.last("yakuba").body
    assert town.lives(59) == {}
    assert (town.state_now(), town.enrolled.whose(TAG)) == ("missing", HANA)
    town.lives(2)
    assert town.state_now() == "ending"
    town.agrees()
    assert town.state_now() == "held"


# --- Revoking -------------------------------------------------------------------------------------------


def test_revoked_it_leaves_nothing_of_them_and_family_and_office_hear_it(town: Town) -> None:
    town.agrees()
    town.heard("kominkan")
    town.remembers(seen_us=town.now_us, seen_at="kominkan/tags")
    town.misses()
    with town.state.write() as connection:
        connection.execute(insert(tables.rotating_tags), {"tag": TAG, "key": b"k" * 16, "exponent": 10, "zero_us": 0})
        connection.execute(insert(tables.labels), {"label": "ABCDEFGHJ", "tag": TAG, "made_us": 0, "made_by": "tanaka"})
    town.told()
    with town.state.write() as connection:
        town.consents.revoke(connection, HANA, f"contact:{IDS['haruka']}", town.now_us)
    town.learn()
    assert {name: len(titles) for name, titles in town.told().items()} == {"haruka": 1, "minoru": 1, "yakuba": 1}
    assert "ハナ" not in town.last("yakuba").title + town.last("yakuba").body
    left = everything(town)
    assert "ハナさん" not in left
    assert TAG not in left
    assert "kkkk" not in left
    assert [row["label"] for row in town.rows(tables.labels)] == ["ABCDEFGHJ"]
    assert town.enrolled.of(HANA) is None
    assert "watched.revoke" in [row["action"] for row in town.rows(tables.audit_details)]
    town.sent()
    town.paging.tick(town.now_us)
    assert [row["state"] for row in town.rows(tables.pages) if row["route"] == "consent"] == ["closed"]


def test_not_while_they_are_searched_for_and_it_is_said_how(town: Town) -> None:
    town.agrees()
    case = town.opened()
    for _ in range(2):
        with town.state.write() as connection, pytest.raises(NoConsent, match="end the search first"):
            town.consents.revoke(connection, HANA, "tanaka", town.now_us)
    assert town.state_now() == "held"
    town.does("found", case, "haruka")
    with town.state.write() as connection:
        town.consents.revoke(connection, HANA, "tanaka", town.now_us)
    assert town.rows(tables.watched) == []


def test_what_was_revoked_at_the_command_line_is_finished_by_the_gateway_that_runs(town: Town) -> None:
    town.agrees()
    with town.state.write() as connection:
        mark_revoked(connection, HANA, "cli:tanaka", town.now_us)
    town.learn()
    assert town.enrolled.whose(TAG) is None
    town.heard("kominkan")
    with looked_through() as behind:
        town.consents.tick(town.now_us)
    assert town.rows(tables.watched) == []
    assert set(behind) == {1}  # the largest table was gone through before alarms had to wait
    assert {"haruka", "minoru", "yakuba"} == set(town.told())


def test_two_who_answer_at_once_are_both_kept_and_the_clock_does_not_undo_them(town: Town) -> None:
    """A chore that read before the answer finds that it is answered."""
    town.agrees()
    town.lives(182 + 60 + 14)
    with town.state.read() as connection:
        row = connection.execute(select(tables.consents)).first()
    town.says_yes("haruka")
    town.says_yes("minoru")
    assert row is not None
    with town.state.write() as connection:
        assert town.consents._set(connection, row, lapsed_us=town.now_us) is False
    assert town.state_now() == "held"


def test_entering_refuses_a_day_that_is_yet_to_come(town: Town) -> None:
    given: Any = DAUGHTER._replace(given_us=town.now_us + 1)
    with town.state.write() as connection, pytest.raises(NoConsent):
        enter(connection, HANA, given, "tanaka", town.now_us, CONFIG)
