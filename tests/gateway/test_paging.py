"""Who is told, who is asked next, and what an answer does: each sentence that the routes promise."""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import insert, update

from gateway.notify.message import Message
from gateway.paging import Answered, NotTaken
from gateway.state import tables
from tests.gateway.paged import HOUR_US, MINUTE_US, NOW_US, SECOND_US, TRAP, Paged, asked

BATTERY: dict[str, Any] = {"kind": "trap", "rule": "battery", "summary": "battery_voltage 3.2", "severity": "warning"}
FARMERS = [("sato", "alert"), ("tanaka", "alert")]


@pytest.fixture
def paged(tmp_path: Path) -> Iterator[Paged]:
    with Paged(tmp_path) as made:
        yield made


# ---- steps ----------------------------------------------------------------------------------------------


def test_a_critical_page_tells_the_first_step_in_the_alerts_own_transaction(paged: Paged) -> None:
    alert = paged.fire()
    assert paged.new() == FARMERS
    assert (paged.page()["state"], paged.page()["step"], paged.page()["needed"]) == ("asking", 1, 2)
    message = paged.last("tanaka")
    assert "わな作動" in message.title
    assert "北尾根 3番" in message.title
    assert asked(message) == ["going", "cannot"]
    assert (message.data["rule"], message.data["kind"], message.data["node"]) == ("sprung", "trap", "kitayama-03")
    assert message.alert == alert.id


