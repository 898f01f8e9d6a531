"""The table of an alert's life, cell by cell, and which contacts it goes to."""

import uuid
from dataclasses import replace
from typing import Any

import pytest

from gateway.alerting.lifecycle import Alert, Subject, acknowledge, advance, alert_id
from gateway.alerting.route import Match, RouteConfig, route_for
from gateway.rules import Verdict

SUBJECT = Subject("sprung", "trap", "critical", "kitayama-03", "trap-11")


def alert_in(state: Any) -> Alert | None:
    if state is None:
        return None
    [opened] = advance(None, Verdict("pending", 100, "o"), SUBJECT, 1000)
    return replace(opened.alert, state=state)


@pytest.mark.parametrize(
    ("level", "state", "moves"),
    [
        ("ok", None, []),
        ("ok", "pending", [("resolved", False)]),
        ("ok", "firing", [("resolved", False)]),
        ("ok", "acknowledged", [("resolved", False)]),
        ("pending", None, [("pending", False)]),
        ("pending", "pending", []),
        ("pending", "firing", []),
        ("pending", "acknowledged", []),
        ("firing", None, [("firing", True)]),
        ("firing", "pending", [("firing", True)]),
        ("firing", "firing", []),
        ("firing", "acknowledged", []),
    ],
)
def test_what_a_verdict_does(level: Any, state: str | None, moves: list[tuple[str, bool]]) -> None:
    current = alert_in(state)
    found = advance(current, Verdict(level, 200, "o", reason="why"), SUBJECT, 2000)
    assert [(move.alert.state, move.tell) for move in found] == moves
    for move in found:
        assert (move.before, move.why) == (state, "why")
        assert move.alert.version == (current.version + 1 if current else 1)
        assert (move.alert.resolved_us == 2000) is (move.alert.state == "resolved")
        assert (move.alert.fired_us == 2000) is (move.alert.state == "firing")


@pytest.mark.parametrize("level", ["pending", "firing"])
@pytest.mark.parametrize("state", ["pending", "firing", "acknowledged"])
def test_another_opening_is_another_alert(level: Any, state: str) -> None:
    current = alert_in(state)
    assert current is not None
    over, new = advance(current, Verdict(level, 200, "other", reason="why"), SUBJECT, 2000)
    assert (over.alert.id, over.before, over.alert.state, over.tell) == (current.id, state, "resolved", False)
    assert (new.alert.opening, new.before, new.alert.state, new.tell) == ("other", None, level, level == "firing")
    assert new.alert.id != current.id


@pytest.mark.parametrize("state", ["pending", "acknowledged", "resolved"])
def test_only_a_firing_alert_can_be_acknowledged(state: str) -> None:
    current = alert_in(state)
    assert current is not None
    assert acknowledge(current, "tanaka", 3000) is None
    answered = acknowledge(replace(current, state="firing"), "tanaka", 3000)
    assert answered is not None
    assert (answered.state, answered.acknowledged_by, answered.acknowledged_us, answered.version) == (
        "acknowledged", "tanaka", 3000, 2,
    )  # fmt: skip


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
