"""An installation is done once somebody answered its test alarm: whichever came first, once, and its installer is told."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import insert, select, update

from gateway.alerting.route import RouteConfig
from gateway.contacts.config import GroupConfig
from gateway.installations import Installations, Installed, enter, one, telling
from gateway.notify.message import Message
from gateway.rules.trial import TrialConfig
from gateway.state import tables
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, NOW_US, SECOND_US, Killed, Town, batch, event

HERS, OTHER = "11111111-1111-4111-8111-111111111111", "22222222-2222-4222-8222-222222222222"
ACCOUNT = "a" * 16
TRIAL = {"trial": TrialConfig(type="trial", severity="critical")}


class Mountain:
    """A town where Kobayashi puts up a trap, and Tanaka is told of tests."""

    def __init__(self, town: Town) -> None:
        self.town, self.seq = town, 0
        with town.state.write() as connection:
            for id_, name in (("kobayashi", "小林"), ("tanaka", "田中")):
                connection.execute(insert(tables.contacts), {"id": id_, "name": name, "created_us": 0, "created_by": "test"})
                address = {"id": id_, "contact": id_, "channel": "line", "address": f"U-{id_}", "rank": 0, "state": "proved"}
                connection.execute(insert(tables.addresses), {**address, "created_us": 0})
            connection.execute(insert(tables.memberships), {"team": "farmers", "contact": "tanaka"})
            row = {
                "id": ACCOUNT,
                "name": "小林",
                "roles": "installer",
                "contact": "kobayashi",
                "created_us": 0,
                "created_by": "t",
            }
            connection.execute(insert(tables.accounts), row)
        self.begin()

    def begin(self) -> None:
        self.chore = Installations(self.town.state, telling(self.town.paging.notices, self.town.deployments))

    def put_up(self, id_: str = HERS, *, tripped_us: int | None = NOW_US, device: str = "trap-11", **more: str) -> None:
        with self.town.state.write() as connection:
            said = Installed(id_, NODE, device, NOW_US - MINUTE_US, tripped_us=tripped_us, **more)  # type: ignore[arg-type]
            assert enter(connection, said, "小林", ACCOUNT, self.town.now_us)

    def trip(self, dt_us: int = 0, device: str = "trap-11") -> None:
        """The node's test alarm arrives, made so long after NOW_US."""
        self.seq += 1
        sounds = event(self.seq, type_="test_alarm", device=device, token=f"{self.seq:016x}")
        self.town.process(batch(events=[sounds], t0=NOW_US + dt_us, mono0=1000 * SECOND_US + dt_us, sent=self.town.now_us))

    def answered(self) -> None:
        """Tanaka presses the button of what came last."""
        with self.town.state.write() as connection:
            mine = select(tables.notifications).where(tables.notifications.c.contact == "tanaka")
            newest = connection.execute(mine.order_by(tables.notifications.c.created_us.desc())).first()
            assert newest is not None
            sent = update(tables.notifications).where(tables.notifications.c.id == newest.id)
            connection.execute(sent.values(state="sent", sent_us=self.town.now_us))
            self.town.paging.answers.answer_to(connection, newest.id, "seen", "line", self.town.now_us)

    def close(self) -> None:
        self.town.later(5 * SECOND_US)
        self.chore.close(self.town.now_us)

    def state(self, id_: str = HERS) -> tuple[str, str | None, list[str]]:
        with self.town.state.read() as connection:
            row = one(connection, id_)
        return row["state"], row["answered_by"], list(row["told"])

    def told(self) -> list[Message]:
        """What Kobayashi was told."""
        return [
            Message.model_validate_json(row["body"])
            for row in self.town.rows(tables.notifications)
            if row["contact"] == "kobayashi"
        ]


@pytest.fixture
def mountain(tmp_path: Path) -> Iterator[Mountain]:
    groups = {"farmers": GroupConfig(label="わな番")}
    with Town(tmp_path, dict(TRIAL), [RouteConfig(to=["farmers"], needed=0)], groups=groups) as town:
        yield Mountain(town)


def test_it_is_done_when_somebody_answers_and_the_installer_hears_who(mountain: Mountain) -> None:
    mountain.put_up()
    mountain.trip()
    mountain.close()
    assert mountain.state()[0] == "waiting", "that it was sent is no answer"
    assert mountain.told() == []

    mountain.answered()
    mountain.close()
    mountain.close()
    assert mountain.state() == ("done", "田中", ["田中"])
    [told] = mountain.told()
    assert (told.title, told.body) == ("北尾根 3番の設置が完了しました", "田中さんが試験の知らせに答えました。")
    assert told.buttons == ()


def test_an_alarm_that_the_phone_outlived_in_a_valley_counts_all_the_same(mountain: Mountain) -> None:
    """The node's alarm was answered hours before the phone could tell what it was for."""
    mountain.trip()
    mountain.answered()
    mountain.town.later(5 * HOUR_US)
    mountain.put_up()
    mountain.close()
    assert mountain.state()[:2] == ("done", "田中")