def test_without_an_answer_the_next_step_begins_at_its_time_then_a_call_then_the_office(paged: Paged) -> None:
    paged.fire()
    paged.new()
    paged.later(10 * MINUTE_US - SECOND_US)
    assert paged.new() == []
    paged.later(SECOND_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
    paged.later(10 * MINUTE_US)
    assert paged.new() == FARMERS
    assert {row["channel"] for row in paged.ledger() if row["created_us"] == paged.now_us} == {"voice"}
    paged.later(10 * MINUTE_US)
    assert paged.new() == [("yakuba", "alert")]
    assert paged.page()["step"] == 4


def test_everybody_cannot_begins_the_next_step_at_once(paged: Paged) -> None:
    paged.fire()
    paged.new()
    paged.answer("tanaka", "cannot")
    assert paged.new() == []
    paged.answer("sato", "cannot")
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_one_of_two_goes_and_all_others_cannot_begins_the_next_step_at_once(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "going")
    paged.new()
    paged.answer("sato", "cannot")
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
    assert "tanaka" in paged.last("ito").body, "who is asked later hears that somebody goes already"
    assert "1人" in paged.last("ito").body


def test_a_step_with_nobody_reachable_is_passed_at_once(paged: Paged) -> None:
    paged.reachable("tanaka", "sato")
    paged.fire()
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_a_step_whose_messages_are_all_dead_letters_is_passed_at_once(paged: Paged) -> None:
    paged.fire()
    paged.new()
    paged.sent("dead")
    paged.tick()
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_where_no_step_reaches_anybody_the_office_hears_that_it_is_theirs(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": ["farmers", "hunters"], "needed": 1}) as paged:
        paged.reachable("tanaka", "sato", "suzuki", "ito")
        paged.fire()
        assert paged.new() == [("yakuba", "office")]
        assert paged.last("yakuba").body == "北尾根 3番：連絡のつく人がいません。市役所に引き継ぎました。"
        assert paged.page()["state"] == "exhausted"


def test_the_office_hears_it_too_where_nobody_is_asked(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        paged.reachable("tanaka", "sato")
        paged.fire()
        assert paged.new() == [("yakuba", "office")]
        paged.later(5 * HOUR_US)
        assert paged.new() == []
        paged.reachable("tanaka", yes=True)
        paged.tick()
        assert paged.new() == [("tanaka", "alert")]


def test_nobody_and_no_office_is_said_once_in_the_log_and_mended_when_somebody_is_there(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1}, office=None) as paged:
        paged.reachable("tanaka", "sato")
        paged.fire()
        paged.later(10 * MINUTE_US)
        assert caplog.text.count("reaches nobody") == 1
        paged.reachable("sato", yes=True)
        paged.later(MINUTE_US)
        assert paged.new() == [("sato", "alert")]


def test_after_the_last_step_the_office_knows_and_everybody_without_an_answer_is_asked_again_and_again(paged: Paged) -> None:
    paged.fire()
    paged.answer("sato", "cannot")
    paged.later(30 * MINUTE_US)
    paged.new()
    paged.later(30 * MINUTE_US)
    assert paged.page()["state"] == "exhausted"
    again = [("ito", "again"), ("suzuki", "again"), ("tanaka", "again")]
    assert paged.new() == [*again, ("yakuba", "office")]
    paged.later(30 * MINUTE_US)
    assert paged.new() == [*again, ("yakuba", "again")]
    assert paged.page()["round"] == 2


def test_who_is_reachable_only_later_is_told_then(paged: Paged) -> None:
    paged.reachable("sato")
    paged.fire()
    assert paged.new() == [("tanaka", "alert")]
    paged.reachable("sato", yes=True)
    paged.tick()
    assert paged.new() == [("sato", "alert")]


def test_the_family_of_the_alert_is_told_where_a_step_says_so(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": ["family"], "needed": 1}) as paged:
        paged.fire("home-1", kind="watched", rule="night", summary="left_home", family="family-1")
        assert paged.new() == [("hanako", "alert")]


def test_everybody_at_once_where_all_steps_begin_at_zero(tmp_path: Path) -> None:
    with Paged(tmp_path, {"steps": [{"to": "farmers"}, {"to": "hunters"}, {"to": "office"}], "needed": 1}) as paged:
        paged.fire()
        assert len(paged.new()) == 5


def test_needed_zero_is_told_and_asks_nobody(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        paged.fire()
        assert paged.new() == FARMERS
        assert asked(paged.last("tanaka")) == []
        paged.later(5 * HOUR_US)
        assert paged.new() == []


def test_what_was_acknowledged_by_an_officer_begins_no_further_step_until_nothing_came_of_it(paged: Paged) -> None:
    alert = paged.fire()
    paged.becomes(alert, "acknowledged", who="officer", acknowledged_by="officer", acknowledged_us=paged.now_us)
    paged.tick()
    paged.new()
    paged.later(69 * MINUTE_US)
    assert paged.new() == []
    assert paged.page()["state"] == "answered"
    paged.later(MINUTE_US)
    assert paged.page()["state"] == "asking"
    assert paged.new() == [("sato", "again"), ("tanaka", "again")]


# ---- answers --------------------------------------------------------------------------------------------


def test_one_goes_the_others_hear_it_and_are_asked_for_one_more(paged: Paged) -> None:
    paged.fire()
    paged.later(10 * MINUTE_US)
    paged.answer("sato", "cannot")
    paged.new()
    said = paged.answer("tanaka", "going")
    assert isinstance(said, Answered)
    assert (said.now.going, said.now.missing, said.now.state) == (("tanaka",), 1, "asking")
    assert paged.new() == [("ito", "update"), ("suzuki", "update")], "neither who goes nor who can't"
    assert paged.last("ito").body == "tanakaさんが行きます。あと1人必要です。"
    assert asked(paged.last("ito")) == ["going", "cannot"]


def test_with_enough_nobody_is_asked_any_more_and_the_alerts_are_acknowledged_by_who_goes(paged: Paged) -> None:
    alert = paged.fire()
    paged.later(10 * MINUTE_US)
    paged.answer("tanaka", "going")
    paged.new()
    paged.answer("suzuki", "going")
    assert paged.new() == [("ito", "update"), ("sato", "update")], "who might set out hears it at once"
    assert "tanakaさん、suzukiさん" in paged.last("sato").body
    assert asked(paged.last("sato")) == []
    assert "向かわなくて大丈夫です" in paged.last("sato").body
    paged.later(2 * SECOND_US)
    assert paged.new() == [("tanaka", "update")]
    assert "suzukiさんも行きます。あなたを入れて" in paged.last("tanaka").body  # who goes must not read that others do
    assert paged.page()["state"] == "answered"
    now = paged.alert(alert)
    assert (now.state, now.acknowledged_by) == ("acknowledged", "tanaka, suzuki")
    assert [row["who"] for row in paged.rows(tables.alert_history)] == ["rule", "tanaka, suzuki"]
    paged.later(50 * MINUTE_US)
    assert paged.new() == []
    assert ("alert", "acknowledged") in [(kind, body["state"]) for kind, body in paged.said]


def test_who_goes_hears_in_one_message_of_two_who_say_it_at_once(paged: Paged) -> None:
    paged.fire()
    paged.later(10 * MINUTE_US)
    paged.answer("tanaka", "going")
    paged.later(MINUTE_US)
    paged.new()
    paged.answer("sato", "going")
    paged.later(SECOND_US)
    paged.answer("suzuki", "going")
    paged.later(MINUTE_US)
    assert [who for who, _ in paged.new() if who in ("sato", "tanaka")] == ["sato", "tanaka"], "one message each"
    assert "も行きます" not in paged.last("suzuki").body, "who was the last saw who goes when they answered"
    assert "satoさん、suzukiさんも行きます" in paged.last("tanaka").body
    assert "tanakaさん、suzukiさんも行きます" in paged.last("sato").body


def test_who_says_later_that_they_go_too_is_another_message(paged: Paged) -> None:
    paged.fire()
    paged.later(10 * MINUTE_US)
    for who in ("tanaka", "sato", "suzuki"):
        paged.answer(who, "going")
        paged.later(2 * SECOND_US)
    told = [Message.model_validate_json(row["body"]).body for row in paged.ledger() if row["contact"] == "tanaka"]
    assert [body.split("も")[0] for body in told if "も行きます" in body] == ["satoさん", "satoさん、suzukiさん"]


def test_who_goes_hears_of_nobody_who_has_taken_it_back_at_once(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    paged.answer("sato", "cannot")
    paged.later(MINUTE_US)
    assert "satoさんが行けなくなりました" in paged.last("tanaka").body
    assert not any("も行きます" in message.body for message in paged.messages())
    for _ in range(2):
        paged.answer("sato", "going")
        paged.later(2 * SECOND_US)
        assert "satoさんも行きます" in paged.last("tanaka").body
        paged.answer("sato", "cannot")
        assert "satoさんが行けなくなりました" in paged.last("tanaka").body


def test_who_goes_again_at_once_is_told_to_who_has_just_set_out(tmp_path: Path) -> None:
    with Paged(tmp_path, {**TRAP, "needed": 3}) as paged:
        paged.fire()
        paged.later(10 * MINUTE_US)
        for who in ("tanaka", "sato"):
            paged.answer(who, "going")
            paged.later(MINUTE_US)
        paged.answer("suzuki", "going")
        paged.answer("tanaka", "cannot")
        assert "tanakaさんが行けなくなりました" in paged.last("suzuki").body
        paged.answer("tanaka", "going")
        paged.later(2 * SECOND_US)
        for who, others in (("sato", "suzukiさん、tanakaさん"), ("suzuki", "satoさん、tanakaさん")):
            assert f"{others}も行きます" in paged.last(who).body


def test_the_same_tap_ten_times_is_one_answer(paged: Paged) -> None:
    paged.fire()
    paged.new()
    said = [paged.answer("tanaka", "going") for _ in range(10)]
    assert [one.repeated for one in said if isinstance(one, Answered)] == [False] + [True] * 9
    assert len(paged.rows(tables.answers)) == 1
    assert paged.new() == [("sato", "update")]


def test_cannot_after_going_reopens_the_asking_and_says_who_withdrew(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    assert paged.page()["state"] == "answered"
    paged.later(5 * MINUTE_US)
    paged.new()
    paged.answer("tanaka", "cannot")
    found = paged.new()
    assert ("sato", "update") in found
    assert "tanakaさんが行けなくなりました。あと1人必要です。" in paged.last("sato").body
    assert [one for one in found if one[1] == "alert"] == [("ito", "alert"), ("suzuki", "alert")], "nobody else was left"
    assert paged.page()["state"] == "asking"
    paged.answer("ito", "going")
    assert paged.page()["state"] == "answered"


def test_while_enough_were_on_their_way_the_steps_clock_stood(tmp_path: Path) -> None:
    with Paged(tmp_path, {**TRAP, "needed": 1}) as paged:
        paged.fire()
        paged.later(5 * MINUTE_US)
        paged.answer("tanaka", "going")
        paged.later(30 * MINUTE_US)
        paged.answer("tanaka", "cannot")
        paged.new()
        paged.later(5 * MINUTE_US - SECOND_US)
        assert paged.new() == []
        paged.later(SECOND_US)
        assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_who_goes_is_asked_what_came_of_it_and_silence_counts_as_no_answer(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    paged.later(2 * SECOND_US)
    paged.new()
    paged.later(60 * MINUTE_US - 2 * SECOND_US)
    assert paged.new() == [("sato", "result"), ("tanaka", "result")]
    assert asked(paged.last("tanaka")) == ["done", "false_alarm", "cannot"]
    paged.later(10 * MINUTE_US - SECOND_US)
    assert paged.new() == []
    paged.later(SECOND_US)
    assert paged.new() == [("sato", "again"), ("tanaka", "again")]
    assert paged.page()["state"] == "asking"
    paged.later(10 * MINUTE_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
    paged.answer("tanaka", "going")
    paged.answer("ito", "going")
    assert paged.page()["state"] == "answered"


def test_still_on_the_way_is_a_new_answer_to_the_question_what_came_of_it(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    paged.later(61 * MINUTE_US)
    paged.new()
    said = paged.answer("tanaka", "going")
    assert isinstance(said, Answered)
    assert not said.repeated
    paged.later(59 * MINUTE_US)
    assert paged.new() == []
    paged.later(MINUTE_US)
    assert paged.new() == [("sato", "result"), ("tanaka", "result")]


def test_of_a_trap_done_does_not_replace_the_visit(paged: Paged) -> None:
    alert = paged.fire()
    paged.answer("tanaka", "going")
    paged.answer("sato", "going")
    paged.answer("tanaka", "done")
    assert paged.alert(alert).state == "acknowledged"
    assert paged.page()["state"] == "answered"
    paged.becomes(alert, "resolved", why="trap_visited")
    paged.new()
    paged.tick()
    assert paged.new() == [("sato", "over"), ("tanaka", "over")]
    assert "見回り" in paged.last("tanaka").body


def test_elsewhere_done_ends_it(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 1, "tell_end": True}) as paged:
        alert = paged.fire(kind="flow", rule="crowd", summary="crowd")
        paged.answer("tanaka", "going")
        paged.answer("tanaka", "done")
        assert (paged.alert(alert).state, paged.page()["state"]) == ("resolved", "closed")


@pytest.mark.parametrize("answer", ["false_alarm", "with_her", "found"])
def test_an_ending_resolves_the_alerts_by_name_and_everybody_who_was_told_hears_it(paged: Paged, answer: Any) -> None:
    alert = paged.fire()
    paged.later(10 * MINUTE_US)
    paged.answer("sato", "cannot")
    paged.new()
    paged.answer("tanaka", answer)
    assert paged.new() == [("ito", "over"), ("sato", "over"), ("suzuki", "over")]
    assert "tanakaさん" in paged.last("ito").body
    last = paged.rows(tables.alert_history)[-1]
    assert (paged.alert(alert).state, last["who"], last["why"]) == ("resolved", "tanaka", answer)
    assert paged.page()["state"] == "closed"


def test_where_the_end_is_not_told_to_all_who_set_out_hears_it_all_the_same(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "needed": 2}) as paged:
        alert = paged.fire()
        paged.answer("tanaka", "going")
        paged.new()
        paged.becomes(alert, "resolved")
        paged.tick()
        assert paged.new() == [("tanaka", "over")]


def test_an_answer_to_what_is_over_is_refused_with_what_is_so_but_proves_the_address(paged: Paged) -> None:
    alert = paged.fire()
    row = next(row for row in paged.ledger() if row["contact"] == "tanaka")
    paged.becomes(alert, "resolved")
    paged.tick()
    said = paged.answer("tanaka", "going", notification=row["id"])
    assert isinstance(said, NotTaken)
    assert said.reason == "closed"
    assert said.now is not None
    assert said.now.state == "closed"
    assert paged.rows(tables.answers) == []
    assert next(one for one in paged.rows(tables.addresses) if one["id"] == "tanaka-line")["heard_us"] == NOW_US


def test_an_answer_of_somebody_who_was_not_told_is_refused(paged: Paged) -> None:
    paged.fire()
    said = [
        paged.answer("ito", "going"),
        paged.answer("ito", "going", notification=paged.ledger()[0]["id"]),
        paged.answer("staff:officer", "going"),  # not by the API
        paged.answer("ito", "going", page="00000000-0000-4000-8000-000000000000"),
    ]
    assert [one.reason for one in said if isinstance(one, NotTaken)] == ["not_told"] * 3 + ["unknown"]
    assert paged.rows(tables.answers) == []


def test_an_answer_marks_its_message_and_proves_its_address(paged: Paged) -> None:
    paged.fire()
    row = next(row for row in paged.ledger() if row["contact"] == "tanaka")
    with paged.state.write() as connection:
        said = paged.paging.answers.answer_to(connection, row["id"], "going", "line", paged.now_us)
    assert isinstance(said, Answered)
    row = next(row for row in paged.ledger() if row["id"] == row["id"] and row["contact"] == "tanaka")
    assert (row["state"], row["answered_us"]) == ("answered", NOW_US)
    assert [(one["contact"], one["via"]) for one in paged.rows(tables.answers)] == [("tanaka", "line")]


def test_the_stream_is_told_what_an_answer_moved_once_that_is_committed_and_not_before(paged: Paged) -> None:
    """A second passes while somebody's answer, on another thread, is on its way into the database."""
    paged.fire()
    paged.tick()
    paged.said.clear()
    with paged.state.write() as connection:
        for who in ("tanaka", "sato"):
            paged.paging.answers.answer(connection, paged.page()["id"], who, "going", "line", None, paged.now_us)
        paged.tick()
        assert paged.said == []
    paged.tick()
    assert [body["state"] for kind, body in paged.said if kind == "alert"] == ["acknowledged"]
    paged.said.clear()
    paged.tick()
    assert paged.said == []


def test_seen_ends_no_asking(paged: Paged) -> None:
    paged.fire()
    paged.new()
    assert isinstance(paged.answer("tanaka", "seen"), Answered)
    paged.later(10 * MINUTE_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_what_an_answer_leads_to_elsewhere_is_in_its_transaction_and_happens_once(tmp_path: Path) -> None:
    heard: list[Any] = []

    def hear(_c: Any, page: Any, alerts: Any, contact: str, answer: str, now_us: int) -> None:
        heard.append((page.kind, [alert.rule for alert in alerts], contact, answer, now_us))

    with Paged(tmp_path, {"to": "family", "needed": 1}, on_answer=hear) as paged:
        paged.fire("home-1", kind="watched", rule="night", summary="left_home", family="family-1")
        for _ in range(3):
            paged.answer("hanako", "search")
    assert heard == [("watched", ["night"], "hanako", "search", NOW_US)]


def test_what_a_reader_may_know_of_an_alert_never_takes_the_place_of_who_goes(tmp_path: Path) -> None:
    def more(_c: Any, _alert: Any, contact: str) -> dict[str, Any]:
        return {"name": f"known to {contact}"}

    with Paged(tmp_path, TRAP, more=more) as paged:
        paged.fire()
        paged.answer("tanaka", "going")
        assert paged.last("sato").body == "tanakaさんが行きます。あと1人必要です。"


# ---- groups, mutes --------------------------------------------------------------------------------------


def test_alerts_of_one_group_are_one_page_and_those_that_join_are_told_in_one_update(tmp_path: Path) -> None:
    route = {"to": "farmers", "group_by": ["rule", "place"], "group_wait": "30s", "group_interval": "5m", "needed": 1}
    with Paged(tmp_path, route) as paged:
        paged.fire("trap-1", **BATTERY)
        paged.later(29 * SECOND_US)
        paged.fire("trap-2", **BATTERY)
        assert paged.new() == []
        paged.later(SECOND_US)
        assert paged.new() == FARMERS
        assert "ほか1件" in paged.last("tanaka").title
        paged.fire("trap-3", **BATTERY)
        paged.fire("trap-4", **BATTERY)
        paged.later(5 * MINUTE_US - SECOND_US)
        assert paged.new() == []
        paged.later(SECOND_US)
        assert paged.new() == [("sato", "update"), ("tanaka", "update")]
        assert "ほかに2件" in paged.last("tanaka").body
        assert len(paged.rows(tables.pages)) == 1


def test_a_page_closes_when_the_last_of_its_alerts_is_over(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "group_by": ["rule"], "tell_end": True}) as paged:
        first, second = paged.fire("trap-1"), paged.fire("trap-2")
        paged.becomes(first, "resolved")
        paged.tick()
        assert paged.page()["state"] == "asking"
        paged.becomes(second, "resolved")
        paged.tick()
        assert paged.page()["state"] == "closed"


def test_a_trap_that_sprang_again_is_another_page_at_once(paged: Paged) -> None:
    first = paged.fire()
    paged.new()
    paged.becomes(first, "resolved", why="trap_sprung again")
    paged.fire()
    assert [one for one in paged.new() if one[1] == "alert"] == FARMERS
    assert sorted(row["state"] for row in paged.rows(tables.pages)) == ["asking", "closed"]


def test_a_page_whose_alerts_are_all_muted_waits_and_its_clock_with_it(paged: Paged) -> None:
    alert = paged.fire()
    paged.later(5 * MINUTE_US)
    paged.becomes(alert, "suppressed", suppressed_by="silence:1")
    paged.tick()
    paged.new()
    paged.later(2 * HOUR_US)
    assert paged.new() == []
    paged.becomes(alert, "firing")
    paged.later(5 * MINUTE_US - SECOND_US)
    assert paged.new() == [], "told before the mute, so not again after it"
    paged.later(SECOND_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_what_was_muted_from_the_first_is_told_when_the_mute_ends(paged: Paged) -> None:
    alert = paged.fire(state="suppressed")
    paged.later(HOUR_US)
    assert paged.new() == []
    paged.becomes(alert, "firing", fired_us=paged.now_us)
    assert paged.new() == FARMERS


def test_what_comes_off_the_shelf_is_told_afresh(paged: Paged) -> None:
    alert = paged.fire()
    paged.answer("tanaka", "cannot")
    paged.becomes(alert, "shelved", who="officer", shelved_until_us=paged.now_us + HOUR_US)
    paged.later(HOUR_US)
    paged.new()
    paged.becomes(alert, "firing", shelved_until_us=None)
    assert paged.new() == FARMERS
    assert len({row["id"] for row in paged.ledger()}) == 4


def test_the_state_is_looked_at_before_each_step(paged: Paged) -> None:
    alert = paged.fire()
    paged.new()
    with paged.state.write() as connection:  # over, and nobody told paging
        connection.execute(update(tables.alerts).where(tables.alerts.c.id == alert.id).values(state="resolved", resolved_us=1))
    paged.later(10 * MINUTE_US)
    assert [one for one in paged.new() if one[1] == "alert"] == []
    assert paged.page()["state"] == "closed"


def test_over_before_it_was_told_wakes_nobody_unless_it_is_critical(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "group_wait": "1m"}) as paged:
        calm = paged.fire(**BATTERY)
        paged.becomes(calm, "resolved")
        paged.later(HOUR_US)
        assert paged.new() == []
        urgent = paged.fire("trap-1")
        paged.becomes(urgent, "resolved")
        paged.tick()
        assert paged.new() == FARMERS
        assert asked(paged.last("tanaka")) == []


def test_what_is_critical_waits_neither_for_its_group_nor_for_a_cooldown(tmp_path: Path) -> None:
    route = {"to": "farmers", "group_by": ["rule", "place"], "group_wait": "10m", "cooldown": "1h"}
    with Paged(tmp_path, route) as paged:
        first = paged.fire("trap-1")
        assert paged.new() == FARMERS, "in the transaction of its alert"
        paged.sent()
        paged.becomes(first, "resolved")
        paged.tick()
        paged.fire("trap-2")
        assert paged.new() == FARMERS


def test_a_page_that_waits_for_its_group_begins_when_something_critical_joins_it(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "group_by": ["place"], "group_wait": "10m"}) as paged:
        paged.fire("trap-1", **BATTERY)
        paged.tick()
        assert paged.new() == []
        paged.fire("trap-2")
        assert paged.new() == FARMERS


# ---- what can wait --------------------------------------------------------------------------------------


def test_a_cooldown_counts_from_what_was_really_sent(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "cooldown": "1h"}) as paged:
        for device_is_sent in (False, True):
            alert = paged.fire(**BATTERY)
            paged.tick()
            assert paged.new() == FARMERS
            if device_is_sent:
                paged.sent()
            paged.becomes(alert, "resolved")
            paged.later(MINUTE_US)
        paged.fire(**BATTERY)
        paged.later(58 * MINUTE_US)
        assert paged.new() == []
        paged.later(2 * MINUTE_US)
        assert paged.new() == FARMERS, "it still fires after the cooldown"


def test_one_groups_cooldown_is_not_anothers(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "cooldown": "1h"}) as paged:
        paged.fire("trap-1", **BATTERY)
        paged.tick()
        paged.sent()
        paged.new()
        paged.fire("trap-2", **BATTERY)
        paged.tick()
        assert paged.new() == FARMERS


def test_in_quiet_hours_only_what_is_critical_comes_and_the_rest_is_one_digest_after_them(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers"}) as paged:
        paged.quiet("tanaka", "21:00", "07:00")  # it is 06:12
        over = paged.fire("trap-1", **BATTERY)
        for device in ("trap-2", "trap-3"):
            paged.fire(device, **BATTERY)
        paged.tick()
        assert paged.new() == [("sato", "alert")] * 3
        paged.fire("trap-4")
        assert paged.new() == FARMERS
        paged.becomes(over, "resolved")
        paged.later(48 * MINUTE_US)
        assert paged.new() == [("tanaka", "digest")]
        assert paged.last("tanaka").title == "【お休みの間の知らせ】2件"
        assert paged.now_us == NOW_US + 48 * MINUTE_US


def test_where_all_of_a_step_are_quiet_a_page_that_asks_begins_after_it(tmp_path: Path) -> None:
    with Paged(tmp_path, {**TRAP, "needed": 1}) as paged:
        for name in ("tanaka", "sato"):
            paged.quiet(name, "21:00", "07:00")
        paged.fire(**BATTERY)
        paged.later(47 * MINUTE_US)
        assert (paged.new(), paged.page()["state"]) == ([], "waiting")
        paged.later(MINUTE_US)
        assert paged.new() == FARMERS
        paged.later(10 * MINUTE_US)
        assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_a_digest_route_tells_each_once_in_the_morning(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "farmers", "digest": "07:00"}) as paged:
        for device in ("trap-1", "trap-2"):
            paged.fire(device, **BATTERY)
        paged.later(30 * MINUTE_US)
        paged.fire("trap-3", **BATTERY)
        paged.later(17 * MINUTE_US)
        assert paged.new() == []
        paged.later(MINUTE_US)
        assert paged.new() == [("sato", "digest"), ("tanaka", "digest")]
        assert paged.last("sato").title == "【まとめ】3件"
        paged.later(24 * HOUR_US)
        assert paged.new() == []


def test_a_thousand_devices_that_come_back_page_each_person_once(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": ["farmers", "hunters"]}) as paged:
        paged.paging.tick(paged.now_us, listening_since_us=paged.now_us)
        for number in range(1000):
            paged.fire(f"sensor-{number}", **BATTERY)
        paged.later(59 * SECOND_US)
        assert paged.new() == []
        paged.later(SECOND_US)
        assert paged.new() == [(name, "digest") for name in ("ito", "sato", "suzuki", "tanaka")]
        assert paged.last("ito").title == "【通信の復旧】1,000件"
        assert len(paged.last("ito").body) < 1500
        paged.later(HOUR_US)
        assert paged.new() == []


def test_what_is_critical_does_not_wait_for_the_start(paged: Paged) -> None:
    paged.paging.hold(paged.now_us + MINUTE_US)
    paged.fire()
    assert paged.new() == FARMERS


# ---- pages of other rooms -------------------------------------------------------------------------------


def test_a_case_tells_everybody_at_once_is_widened_and_its_end_reaches_all(paged: Paged) -> None:
    def tell(*to: str, key: str = "opened") -> str:
        with paged.state.write() as connection:
            return paged.paging.notices.tell(
                connection, route="search", group_key="case-1", kind="search", severity="critical", to=to,
                moment="page.nobody", facts={"where": "中央公民館"}, key=key, now_us=paged.now_us,
            )  # fmt: skip

    page = tell("family-1", "office")
    assert paged.new() == [("hanako", "alert"), ("yakuba", "alert")]
    assert tell("family-1", "office", "hunters") == page
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
    assert tell("family-1", key="sighting-1") == page
    assert paged.new() == [("hanako", "update")]
    assert isinstance(paged.answer("ito", "found", page), Answered)
    assert paged.page()["state"] == "asking", "whose word ends it, the room decides that opened it"
    paged.later(24 * HOUR_US)
    assert paged.new() == []
    with paged.state.write() as connection:
        close = partial(paged.paging.notices.close, moment="page.found", facts={"name": ["ito"]})
        assert close(connection, page, paged.now_us, but=["ito"])
        assert not close(connection, page, paged.now_us)
    assert paged.new() == [("hanako", "over"), ("suzuki", "over"), ("yakuba", "over")]
    assert tell("family-1") != page


def tell_and_be_done(paged: Paged) -> str:
    with paged.state.write() as connection:
        return paged.paging.notices.tell(
            connection, route="audit", group_key="heads", kind="audit", severity="info", to=["office", "hunters"],
            moment="page.nobody", facts={"where": "中央公民館"}, now_us=paged.now_us, asks=False, ends=True,
        )  # fmt: skip


def test_what_is_told_and_has_nothing_to_wait_for_is_over_once_everybody_was_told(paged: Paged) -> None:
    first = tell_and_be_done(paged)
    paged.later(HOUR_US)
    assert paged.page()["state"] == "asking", "closed now, what still waits would be dropped as over"
    paged.sent()
    paged.later(MINUTE_US)
    assert (paged.page()["state"], paged.page()["closed_us"]) == ("closed", paged.now_us)
    assert ("page", {"id": first, "state": "closed", "severity": "info"}) in paged.said
    assert len(paged.new()) == 3, "and nobody hears that it is"
    assert tell_and_be_done(paged) != first


def test_whoever_can_not_be_told_keeps_it_open_for_three_days_and_no_longer(paged: Paged) -> None:
    tell_and_be_done(paged)
    paged.now_us += 70 * HOUR_US  # it is looked at each minute; one look after so long finds what each of them would
    paged.tick()
    paged.later(2 * HOUR_US - MINUTE_US)
    assert paged.page()["state"] == "asking"
    paged.later(MINUTE_US)
    assert paged.page()["state"] == "closed"


def test_what_nobody_can_be_told_does_not_stay_open(tmp_path: Path) -> None:
    with Paged(tmp_path, office=None) as paged:
        paged.reachable("ito", "suzuki", "yakuba")
        tell_and_be_done(paged)
        paged.tick()
        assert paged.page()["state"] == "closed"


# ---- when things go wrong -------------------------------------------------------------------------------


def test_a_page_that_cannot_be_looked_at_stops_no_other(paged: Paged, caplog: pytest.LogCaptureFixture) -> None:
    paged.fire("trap-1")
    with paged.state.write() as connection:
        connection.execute(update(tables.pages).values(memory="no JSON", changed=True))
    paged.fire("trap-2")
    paged.new()
    paged.later(10 * MINUTE_US)
    paged.tick()
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]
    assert caplog.text.count("can't be looked at") == 1


def test_an_alert_that_no_route_fits_is_said_in_the_log(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Paged(tmp_path, {"to": "farmers", "match": {"kind": "camera"}}, office=None) as paged:
        paged.fire()
        assert "no route fits" in caplog.text
        assert paged.rows(tables.pages) == []


def test_a_page_whose_route_was_removed_goes_on_by_the_one_that_fits_now(paged: Paged) -> None:
    paged.fire()
    paged.new()
    paged.routes[:] = [paged.routes[0].model_copy(update={"name": "other"})]
    paged.restart()
    paged.later(10 * MINUTE_US)
    assert paged.new() == [("ito", "alert"), ("suzuki", "alert")]


def test_a_webhook_of_the_configuration_is_told_like_a_person(tmp_path: Path) -> None:
    with Paged(tmp_path, {"to": "hook"}) as paged:
        paged.fire()
        [row] = paged.ledger()
        assert (row["contact"], row["channel"], row["address"]) == ("hook", "webhook", None)
        told = paged.messages()[0].for_machines()
        fields = {"id", "alert", "kind", "rule", "severity", "title", "body", "late", "place", "label", "node", "device"}
        assert fields | {"event_time", "alert_time"} <= set(told)
        assert (told["place"], told["label"], told["event_time"]) == ("北尾根", "3番", "2026-06-02T21:12:00.000Z")


def test_a_removed_contact_is_asked_no_more(paged: Paged) -> None:
    paged.fire()
    with paged.state.write() as connection:
        connection.execute(update(tables.contacts).where(tables.contacts.c.id == "tanaka").values(removed_us=paged.now_us))
        connection.execute(insert(tables.memberships), {"team": "hunters", "contact": "yakuba"})
    paged.new()
    paged.later(2 * HOUR_US)
    assert "tanaka" not in {who for who, _ in paged.new()}


def test_who_has_checked_a_trap_already_is_not_said_to_be_on_the_way(tmp_path: Path) -> None:
    with Paged(tmp_path, {**TRAP, "needed": 1}) as paged:
        paged.fire()
        paged.answer("tanaka", "done")
        assert paged.last("sato").body == "tanakaさんが確認しました（午前6時12分）。"


def test_where_one_has_checked_and_one_more_must_go_the_others_are_asked(paged: Paged) -> None:
    paged.fire()
    paged.answer("tanaka", "done")
    assert paged.last("sato").body == "tanakaさんが確認しました（午前6時12分）。あと1人必要です。"
    assert asked(paged.last("sato")) == ["going", "cannot"]
    paged.answer("sato", "going")
    paged.later(2 * SECOND_US)
    assert "satoさんも行きます" in paged.last("tanaka").body
