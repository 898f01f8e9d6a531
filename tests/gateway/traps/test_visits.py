"""Visits and dossiers through the real pipeline, rules and database: what a person says ends what a sensor began."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection

from gateway.own_facts import add_fact
from gateway.pictures import confirm_alert, is_open
from gateway.rules.detection import DetectionConfig
from gateway.rules.dossier import DossierConfig
from gateway.rules.round import RoundConfig
from gateway.rules.trap import TrapConfig
from gateway.state import tables
from gateway.traps.captures import Lacking, Refused, add_photo, capture_row, change_capture, open_capture
from gateway.traps.state import state_of
from gateway.traps.visits import NotTaken, Visit, add_visit
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, SECOND_US, Town, batch, event, reading

DAY_US = 24 * HOUR_US
RULES: dict[str, Any] = {
    "trap": TrapConfig(type="trap", severity="critical"),
    "round": RoundConfig(type="round"),
    "papers": DossierConfig(type="dossier"),
    "animals": DetectionConfig(type="detection"),
}
WHOLE = {"species": "boar", "sex": "female", "weight_kg": 42.5, "disposal": "buried", "note": ""}


@pytest.fixture
def ridge(tmp_path: Path) -> Iterator[Town]:
    with Town(tmp_path, RULES) as made:
        yield made


def visit(number: int, at_us: int, result: str = "set", via: Any = "form") -> Visit:
    return Visit(f"00000000-0000-4000-8000-{number:012}", NODE, "trap-11", at_us, "example", via, result)


def enter(ridge: Town, one: Visit) -> str | None:
    """Enters a visit; returns the id of the dossier that it opened."""
    with ridge.state.write() as connection:
        if add_visit(connection, one, ridge.now_us) is not None and one.result == "capture":
            return open_capture(connection, one.id, ridge.now_us)
    return None


def standing(ridge: Town, rules: dict[str, Any] = RULES) -> dict[str, Any]:
    with ridge.state.read() as connection:
        [trap] = list(ridge.deployments)
        return state_of(connection, trap, rules, ridge.now_us)


def alerts(ridge: Town, rule: str) -> list[str]:
    return [state for name, state in ridge.alerts() if name == rule]


# --- visits ---------------------------------------------------------------------------------------------


def test_a_visit_entered_by_a_person_ends_the_alert_at_the_next_tick_also_after_a_restart(ridge: Town) -> None:
    ridge.process(batch(events=[event(1)]))
    assert alerts(ridge, "trap") == ["firing"]
    ridge.later(HOUR_US)
    enter(ridge, visit(1, ridge.now_us))
    ridge.restart()
    ridge.tick()
    assert alerts(ridge, "trap") == ["resolved"]


def test_the_boxs_button_is_a_visit_too_and_once_however_often_it_arrives(ridge: Town) -> None:
    pressed = event(2, 30 * SECOND_US, "trap_visited")
    del pressed["folded"]
    for _ in range(2):
        ridge.process(batch(events=[event(1), pressed]))
        ridge.restart()
    [row] = ridge.rows(tables.visits)
    assert (row["via"], row["result"], row["who"]) == ("button", "unsaid", "")
    assert alerts(ridge, "trap") == ["resolved"]


def test_the_switch_alone_ends_nothing(ridge: Town) -> None:
    ridge.process(batch(events=[event(1), event(2, MINUTE_US, "trap_reset")]))
    assert alerts(ridge, "trap") == ["firing"]
    [row] = ridge.rows(tables.alerts)
    ridge.later(2 * SECOND_US)
    ridge.tick()
    [row] = ridge.rows(tables.alerts)
    assert "reset_us" in json.loads(row["facts"])


def test_a_visit_sent_again_changes_nothing_and_another_under_its_id_is_refused(ridge: Town) -> None:
    first = visit(1, ridge.now_us)
    enter(ridge, first)
    ridge.later(HOUR_US)
    enter(ridge, first)
    assert len(ridge.rows(tables.visits)) == len(ridge.rows(tables.events)) == 1
    with pytest.raises(NotTaken, match="Another visit"):
        enter(ridge, first._replace(result="empty"))


def test_a_visit_names_nobody_in_its_event(ridge: Town) -> None:
    enter(ridge, visit(1, ridge.now_us)._replace(who="Example Hanako", note="by car"))
    [row] = ridge.rows(tables.events)
    assert "Example" not in json.dumps(row)
    assert "car" not in json.dumps(row)


@pytest.mark.parametrize("off_us", [6 * MINUTE_US, -31 * DAY_US])
def test_a_visit_at_an_impossible_time_is_refused_and_nothing_is_half_done(ridge: Town, off_us: int) -> None:
    with pytest.raises(NotTaken):
        enter(ridge, visit(1, ridge.now_us + off_us))
    assert ridge.rows(tables.visits) == ridge.rows(tables.events) == []


def test_a_visit_made_where_there_was_no_link_ends_what_sprang_before_it_and_nothing_after(ridge: Town) -> None:
    ridge.process(batch(events=[event(1)]))
    ridge.later(4 * HOUR_US)
    enter(ridge, visit(1, ridge.now_us - 5 * HOUR_US))
    ridge.tick()
    assert alerts(ridge, "trap") == ["firing"]
    enter(ridge, visit(2, ridge.now_us - 3 * HOUR_US))
    ridge.tick()
    assert alerts(ridge, "trap") == ["resolved"]


# --- how a trap stands ------------------------------------------------------------------------------------


@pytest.mark.parametrize("rules", [RULES, {}], ids=["with the rule", "without"])
def test_how_a_trap_stands_is_never_greener_than_what_was_heard(ridge: Town, rules: dict[str, Any]) -> None:
    said = standing(ridge, rules)
    assert (said["state"], said["heard_age_s"], said["switch"]) == ("unknown", None, None)
    ridge.process(batch([reading(1, metric="trap_closed", value=0.0), reading(2)]))
    ridge.tick()
    assert standing(ridge, rules)["state"] == "set"
    ridge.later(20 * MINUTE_US)
    ridge.tick()
    assert standing(ridge, rules)["state"] == "unknown"
    ridge.process(batch(events=[event(3)], t0=ridge.now_us))
    ridge.tick()
    said = standing(ridge, rules)
    assert (said["state"], said["signs"], said["since_us"]) == ("sprung", ["switch"], ridge.now_us)
    ridge.later(20 * MINUTE_US)
    ridge.tick()
    assert standing(ridge, rules)["state"] == "sprung_silent"
    enter(ridge, visit(1, ridge.now_us))
    ridge.process(batch([reading(4, metric="trap_closed", value=0.0)], t0=ridge.now_us))
    ridge.tick()
    said = standing(ridge, rules)
    assert (said["state"], said["last_visit_us"], said["last_visit_via"]) == ("set", ridge.now_us, "form")


def test_a_trap_that_is_visited_and_not_set_yet_is_still_shown_as_sprung(ridge: Town) -> None:
    ridge.process(batch([reading(2, metric="trap_closed", value=1.0)], events=[event(1)]))
    enter(ridge, visit(1, ridge.now_us))
    ridge.tick()
    assert (alerts(ridge, "trap"), standing(ridge)["state"]) == (["resolved"], "sprung")


def test_overdue_is_known_where_a_round_is_asked_for_and_no_sensor_changes_it(ridge: Town) -> None:
    assert standing(ridge, {})["overdue"] is None
    ridge.tick()
    ridge.later(36 * HOUR_US)  # 4 June, 18:12
    ridge.process(batch([reading(1, metric="trap_closed", value=0.0)], events=[event(2, type_="trap_reset")], t0=ridge.now_us))
    ridge.tick()
    assert (standing(ridge)["overdue"], alerts(ridge, "round")) == (True, ["firing"])
    enter(ridge, visit(1, ridge.now_us))
    ridge.tick()
    assert (standing(ridge)["overdue"], alerts(ridge, "round")) == (False, ["resolved"])


# --- captures ---------------------------------------------------------------------------------------------


def captured(ridge: Town, number: int = 1) -> str:
    ridge.process(batch(events=[event(number)], t0=ridge.now_us))
    ridge.later(HOUR_US)
    id_ = enter(ridge, visit(number, ridge.now_us, "capture"))
    assert id_ is not None
    return id_


def dossier(ridge: Town, id_: str) -> dict[str, Any]:
    with ridge.state.read() as connection:
        found = capture_row(connection, id_)
    assert found is not None
    return found


def fill(connection: Connection, id_: str, now_us: int, first: int = 1) -> None:
    for number, item in enumerate(("whole", "board", "tail"), first):
        add_photo(connection, id_, f"{number:064x}", item, "office", now_us)
    change_capture(connection, id_, WHOLE, "office", now_us, seen=None, complete=False)


def test_a_capture_opens_a_dossier_with_the_sensors_time_and_the_visit(ridge: Town) -> None:
    sprung_us = ridge.now_us
    found = dossier(ridge, captured(ridge))
    assert (found["sprung_us"], found["visit"]["result"]) == (sprung_us, "capture")
    assert found["alert"] == ridge.rows(tables.alerts)[0]["id"]
    assert found["missing"] == ["species", "sex", "weight_kg", "disposal", "whole", "board", "tail"]


def test_two_who_report_the_same_capture_make_one_dossier(ridge: Town) -> None:
    first = captured(ridge)
    ridge.later(MINUTE_US)
    assert enter(ridge, visit(2, ridge.now_us, "capture")) == first


def test_a_capture_that_no_sensor_told_of_has_no_sensors_time(ridge: Town) -> None:
    id_ = enter(ridge, visit(1, ridge.now_us, "capture"))
    assert id_ is not None
    assert dossier(ridge, id_)["sprung_us"] is None


def test_it_reminds_after_a_day_until_it_is_complete(ridge: Town) -> None:
    id_ = captured(ridge)
    ridge.tick()
    ridge.later(DAY_US)
    ridge.tick()
    assert alerts(ridge, "papers") == ["firing"]
    with ridge.state.write() as connection:
        fill(connection, id_, ridge.now_us)
        change_capture(connection, id_, WHOLE, "office", ridge.now_us, seen=None, complete=True)
    ridge.tick()
    assert alerts(ridge, "papers") == ["resolved"]


def test_it_can_only_be_completed_whole_and_says_what_it_lacks(ridge: Town) -> None:
    id_ = captured(ridge)
    with pytest.raises(Lacking) as refused, ridge.state.write() as connection:
        change_capture(connection, id_, {**WHOLE, "sex": None}, "office", ridge.now_us, seen=None, complete=True)
    assert refused.value.missing == ("sex", "whole", "board", "tail")
    assert dossier(ridge, id_)["species"] is None, "and nothing was half done"


def test_a_complete_dossier_does_not_change_any_more(ridge: Town) -> None:
    id_ = captured(ridge)
    with ridge.state.write() as connection:
        fill(connection, id_, ridge.now_us)
        change_capture(connection, id_, WHOLE, "office", ridge.now_us, seen=None, complete=True)
    for change in (
        lambda c: change_capture(c, id_, WHOLE, "office", ridge.now_us, seen=None, complete=False),
        lambda c: add_photo(c, id_, "f" * 64, "other", "office", ridge.now_us),
    ):
        with pytest.raises(Refused, match="is complete"), ridge.state.write() as connection:
            change(connection)


def test_who_looked_at_an_older_dossier_does_not_write_over_a_newer(ridge: Town) -> None:
    id_ = captured(ridge)
    seen = dossier(ridge, id_)["seen"]
    with ridge.state.write() as connection:
        change_capture(connection, id_, {"note": "one"}, "office", ridge.now_us, seen=seen, complete=False)
    with pytest.raises(Refused, match="Somebody else has just changed it"), ridge.state.write() as connection:
        change_capture(connection, id_, {"note": "other"}, "office", ridge.now_us, seen=seen, complete=False)
    assert dossier(ridge, id_)["note"] == "one"


def test_one_picture_proves_one_capture_and_the_refusal_names_nothing_private(ridge: Town) -> None:
    first = captured(ridge)
    with ridge.state.write() as connection:
        assert add_photo(connection, first, "a" * 64, "whole", "Example Hanako", ridge.now_us)
        assert not add_photo(connection, first, "a" * 64, "whole", "Example Hanako", ridge.now_us), "again changes nothing"
    ridge.later(DAY_US)
    second = captured(ridge, 2)
    with pytest.raises(Refused) as refused, ridge.state.write() as connection:
        add_photo(connection, second, "a" * 64, "whole", "office", ridge.now_us)
    assert str(refused.value) == "This picture is in the dossier of another capture. Each capture needs its own pictures."


def test_one_picture_is_not_two_items_of_the_list(ridge: Town) -> None:
    id_ = captured(ridge)
    with ridge.state.write() as connection:
        add_photo(connection, id_, "a" * 64, "whole", "office", ridge.now_us)
    with pytest.raises(Refused, match="as whole"), ridge.state.write() as connection:
        add_photo(connection, id_, "a" * 64, "tail", "office", ridge.now_us)


# --- what a person says of a picture ------------------------------------------------------------------------


def picture(seq: int, content: str = "unsure", **more: Any) -> dict[str, Any]:
    return {"seq": seq, "dt": 0, "device": "cam-02", "type": "media_captured", "class": "evidence", "media": f"{seq:064x}",
            "size": 9, "content_type": "image/jpeg", "content": content, "withheld": False, **more}  # fmt: skip


def said_of(ridge: Town, answer: Any) -> None:
    [alert] = [row["id"] for row in ridge.rows(tables.alerts) if row["rule"] == "animals" and row["state"] == "firing"]
    with ridge.state.write() as connection:
        confirm_alert(connection, alert, answer, "c0ffee", ridge.now_us)
    ridge.later(SECOND_US)
    ridge.tick()


def test_one_tap_says_that_it_is_no_animal_and_the_correction_is_kept_beside_the_models_word(ridge: Town) -> None:
    ridge.process(batch(events=[picture(1, "animal", species="boar")]))
    ridge.later(MINUTE_US)
    ridge.tick()
    assert alerts(ridge, "animals") == ["firing"]
    said_of(ridge, "no_animal")
    assert alerts(ridge, "animals") == ["resolved"]
    [row] = ridge.rows(tables.pictures)
    assert (row["content"], row["species"], row["confirmed_content"]) == ("animal", "boar", "no_animal")


def test_one_tap_says_that_it_is_a_bear_and_that_is_a_critical_alert_of_its_own(ridge: Town) -> None:
    ridge.process(batch(events=[picture(1), picture(2)]))
    ridge.later(MINUTE_US)
    ridge.tick()
    said_of(ridge, "bear")
    said_of(ridge, "bear")
    found = [(row["severity"], row["state"]) for row in ridge.rows(tables.alerts) if row["rule"] == "animals"]
    assert sorted(found) == [("critical", "firing"), ("warning", "resolved")]


def test_answers_of_other_alerts_say_nothing_of_pictures(ridge: Town) -> None:
    with ridge.state.write() as connection:
        assert confirm_alert(connection, "no such alert", "going", "c0ffee", ridge.now_us) == []
        assert confirm_alert(connection, "no such alert", "bear", "c0ffee", ridge.now_us) == []


def test_a_person_seen_by_a_person_closes_a_picture_to_others_and_an_animal_opens_none(ridge: Town) -> None:
    from gateway.pictures import confirm

    ridge.process(batch(events=[picture(1, "animal"), picture(2, "unsure")]))
    with ridge.state.write() as connection:
        assert is_open(connection, f"{1:064x}")
        confirm(connection, f"{1:064x}", "person_or_vehicle", None, "office", ridge.now_us)
        confirm(connection, f"{2:064x}", "animal", None, "office", ridge.now_us)
        assert not is_open(connection, f"{1:064x}")
        assert not is_open(connection, f"{2:064x}")


def test_facts_of_the_gateway_have_numbers_of_their_own_and_come_in_order(ridge: Town) -> None:
    with ridge.state.write() as connection:
        rows = [add_fact(connection, node, "d", "x", {}, 1, 2) for node in ("n", "m", "n")]
    assert [(row["node"], row["epoch"], row["seq"]) for row in rows] == [
        ("n", "gateway", 1), ("m", "gateway", 1), ("n", "gateway", 2)
    ]  # fmt: skip
