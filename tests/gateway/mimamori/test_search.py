"""The search: opened once with a reason, everybody told at once, kept going by people, ended by `found` or an officer only."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from gateway.mimamori.search import NoSearchError
from gateway.paging import Answered
from gateway.state import tables
from gateway.state.upsert import upsert
from tests.gateway.mimamori.searching import HANA, IDS, Searching
from tests.gateway.paged import HOUR_US, MINUTE_US, SECOND_US, asked


@pytest.fixture
def town(tmp_path: Path) -> Iterator[Searching]:
    with Searching(tmp_path) as made:
        yield made


# --- It begins ----------------------------------------------------------------------------------------


def test_family_presses_search_and_everybody_is_told_at_once(town: Searching) -> None:
    town.remembers(seen_us=town.now_us - 12 * MINUTE_US, seen_at="kominkan/tags")
    town.misses()
    town.tick()
    assert set(town.told()) == {"haruka", "minoru"}
    assert isinstance(town.says("haruka", "search", "watched"), Answered)
    assert set(town.told()) == {"haruka", "minoru", "yakuba", "ichi", "ni", "san"}
    assert town.last("ichi").title == "【捜索のお願い】ハナさんのタグ"
    assert "最後の確認は中央公民館 6月3日 午前6時0分です。今の場所ではありません。" in town.last("ichi").body
    assert (asked(town.last("minoru")), asked(town.last("ichi"))) == (["found", "search"], ["going", "cannot"])
    assert town.history() == [("haruka", "opened")]
    assert town.case()["reason"] == "left home"


def test_two_who_open_at_once_open_one(town: Searching) -> None:
    first, second = town.opened("haruka"), town.opened("minoru", "まだ帰らない")
    assert first == second
    assert len(town.rows(tables.search_cases)) == 1
    assert town.history() == [("haruka", "opened")]
    assert sorted(town.told()) == sorted(["haruka", "minoru", "yakuba", "ichi", "ni", "san"])
    town.does("found", first, "haruka")
    assert town.opened("minoru") != first  # and the next day it is another one


def test_the_database_itself_holds_no_second_open_one(town: Searching) -> None:
    town.opened()
    with town.state.write() as connection:
        row = town.case()
        done = connection.execute(upsert(tables.search_cases), {**row, "id": "other"})
        assert done.rowcount == 0


def test_without_a_reason_nobody_is_searched_for(town: Searching) -> None:
    with pytest.raises(NoSearchError, match="Say why"):
        town.opened(reason="  ")
    assert (town.rows(tables.search_cases), town.told()) == ([], {})


def test_who_is_neither_family_nor_office_opens_and_ends_nothing(town: Searching) -> None:
    case = town.opened()
    town.says("ichi", "found", "search_help")
    assert town.case()["state"] == "open"
    town.says("ichi", "going", "search_help")
    assert town.does("found", case, "minoru")


# --- Whom it reached ----------------------------------------------------------------------------------


def test_what_is_queued_has_reached_nobody_and_what_failed_is_not_hidden(town: Searching) -> None:
    town.reachable(IDS["san"])
    town.opened()
    with town.state.read() as connection:
        assert town.search.reached(connection, town.search.case(connection, town.case()["id"])) == (0, 1, 0, 3)
    town.sent()
    town.wait(MINUTE_US)
    assert town.last("haruka").body == "捜索を開始しました。市 1/1、協力者 2/3人に届きました。危険なときは110番へ。"
    before = len(town.ledger())
    town.wait(5 * MINUTE_US)
    assert len(town.ledger()) == before


# --- What is seen -------------------------------------------------------------------------------------


def test_each_new_place_is_told_to_family_and_office_and_not_to_the_helpers(town: Searching) -> None:
    town.heard("eki")  # before it was opened
    town.opened()
    town.told()
    town.heard("kominkan", ago_us=2 * MINUTE_US)
    town.heard("eki", tag="ibeacon:0f:9:9")  # somebody else's
    town.tick()
    assert set(town.told()) == {"haruka", "minoru", "yakuba"}
    said = "ハナさんのタグが 中央公民館の近くで確認されました（午前6時10分・2分前）。今の場所ではありません。"
    assert town.last("yakuba").body == said


def test_the_same_place_is_said_once_and_places_at_most_every_few_minutes(town: Searching) -> None:
    town.opened()
    town.wait(2 * MINUTE_US)
    town.told()
    for node, seconds, people in (("eki", 5, 3), ("eki", 30, 0), ("kominkan", 60, 0), ("kominkan", 120, 3), ("eki", 200, 3)):
        town.heard(node, type_="tag_seen")
        town.now_us += seconds * SECOND_US
        town.tick()
        assert len(town.told()) == people, (node, seconds)


# --- It goes on ---------------------------------------------------------------------------------------


def test_it_is_widened_step_by_step(town: Searching) -> None:
    town.opened()
    town.wait(29 * MINUTE_US)
    assert "yon" not in town.told()
    town.wait(MINUTE_US)
    told = town.told()
    assert told == {name: ["【捜索のお願い】ハナさんのタグ"] for name in ("yon", "go")} | {
        name: ["【捜索】ハナさんのタグ"] for name in ("haruka", "minoru", "yakuba")
    }
    assert "となり町に広げました" in town.last("haruka").body
    town.wait(20 * MINUTE_US)
    assert "yon" not in town.told()


def test_not_renewed_it_pauses_and_family_and_office_are_asked(town: Searching) -> None:
    town.opened()
    town.wait(105 * MINUTE_US, MINUTE_US)
    town.told()
    town.now_us += SECOND_US
    assert "捜索を始めて105分たちました" in town.last("haruka").body
    assert ("続けます", "search") in [(one.label, one.answer) for one in town.last("haruka").buttons]
    town.wait(15 * MINUTE_US)
    assert town.case()["state"] == "paused"
    assert set(town.told()) == {"haruka", "minoru", "yakuba", "ichi", "ni", "san", "yon", "go"}
    assert "捜索は終わっていません。" in town.last("yakuba").body
    assert (town.last("ichi").body, asked(town.last("ichi"))) == (
        "捜索は一時停止中です。続けるときは、もう一度お知らせします。",
        [],
    )
    assert town.history()[-2:] == [("time", "asked"), ("time", "paused")]


def test_the_same_hand_can_renew_it_again_and_again(town: Searching) -> None:
    town.opened()
    for _ in range(3):
        town.wait(110 * MINUTE_US, 5 * MINUTE_US)
        assert isinstance(town.says("haruka", "search", "search"), Answered)
    assert town.case()["state"] == "open"
    assert town.history().count(("haruka", "renewed")) == 3
    town.wait(2 * HOUR_US, 5 * MINUTE_US)
    assert town.case()["state"] == "paused"
    town.told()
    town.says("haruka", "search", "search")
    assert town.case()["state"] == "open"
    assert "ichi" in town.told()
    assert "捜索を続けることになりました" in town.last("ichi").body


def test_two_who_renew_at_once_renew_once(town: Searching) -> None:
    case = town.opened()
    town.now_us += MINUTE_US
    with town.state.write() as connection:
        row = town.search.case(connection, case)
        assert town.search._set(connection, row, renewed_us=town.now_us)
        assert not town.search._set(connection, row, renewed_us=town.now_us + 1)


def test_after_a_restart_it_goes_on_where_it_was(town: Searching) -> None:
    town.opened()
    town.wait(20 * MINUTE_US)
    town.told()
    town.restart()
    town.wait(10 * MINUTE_US)
    assert set(town.told()) == {"yon", "go", "haruka", "minoru", "yakuba"}


# --- It ends ------------------------------------------------------------------------------------------


def test_found_is_told_to_everybody_who_was_told_and_ends_the_alert(town: Searching) -> None:
    alert = town.misses()
    town.tick()
    town.says("haruka", "search", "watched")
    town.wait(31 * MINUTE_US)
    town.told()
    town.says("minoru", "found", "search")
    town.tick()
    told = town.told()
    assert set(told) >= {"haruka", "yakuba", "ichi", "ni", "san", "yon", "go"}
    assert told["ichi"] == ["【見つかりました】ハナさんのタグ"]
    assert (town.case()["state"], town.case()["ended_by"]) == ("found", IDS["minoru"])
    assert (town.alert(alert).state, town.alert(alert).acknowledged_by) == ("resolved", None)
    assert {row["state"] for row in town.rows(tables.pages)} == {"closed"}
    town.wait(3 * HOUR_US, 30 * MINUTE_US)
    assert town.told() == {}


def test_time_alone_never_ends_it(town: Searching) -> None:
    town.opened()
    town.wait(3 * 24 * HOUR_US, 30 * MINUTE_US)
    assert town.case()["state"] == "paused"


def test_an_officer_ends_it_with_a_reason(town: Searching) -> None:
    case = town.opened()
    assert town.does("close", case, "staff:tanaka", "病院にいました")
    assert town.last("ichi").title == "【捜索終了】ハナさんのタグ"
    assert not town.does("renew", case, "haruka")
    assert not town.does("found", case, "haruka")
    assert town.history()[-1] == ("staff:tanaka", "closed")


def test_a_machine_hears_neither_who_nor_where(town: Searching) -> None:
    town.misses()
    town.later(21 * MINUTE_US)
    said = town.last("hook").model_dump_json()
    assert "見守りタグ" in said
    for secret in ("ハナ", "つばき", "gateway.example/m/"):
        assert secret not in said


def test_messages_to_people_say_the_name_that_the_alert_does_not_hold(town: Searching) -> None:
    alert = town.misses()
    town.tick()
    assert "ハナ" not in town.alert(alert).facts
    assert "ハナさんのタグがご自宅を離れた可能性があります。" in town.last("haruka").body
    assert [link.label for link in town.last("haruka").links] == ["今の様子を見る"]
    assert HANA not in town.last("haruka").body