def test_an_alarm_of_before_the_trip_or_of_another_device_ends_nothing(mountain: Mountain) -> None:
    mountain.trip()
    mountain.answered()
    mountain.town.later(HOUR_US)
    mountain.put_up(tripped_us=NOW_US + HOUR_US)
    mountain.put_up(OTHER, device="cam-02")
    mountain.close()
    assert [mountain.state(id_)[0] for id_ in (HERS, OTHER)] == ["waiting", "waiting"]


def test_an_answer_ends_nothing_after_its_installer_said_that_somebody_must_come_again(mountain: Mountain) -> None:
    mountain.put_up()
    mountain.trip()
    mountain.town.later(MINUTE_US)
    said = Installed(OTHER, NODE, "trap-11", NOW_US, revisit="板が外れた")
    with mountain.town.state.write() as connection:
        assert enter(connection, said, "小林", ACCOUNT, mountain.town.now_us)
    mountain.answered()
    mountain.close()
    assert [mountain.state(id_)[0] for id_ in (HERS, OTHER)] == ["waiting", "revisit"]
    assert mountain.told() == []


def test_an_earlier_revisit_or_one_of_another_device_keeps_nothing_from_its_end(mountain: Mountain) -> None:
    with mountain.town.state.write() as connection:
        for id_, device, begun_us in ((OTHER, "trap-11", NOW_US - HOUR_US), (OTHER[:-1] + "3", "cam-02", NOW_US)):
            assert enter(connection, Installed(id_, NODE, device, begun_us, revisit="雪が深い"), "小林", ACCOUNT, NOW_US)
    mountain.put_up()
    mountain.trip()
    mountain.answered()
    mountain.close()
    assert mountain.state()[:2] == ("done", "田中")


def test_one_alarm_ends_one_installation_the_one_whose_trip_it_was(mountain: Mountain) -> None:
    mountain.put_up()
    mountain.town.later(HOUR_US)
    mountain.put_up(OTHER, tripped_us=NOW_US + HOUR_US)
    mountain.trip(HOUR_US)
    mountain.answered()
    mountain.close()
    mountain.close()
    assert [mountain.state(id_)[0] for id_ in (HERS, OTHER)] == ["waiting", "done"]
    assert len(mountain.told()) == 1


@pytest.mark.parametrize(("tripped_us", "days", "state"), [
    (NOW_US, 29, "done"), (1, 29, "done"), (1, 31, "waiting"), (NOW_US + 9999 * HOUR_US, 0, "done"),
])  # fmt: skip
def test_a_phone_that_has_lost_its_time_claims_no_alarm_of_long_ago(
    mountain: Mountain, tripped_us: int, days: int, state: str
) -> None:
    """Nor does one whose clock is ahead wait for ever: no trip was begun after it was told of."""
    mountain.trip()
    mountain.answered()
    mountain.town.later(days * 24 * HOUR_US)
    mountain.put_up(tripped_us=tripped_us)
    mountain.close()
    assert mountain.state()[0] == state


def test_what_must_be_visited_again_or_was_not_tried_never_becomes_done(mountain: Mountain) -> None:
    mountain.put_up(revisit="雪が深い")
    mountain.put_up(OTHER, tripped_us=None)
    mountain.trip()
    mountain.answered()
    mountain.close()
    assert [mountain.state(id_)[0] for id_ in (HERS, OTHER)] == ["revisit", "waiting"]
    assert mountain.told() == []


def test_killed_at_any_moment_it_is_done_once_and_told_once(mountain: Mountain) -> None:
    mountain.put_up()
    mountain.trip()
    mountain.answered()
    steps = mountain.town.steps
    for wait in range(3):  # before the transaction, before its commit, after it
        steps.taken.clear()
        steps.fail_at = wait
        try:
            mountain.close()
        except Killed:
            mountain.town.restart()
            mountain.begin()
        done = mountain.state()[0] == "done"
        assert len(mountain.told()) == int(done), "done and told are one"
    steps.fail_at = None
    mountain.close()
    assert mountain.state()[0] == "done"
    assert len(mountain.told()) == 1


def test_whose_account_has_no_contact_is_not_told_and_nor_is_the_office(mountain: Mountain) -> None:
    with mountain.town.state.write() as connection:
        connection.execute(update(tables.accounts).values(contact=None))
    mountain.put_up()
    mountain.trip()
    mountain.answered()
    mountain.close()
    assert mountain.state()[0] == "done"
    assert {row["contact"] for row in mountain.town.rows(tables.notifications)} == {"tanaka"}


def test_one_of_the_staff_who_acknowledges_it_answers_it(mountain: Mountain) -> None:
    mountain.put_up()
    mountain.trip()
    with mountain.town.state.write() as connection:
        acknowledged = {"acknowledged_us": mountain.town.now_us, "acknowledged_by": "staff:佐藤"}
        connection.execute(update(tables.alerts).values(state="acknowledged", **acknowledged))
    mountain.close()
    assert mountain.state()[:2] == ("done", "佐藤")
    assert json.loads(mountain.town.rows(tables.installations)[0]["photos"]) == []
