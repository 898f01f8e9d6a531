"""What a node should run: asked once, signed, told until it is answered; answers count only to what was asked."""

import json
from datetime import date
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection
from sqlalchemy.exc import OperationalError

from edge.contract.messages import MAX_BYTES, encode
from edge.contract.remote import Desired, RemoteBroker, Reported
from edge.contract.topics import Channel, Topic, topic_for
from edge.signature import believed
from gateway.nodes import expected
from gateway.nodes.desired import NotAsked, Overtaken, ask
from gateway.nodes.known import UnknownNode
from gateway.pipeline import Message
from gateway.state import tables
from tests.gateway.town import MINUTE_US, NODE, SIGNER, Town, birth, locked

TRAP: dict[str, Any] = {"trap-11": {"type": "reed_trap", "pin": 17}}
DOWN = topic_for(Topic(NODE, Channel.DESIRED))


@pytest.fixture
def known(town: Town) -> Town:
    """Its node was born and runs its own file."""
    town.process(birth())
    assert town.goes_down(anew=True) == []
    return town


def asked(town: Town, devices: Any = None, broker: RemoteBroker | None = None, **more: Any) -> int:
    return ask(town.state, SIGNER, more.pop("node", NODE), devices or TRAP, broker, town.now_us, "tanaka", **more)


def reports(
    town: Town, revision: int, outcome: Any = "applied", *, running: int | None = None, sha256: str | None = "asked",
    reason: str | None = None, retained: bool = False, node: str = NODE,
) -> Message:  # fmt: skip
    if sha256 == "asked":
        sha256 = next(row["sha256"] for row in town.rows(tables.desired) if row["revision"] == revision)
    said = Reported(
        revision=revision, sha256=sha256, outcome=outcome, running=revision if running is None else running, reason=reason
    )
    return Message(topic_for(Topic(node, Channel.REPORTED)), encode(said), retained)


def outcomes(town: Town) -> list[tuple[int, str | None, str | None]]:
    return sorted((row["revision"], row["outcome"], row["reason"]) for row in town.rows(tables.desired))


def test_what_is_asked_goes_down_once_and_the_node_can_believe_it(known: Town) -> None:
    broker = RemoteBroker(keepalive_s=60)
    assert asked(known, {"cam-02": {"type": "trail_camera", "folder": "/media/cam-02"}}, broker) == 1

    (down,) = known.goes_down()

    assert (down.topic, down.retain) == (DOWN, True)
    statement, sha256 = believed(down.payload, [SIGNER.public], Desired, NODE)
    assert statement.revision == 1
    assert statement.device == {"cam-02": {"type": "trail_camera", "folder": "/media/cam-02"}}
    assert statement.broker == broker
    assert known.rows(tables.desired)[0]["sha256"] == sha256
    assert known.goes_down() == []


def test_it_is_told_on_each_new_connection_until_it_is_answered(known: Town) -> None:
    asked(known)
    assert len(known.goes_down()) == 1
    assert len(known.goes_down(anew=True)) == 1, "perhaps it never reached the broker"
    known.restart()
    assert len(known.goes_down(anew=True)) == 1, "nor does a restart forget it"

    known.process(reports(known, 1))

    assert outcomes(known) == [(1, "applied", None)]
    assert known.goes_down(anew=True) == []


def test_revisions_only_grow_also_beyond_what_the_node_knows_from_before_a_backup_was_put_back(known: Town) -> None:
    assert [asked(known), asked(known)] == [1, 2]
    known.process(birth(runs=7))
    assert asked(known) == 8
    (down,) = known.goes_down()
    assert believed(down.payload, [SIGNER.public], Desired, NODE)[0].revision == 8, "only the newest is of use"


def test_a_broker_that_forgot_is_told_again_when_the_node_is_born_with_less(known: Town) -> None:
    asked(known)
    known.goes_down()
    known.process(reports(known, 1))

    known.process(birth(runs=1))
    assert known.goes_down() == []
    known.process(birth(runs=None))  # a new card: it knows of nothing
    assert [down.topic for down in known.goes_down()] == [DOWN]
    assert known.goes_down() == [], "once a birth"


def test_a_node_that_said_it_cannot_is_not_asked_the_same_again(known: Town) -> None:
    asked(known)
    known.goes_down()
    known.process(reports(known, 1, "failed", running=0, reason="device.trap-11.pin: 99 is no pin"))
    assert outcomes(known) == [(1, "failed", "device.trap-11.pin: 99 is no pin")]

    known.process(birth(runs=None))
    assert known.goes_down(anew=True) == []
    asked(known)
    assert len(known.goes_down()) == 1


def test_a_node_that_runs_more_than_we_know_of_is_not_told_the_old(known: Town) -> None:
    asked(known)
    known.goes_down()
    known.process(birth(runs=5))
    assert known.goes_down() == []


def test_the_same_report_again_changes_nothing(known: Town) -> None:
    asked(known)
    known.process(reports(known, 1))
    before = known.rows(tables.desired)
    known.later(MINUTE_US)
    known.process(reports(known, 1, retained=True), reports(known, 1))
    assert known.rows(tables.desired) == before
    assert known.reasons() == []


def test_what_was_applied_may_still_fail_when_the_link_does_not_come_back(known: Town) -> None:
    asked(known)
    known.process(reports(known, 1))
    known.process(reports(known, 1, "failed", running=0, reason="the link did not come back in 5 min"))
    assert outcomes(known) == [(1, "failed", "the link did not come back in 5 min")]


def test_what_a_broker_remembers_from_before_does_not_undo_the_nodes_last_word(known: Town) -> None:
    asked(known)
    known.process(reports(known, 1))
    known.process(reports(known, 1, "failed", running=0, reason="the link did not come back in 5 min"))
    known.process(reports(known, 1, retained=True))
    assert outcomes(known) == [(1, "failed", "the link did not come back in 5 min")]


