"""Rotating tags: nodes hear what to expect in the coming hours, never a key; what is forgotten is gone from the files."""

import logging
from functools import partial
from pathlib import Path

import pytest

from edge.contract.messages import MAX_BYTES
from edge.contract.remote import MAX_EXPECTED, Expected
from edge.contract.topics import Channel, Topic, parse, topic_for
from edge.signature import believed
from gateway.nodes.desired import ask
from gateway.nodes.eid import eid
from gateway.nodes.expected import NotEnrolled, add_tag, make, remove_tag
from gateway.nodes.outgoing import AT_ONCE, Down, Outgoing
from gateway.state import tables
from gateway.state.upsert import upsert
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, SIGNER, Town, birth

KEY = b"\xa1key-of-a-tag-1\xa1"
DAY_US = 24 * HOUR_US


def enrol(town: Town, tag: str = "tag-1", *, key: bytes = KEY, exponent: int = 12, age_us: int = DAY_US) -> None:
    add_tag(town.state, tag, key, exponent, town.now_us - age_us, town.now_us)


def born(town: Town, *nodes: str) -> None:
    town.process(*(birth(node=node, devices=["tags-1"], kind="ble-tags") for node in nodes))


def told(downs: list[Down]) -> dict[str, Expected]:
    """By node, each believed as the node would."""
    found = {}
    for down in downs:
        topic = parse(down.topic)
        assert (topic.channel, down.retain) == (Channel.EXPECTED, True)
        assert len(down.payload) <= MAX_BYTES
        found[topic.node], _ = believed(down.payload, [SIGNER.public], Expected, topic.node)
    return found


def test_only_nodes_that_listen_hear_what_a_tag_calls_itself_now_and_in_the_coming_day(town: Town) -> None:
    born(town, NODE)
    town.process(birth(node="minami-01", devices=["trap-1"]))
    enrol(town)

    heard = told(town.goes_down(anew=True))

    assert set(heard) == {NODE}
    for hours in (0, 12, 23):
        at_us = town.now_us + hours * HOUR_US
        its_clock_s = (DAY_US + hours * HOUR_US) // 1_000_000
        says = eid(KEY, 12, its_clock_s).hex()
        assert [tag for name, tag, low, high in heard[NODE].tags if name == says and low <= at_us < high] == ["tag-1"]
    assert town.goes_down() == []


def test_a_node_whose_certificates_were_revoked_hears_nothing_more(town: Town) -> None:
    """A stolen one may still be on a broker that was not started again."""
    born(town, NODE, "minami-01", "higashi-01")
    enrol(town)
    with town.state.write() as connection:
        for serial, node, revoked_us in ((1, NODE, 1), (2, NODE, None), (3, "minami-01", 1)):
            row = {"serial": f"{serial}", "node": node, "issued_us": 0, "not_after_us": 2, "revoked_us": revoked_us}
            connection.execute(tables.certificates.insert().values(**row))
    assert set(told(town.goes_down(anew=True))) == {NODE, "higashi-01"}


@pytest.mark.parametrize(("outcome", "hears"), [(None, True), ("applied", True), ("failed", False)])
def test_what_a_node_should_run_decides_over_what_it_announces(town: Town, outcome: str | None, hears: bool) -> None:
    """One that is in others' hands could announce anything. What it could not run it does not run."""
    born(town, "minami-01")
    town.process(birth(devices=["trap-1"]))
    ask(town.state, SIGNER, NODE, {"tags-1": {"type": "ble_tags"}}, None, town.now_us, "tanaka")
    ask(town.state, SIGNER, "minami-01", {"trap-1": {"type": "reed_trap", "note": "no ble_tags"}}, None, town.now_us, "tanaka")
    with town.state.write() as connection:
        connection.execute(tables.desired.update().where(tables.desired.c.node == NODE).values(outcome=outcome))
    enrol(town)
    downs = [down for down in town.goes_down(anew=True) if parse(down.topic).channel == Channel.EXPECTED]
    assert set(told(downs)) == ({NODE} if hears else set())


def test_a_town_without_such_tags_says_nothing(town: Town) -> None:
    born(town, NODE)
    assert town.goes_down(anew=True) == []


def test_it_is_told_anew_each_hour_when_tags_change_and_on_each_connection(town: Town) -> None:
    born(town, NODE)
    enrol(town)
    revisions = [told(town.goes_down(anew=True))[NODE].revision]
    town.later(HOUR_US - MINUTE_US)
    assert town.goes_down() == []
    town.later(MINUTE_US)
    revisions.append(told(town.goes_down())[NODE].revision)
    assert told(town.goes_down(anew=True))[NODE].revision == revisions[-1], "the same list, said again"
    enrol(town, "tag-2", key=bytes(16))
    heard = told(town.goes_down())[NODE]
    assert {tag for _, tag, _, _ in heard.tags} == {"tag-1", "tag-2"}
    revisions.append(heard.revision)
    town.restart()
    revisions.append(told(town.goes_down(anew=True))[NODE].revision)
    assert revisions == sorted(set(revisions))


