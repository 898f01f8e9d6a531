"""The table of an alert's life, cell by cell, and which contacts it goes to."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from gateway.alerting.lifecycle import Alert, Subject, acknowledge, advance, alert_id, resolve, settle, shelve, unshelve
from gateway.alerting.route import Match, RouteConfig, route_for
from gateway.rules import Verdict

SUBJECT = Subject("sprung", "trap", "critical", "kitayama-03", "trap-11")
SILENCE = "silence:3"


def alert_in(state: Any, *, told: bool = True) -> Alert | None:
    """An alert in that state; `told`: people were told of it before, where it has come so far."""
    if state is None:
        return None
    [opened] = advance(None, Verdict("pending", 100, "o"), SUBJECT, 1000)
    states: dict[str, dict[str, Any]] = {
        "shelved": {"shelved_until_us": 5000},
        "suppressed": {"suppressed_by": SILENCE},
        "acknowledged": {"acknowledged_by": "sato", "acknowledged_us": 1500},
    }
    fired_us = 1200 if told and state != "pending" else None
    return replace(opened.alert, state=state, fired_us=fired_us, **states.get(state, {}))


# ---- what a verdict does: the upper rows of the table ----------------------------------------------------

STATES = (None, "pending", "firing", "acknowledged", "shelved", "suppressed")
NOTHING: list[tuple[str, bool]] = []
VERDICTS: dict[tuple[str, str | None], list[list[tuple[str, bool]]]] = {
    ("ok", None): [NOTHING, *[[("resolved", False)]] * 5],
    ("pending", None): [[("pending", False)], *[NOTHING] * 5],
    ("firing", None): [[("firing", True)], [("firing", True)], *[NOTHING] * 4],
    ("firing", SILENCE): [[("suppressed", False)], [("suppressed", False)], *[NOTHING] * 4],
}


@pytest.mark.parametrize(
    ("level", "mute", "state", "moves"),
    [(*what, state, cell) for what, row in VERDICTS.items() for state, cell in zip(STATES, row, strict=True)],
)
def test_what_a_verdict_does(level: Any, mute: str | None, state: str | None, moves: list[tuple[str, bool]]) -> None:
    current = alert_in(state)
    found = advance(current, Verdict(level, 200, "o", reason="why"), SUBJECT, 2000, lambda _: mute)
    assert [(move.alert.state, move.tell) for move in found] == moves
    for move in found:
        assert (move.before, move.who) == (state, "rule")
        assert move.why == ("why" if mute is None or level != "firing" else f"why; {SILENCE}")
        assert move.alert.version == (current.version + 1 if current else 1)
        assert (move.alert.resolved_us == 2000) is (move.alert.state == "resolved")
        assert (move.alert.fired_us == 2000) is (move.alert.state == "firing")
        assert (move.alert.suppressed_by == SILENCE) is (move.alert.state == "suppressed")


@pytest.mark.parametrize("level", ["pending", "firing"])
@pytest.mark.parametrize("state", STATES[1:])
def test_another_opening_is_another_alert(level: Any, state: str) -> None:
    current = alert_in(state)
    assert current is not None
    over, new = advance(current, Verdict(level, 200, "other", reason="why"), SUBJECT, 2000)
    assert (over.alert.id, over.before, over.alert.state, over.tell) == (current.id, state, "resolved", False)
    assert (new.alert.opening, new.before, new.alert.state, new.tell) == ("other", None, level, level == "firing")
    assert new.alert.id != current.id


def test_an_alert_keeps_the_facts_the_count_and_the_severity_of_what_opened_it() -> None:
    verdict = Verdict("firing", 200, "o", facts={"species": "bear"}, times=3, severity="critical")
    [move] = advance(None, verdict, replace(SUBJECT, severity="info"), 2000)
    assert (move.alert.facts, move.alert.count, move.alert.severity) == ('{"species": "bear"}', 3, "critical")


# ---- what time and mutes do: the middle rows --------------------------------------------------------------


@pytest.mark.parametrize(
    ("state", "told", "now_us", "mute", "after", "tell"),
    [
        *[(state, True, 9000, mute, None, None) for state in ("pending", "acknowledged") for mute in (None, SILENCE)],
        ("firing", True, 9000, None, None, None),
        ("firing", True, 9000, SILENCE, "suppressed", False),
        ("suppressed", True, 9000, SILENCE, None, None),
        ("suppressed", True, 9000, "maintenance:x", "suppressed", False),
        ("suppressed", False, 9000, None, "firing", True),
        ("suppressed", True, 9000, None, "firing", False),
        ("shelved", True, 4999, None, None, None),
        ("shelved", True, 4999, SILENCE, None, None),
        ("shelved", True, 5000, None, "firing", True),
        ("shelved", True, 5000, SILENCE, "suppressed", False),
    ],
)
def test_what_time_and_mutes_do(
    state: str, told: bool, now_us: int, mute: str | None, after: str | None, tell: bool | None
) -> None:
    current = alert_in(state, told=told)
    assert current is not None
    move = settle(current, now_us, mute)
    assert (move.alert.state if move else None, move.tell if move else None) == (after, tell)
    if move:
        assert (move.before, move.alert.version, move.who) == (state, current.version + 1, "rule")
        assert move.alert.suppressed_by == (mute if after == "suppressed" else None)
        first_told_us = 1200 if state == "suppressed" and told else now_us
        assert after != "firing" or move.alert.fired_us == first_told_us


def test_a_shelf_that_ends_while_it_is_silenced_is_told_when_the_silence_ends() -> None:
    shelved = alert_in("shelved")
    assert shelved is not None
    muted = settle(shelved, 5000, SILENCE)
    assert muted is not None
    fired = settle(muted.alert, 6000, None)
    assert fired is not None
    assert (fired.alert.state, fired.tell, fired.why) == ("firing", True, f"{SILENCE} ended")


def test_nobody_has_acknowledged_what_comes_back_from_the_shelf() -> None:
    current = alert_in("acknowledged")
    assert current is not None
    shelved = shelve(current, 5000)
    assert shelved is not None
    back = settle(shelved, 5000, None)
    assert back is not None
    assert (back.alert.acknowledged_by, back.alert.acknowledged_us, back.alert.shelved_until_us) == (None, None, None)


# ---- what people do: the lower rows -----------------------------------------------------------------------

PEOPLE = ("pending", "firing", "acknowledged", "shelved", "suppressed", "resolved")


@pytest.mark.parametrize(("state", "can"), [*zip(PEOPLE, (False, True, False, True, True, False), strict=True)])
def test_who_acknowledges_takes_what_is_told_or_should_be(state: str, can: bool) -> None:
    current = alert_in(state)
    assert current is not None
    answered = acknowledge(current, "tanaka", 3000)
    assert (answered is not None) is can
    if answered:
        assert (answered.state, answered.acknowledged_by, answered.acknowledged_us, answered.version) == (
            "acknowledged", "tanaka", 3000, 2,
        )  # fmt: skip
        assert (answered.suppressed_by, answered.shelved_until_us) == (None, None)


@pytest.mark.parametrize(("state", "can"), [*zip(PEOPLE, (False, True, True, True, True, False), strict=True)])
def test_who_shelves_says_until_when(state: str, can: bool) -> None:
    current = alert_in(state)
    assert current is not None
    shelved = shelve(current, 7000)
    assert (shelved is not None) is can
    if shelved:
        assert (shelved.state, shelved.shelved_until_us, shelved.suppressed_by) == ("shelved", 7000, None)


@pytest.mark.parametrize("state", PEOPLE)
def test_only_what_is_shelved_is_taken_off_the_shelf(state: str) -> None:
    current = alert_in(state)
    assert current is not None
    taken = unshelve(current, 3000)
    assert (taken is not None) is (state == "shelved")
    if taken:
        fired = settle(taken, 3000, None)
        assert fired is not None
        assert (fired.alert.state, fired.tell) == ("firing", True)


@pytest.mark.parametrize("state", PEOPLE)
def test_a_person_resolves_what_is_open(state: str) -> None:
    current = alert_in(state)
    assert current is not None
    move = resolve(current, "tanaka", "seen on site", 3000)
    assert (move is not None) is (state != "resolved")
    if move:
        assert (move.alert.state, move.alert.resolved_us, move.who, move.why) == ("resolved", 3000, "tanaka", "seen on site")


def test_an_alert_has_the_same_id_for_the_same_thing_for_ever() -> None:
    one = alert_id(SUBJECT, "e:1")
    assert one == alert_id(replace(SUBJECT, kind="device", severity="info"), "e:1")
    assert uuid.UUID(one).version == 5
    others = [
        alert_id(SUBJECT, "e:2"),
        *(alert_id(replace(SUBJECT, **{field: "x"}), "e:1") for field in ("rule", "node", "device")),
    ]
    assert len({one, *others}) == 5


# ---- route ----------------------------------------------------------------------------------------------

ALERT = {"kind": "trap", "rule": "sprung", "severity": "critical", "node": "kitayama-03", "device": "trap-11"}


@pytest.mark.parametrize(
    ("matches", "taken"),
    [
        ([{}], 0),
        ([{"kind": "camera"}, {"kind": "trap"}, {}], 1),
        ([{"kind": "trap", "severity": "info"}, {"rule": "sprung", "node": "kitayama-03", "device": "trap-11"}], 1),
        ([{"kind": "camera"}], None),
        ([], None),
    ],
)
def test_the_first_route_that_fits_is_taken(matches: list[dict[str, str]], taken: int | None) -> None:
    routes = [RouteConfig(match=Match(**match), to=[f"contact-{i}"]) for i, match in enumerate(matches)]
    found = route_for(routes, ALERT)
    assert (found.to if found else None) == (None if taken is None else [f"contact-{taken}"])