def test_a_late_report_says_nothing_of_the_newer_revision(known: Town) -> None:
    asked(known)
    asked(known)
    known.process(reports(known, 2))
    known.process(reports(known, 1, "failed", running=2, reason="overtaken"))
    assert outcomes(known) == [(1, "failed", "overtaken"), (2, "applied", None)]


def test_a_report_says_what_runs_unless_the_broker_had_kept_it(known: Town) -> None:
    asked(known)
    known.process(reports(known, 1, retained=True))
    assert known.rows(tables.nodes)[0]["config_revision"] is None, "the birth is younger than what the broker remembers"
    known.process(reports(known, 1))
    assert known.rows(tables.nodes)[0]["config_revision"] == 1
    known.process(reports(known, 0, sha256=None))
    assert known.rows(tables.nodes)[0]["config_revision"] == 0
    assert outcomes(known) == [(1, "applied", None)]


@pytest.mark.parametrize(
    ("changed", "reason"),
    [
        ({"revision": 9, "sha256": "a" * 64}, "revision 9, which this gateway never asked"),
        ({"revision": 1, "sha256": "a" * 64}, "its sha256 differs"),
        ({"revision": 1, "sha256": None}, "without the sha256"),
        ({"revision": 1, "node": "minami-01"}, "never asked of minami-01"),
    ],
)
def test_a_report_on_what_was_not_asked_is_refused(known: Town, changed: dict[str, Any], reason: str) -> None:
    asked(known)
    known.process(reports(known, **changed))
    assert outcomes(known) == [(1, None, None)]
    (kept,) = known.reasons()
    assert reason in kept


def test_a_locked_database_costs_only_time(known: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    asked(known)

    def is_locked(_: Connection) -> Any:  # after the documents were looked through
        raise locked()

    with monkeypatch.context() as patched:
        patched.setattr(expected, "newest", is_locked)
        with pytest.raises(OperationalError):
            known.goes_down()
    assert len(known.goes_down()) == 1


def test_who_has_not_seen_the_newest_is_told_so(known: Town) -> None:
    assert asked(known, after=0) == 1
    with pytest.raises(Overtaken) as overtaken:
        asked(known, after=0)
    assert overtaken.value.revision == 1
    assert asked(known, after=1) == 2


@pytest.mark.parametrize(
    ("devices", "wrong"),
    [
        ({"Trap 11": TRAP["trap-11"]}, "device: 'Trap 11' is no name"),
        ({"trap-11": 17}, r"device.trap-11: is no table with a type"),
        ({"trap-11": {"pin": 17}}, r"device.trap-11: is no table with a type"),
        ({"trap-11": {"type": "reed_trap", "since": date(2026, 6, 3)}}, "device.trap-11.since: is a date"),
        ({"trap-11": {"type": "reed_trap", "x": [1, None]}}, "device.trap-11.x.1: is null"),
        ({"trap-11": {"type": "reed_trap", "x": float("nan")}}, "device.trap-11.x: is nan"),
        ({"trap-11": {"type": "reed_trap", "x": 2**53}}, "device.trap-11.x: is beyond"),
        ({"trap-11": {"type": "reed_trap", "x": "\ud83d"}}, "device.trap-11.x: holds half a letter"),
        ({f"trap-{n}": {"type": "reed_trap"} for n in range(1001)}, "1,001 devices"),
        ({f"trap-{n}": {"type": "reed_trap", "note": "x" * 700} for n in range(100)}, f"at most {MAX_BYTES:,}"),
    ],
)
def test_what_cannot_travel_is_refused_with_its_place(known: Town, devices: dict[str, Any], wrong: str) -> None:
    with pytest.raises(NotAsked, match=wrong):
        asked(known, devices)
    assert known.rows(tables.desired) == []


def test_no_devices_and_a_wrong_broker_are_refused(known: Town) -> None:
    with pytest.raises(NotAsked, match="names no device"):
        ask(known.state, SIGNER, NODE, {}, None, known.now_us, "tanaka")
    with pytest.raises(NotAsked, match=r"broker\.url: .*mqtts://"):
        asked(known, broker=RemoteBroker(url="http://broker.example"))
    with pytest.raises(NotAsked, match=r"broker\.keepalive_s"):
        asked(known, broker=RemoteBroker(keepalive_s=1))


def test_a_misspelt_node_is_not_asked_in_vain(known: Town) -> None:
    with pytest.raises(UnknownNode, match="kitayama-33"):
        asked(known, node="kitayama-33")


_json = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=5), inner, max_size=3)),
    max_leaves=8,
)


@given(settings_=st.dictionaries(st.text(max_size=8), _json, max_size=4))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_whatever_is_asked_arrives_as_it_was_or_is_refused(known: Town, settings_: dict[str, Any]) -> None:
    devices = {"trap-11": {**settings_, "type": "reed_trap"}}
    try:
        revision = asked(known, devices)
    except NotAsked:
        return
    (down,) = known.goes_down()
    statement, _ = believed(down.payload, [SIGNER.public], Desired, NODE)
    assert (statement.revision, statement.device) == (revision, devices)


@given(st.one_of(st.binary(max_size=80), st.dictionaries(st.sampled_from(["v", "revision", "sha256", "outcome", "running"]),
       st.one_of(st.integers(), st.text(max_size=5), st.none())).map(lambda said: json.dumps(said).encode())))  # fmt: skip
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60, deadline=None)
def test_no_report_breaks_the_pipeline(known: Town, payload: bytes) -> None:
    known.process(Message(topic_for(Topic(NODE, Channel.REPORTED)), payload))
    assert not any("broke the pipeline" in reason for reason in known.reasons())