def test_several_processes_that_each_speak_to_their_own_nodes_tell_each_node_once(town: Town) -> None:
    theirs = ["kitayama-03", "minamisawa-01"]
    born(town, *theirs)
    enrol(town)
    processes = [Outgoing(town.state, SIGNER) for _ in theirs]
    for process, node in zip(processes, theirs, strict=True):
        process.speaks_to = partial(str.__eq__, node)

    def told_at_once() -> list[tuple[str, int]]:
        rounds = [process.messages(town.now_us, anew=False) for _ in range(5) for process in processes]
        return [(node, heard.revision) for downs in rounds for node, heard in told(downs).items()]

    told_at_once()  # whoever has just begun can't know what was told before, so the first may tell twice
    revisions: list[int] = []
    for changed in (False, True, False):
        if changed:
            enrol(town, "tag-2", key=bytes(16))
        else:
            town.later(HOUR_US)
        heard = told_at_once()
        assert [node for node, _ in heard] == theirs
        [revision] = {revision for _, revision in heard}
        revisions.append(revision)
    assert revisions == sorted(set(revisions))


def test_a_node_that_begins_to_listen_hears_it_too(town: Town) -> None:
    enrol(town)
    assert town.goes_down(anew=True) == []
    born(town, NODE)
    assert set(told(town.goes_down())) == {NODE}
    born(town, NODE)
    assert town.goes_down() == [], "its broker has it"


def test_many_nodes_hear_it_a_few_at_a_time_so_that_traps_need_not_wait(town: Town) -> None:
    names = [f"node-{number:02d}" for number in range(2 * AT_ONCE + 1)]
    born(town, *names)
    enrol(town)
    rounds = [list(told(town.goes_down(anew=not number))) for number in range(4)]
    assert [len(one) for one in rounds] == [AT_ONCE, AT_ONCE, 1, 0]
    assert [node for one in rounds for node in one] == names


@pytest.mark.sqlite_only("looks into the file")
def test_a_forgotten_tag_is_not_expected_any_more_and_its_key_is_nowhere(town: Town) -> None:
    born(town, NODE)
    enrol(town)
    town.goes_down(anew=True)
    files = [path for path in town.folder.iterdir() if path.name.startswith("state.db")]
    assert any(KEY in path.read_bytes() for path in files), "it was there"

    assert remove_tag(town.state, "tag-1", town.now_us) is True

    assert [path.name for path in Path(town.folder).iterdir() if path.is_file() and KEY in path.read_bytes()] == []
    assert told(town.goes_down())[NODE].tags == []
    assert remove_tag(town.state, "tag-1", town.now_us) is False


def test_keys_stay_out_of_messages_errors_and_the_log(town: Town, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    born(town, NODE)
    enrol(town)
    said = b"".join(down.payload for down in town.goes_down(anew=True)).decode() + caplog.text
    with pytest.raises(NotEnrolled) as refused:
        enrol(town, key=KEY[:-1])
    said += str(refused.value)
    assert KEY.hex() not in said
    assert KEY[:-1].hex() not in said
    assert repr(KEY)[2:-1] not in said


@pytest.mark.parametrize(
    ("tag", "exponent", "age_us", "wrong"),
    [("Tag 1", 12, 0, "tag:"), ("tag-1", 7, 0, "exponent:"), ("tag-1", 16, 0, "exponent:"), ("tag-1", 12, -1, "zero_us:")],
)
def test_what_is_no_rotating_tag_is_refused(town: Town, tag: str, exponent: int, age_us: int, wrong: str) -> None:
    with pytest.raises(NotEnrolled, match=wrong):
        enrol(town, tag, exponent=exponent, age_us=age_us)


def test_more_tags_than_a_node_can_be_told_of_are_refused_while_they_are_enrolled(town: Town) -> None:
    born(town, NODE)
    with pytest.raises(NotEnrolled, match=r"more identifiers than a node can be told \(1,000\)"):  # noqa: PT012 - until it is full
        for number in range(MAX_EXPECTED):
            enrol(town, f"a-tag-with-a-long-name-{number:03d}", exponent=10)
    enrolled = len(town.rows(tables.rotating_tags))
    assert enrolled > 50
    heard = told(town.goes_down(anew=True))[NODE]
    assert len({tag for _, tag, _, _ in heard.tags}) == enrolled, "and all that are, are told"


def test_tags_that_have_grown_too_unsure_are_told_as_far_as_they_fit_and_the_log_says_so(
    town: Town, caplog: pytest.LogCaptureFixture
) -> None:
    born(town, NODE)
    enrol(town)
    old = {"key": KEY, "exponent": 10, "zero_us": town.now_us - 20 * 365 * DAY_US}
    with town.state.write() as connection:
        connection.execute(upsert(tables.rotating_tags), [{"tag": f"old-{number}", **old} for number in range(10)])

    coming = make(town.state, town.now_us)

    assert len(coming.entries) <= MAX_EXPECTED
    now_us = town.now_us
    for tag, exponent, age_us in (("tag-1", 12, DAY_US), ("old-7", 10, 20 * 365 * DAY_US)):
        says = eid(KEY, exponent, age_us // 1_000_000).hex()
        assert [one.tag for one in coming.entries if one.eid == says and one.tag == tag and one.from_us <= now_us < one.until_us]
    assert "11 rotating tags need" in caplog.text
    assert topic_for(Topic(NODE, Channel.EXPECTED)) == town.goes_down(anew=True)[0].topic
