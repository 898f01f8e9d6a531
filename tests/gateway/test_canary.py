"""The daily canary: a real record that walks the whole way, once a day, and whose absence is told."""

import datetime as dt
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import update

from edge.contract.events import AlarmTest
from edge.contract.messages import Batch
from edge.contract.topics import Channel, parse
from gateway.canary import CANARY, Canary, CanaryConfig, due_day, message
from gateway.config import GatewayConfig
from gateway.notify.message import Message
from gateway.pipeline import Message as Published
from gateway.rules.occurrence import OccurrenceConfig
from gateway.state import tables
from tests.gateway.town import HOUR_US, MINUTE_US, NODE, NOW_US, Town, batch, event

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")
NINE_US = NOW_US + 168 * MINUTE_US  # 3 June 09:00 in Japan
DAY_US = 24 * HOUR_US
CONFIG = CanaryConfig(at="09:00", to="office", within=1800)


class Morning:
    """A town whose gateway has a canary; what it publishes arrives, unless the broker is away."""

    def __init__(self, town: Town) -> None:
        self.town, self.broker_up = town, True
        self.said: list[tuple[str, str, str]] = []
        self.published: list[tuple[str, bytes]] = []
        self.restart()

    def restart(self) -> None:
        """Nothing of the canary is remembered but what is durable."""
        self.canary = Canary(self.town.state, CONFIG, TOKYO, self._publish, self._condition)

    def _publish(self, topic: str, payload: bytes) -> None:
        self.published.append((topic, payload))
        if self.broker_up:
            self.town.process(Published(topic, payload))

    def _condition(self, part: str, level: str, _reason: str, facts: Mapping[str, Any], opening: str) -> None:
        assert facts == {"at_us": self.begun_us}
        self.said.append((part, level, opening))

    @property
    def begun_us(self) -> int:
        """Of the newest one."""
        return Batch.model_validate_json(self.published[-1][1]).t0

    def at(self, us: int, times: int = 1) -> None:
        """The chore runs at that time."""
        self.town.now_us = us
        for _ in range(times):
            self.canary.run(us)
            self.town.tick()

    def mark(self, **values: int) -> None:
        """Something becomes known of what was sent for it."""
        with self.town.state.write() as connection:
            connection.execute(update(tables.notifications).values(**values))

    def tests(self) -> list[dict[str, Any]]:
        return [row for row in self.town.rows(tables.events) if row["type"] == "test_alarm"]

    def alerts(self) -> list[tuple[str, str, str]]:
        return [(row["rule"], row["node"], row["state"]) for row in self.town.rows(tables.alerts)]


@pytest.fixture
def morning(tmp_path: Path) -> Iterator[Morning]:
    with Town(tmp_path, {CANARY: CONFIG.rule}, [CONFIG.route]) as town:
        yield Morning(town)


# ---- once a day -----------------------------------------------------------------------------------------


def test_at_its_time_a_real_record_comes_in_and_the_named_contact_is_told(morning: Morning) -> None:
    morning.at(NINE_US - 1)
    assert morning.published == []
    morning.at(NINE_US)
    [row] = morning.tests()
    assert (row["node"], row["device"], row["time_us"], row["late"]) == (CANARY, CANARY, NINE_US, False)
    assert morning.alerts() == [("canary", CANARY, "firing")]
    [told] = morning.town.rows(tables.notifications)
    said = Message.model_validate_json(told["body"])
    assert (told["contact"], said.title) == ("office", "【通信テスト】")
    assert [(button.answer, button.label) for button in said.buttons] == [("seen", "届きました")]


def test_once_a_day_however_often_it_is_looked_and_begun_anew(morning: Morning) -> None:
    for minute in range(10):
        morning.at(NINE_US + minute * MINUTE_US, times=2)
        morning.restart()
    assert (len(morning.tests()), len(morning.published)) == (1, 1)
    morning.at(NINE_US + DAY_US - 1)
    assert len(morning.tests()) == 1
    morning.at(NINE_US + DAY_US)
    assert [row["seq"] for row in morning.tests()] == [1, 2]


def test_one_that_the_broker_lost_is_said_again_as_the_same_record(morning: Morning) -> None:
    morning.broker_up = False
    morning.at(NINE_US)
    morning.at(NINE_US + MINUTE_US)
    morning.broker_up = True
    morning.at(NINE_US + 2 * MINUTE_US, times=3)
    [row] = morning.tests()
    assert (row["time_us"], len(morning.published)) == (NINE_US, 3)
    assert (morning.town.reasons(), len(morning.alerts())) == ([], 1)


def test_what_comes_twice_is_one_record(morning: Morning) -> None:
    morning.at(NINE_US)
    morning.town.process(Published(*morning.published[0]))
    morning.town.process(Published(*message(1, NINE_US, NINE_US + MINUTE_US)))
    assert (len(morning.tests()), morning.town.reasons()) == (1, [])


def test_a_gateway_that_was_off_at_nine_makes_up_for_it_on_the_same_day_only(morning: Morning) -> None:
    morning.at(NINE_US + 5 * HOUR_US)
    assert len(morning.tests()) == 1
    morning.at(NINE_US + 2 * DAY_US - HOUR_US)
    assert len(morning.tests()) == 1, "yesterday's is over"


@pytest.mark.parametrize("at", ["00:00", "01:30", "02:30", "03:30", "23:59"])
@pytest.mark.parametrize("zone", [TOKYO, BERLIN])
def test_each_day_of_a_year_has_exactly_one(at: str, zone: ZoneInfo) -> None:
    """With the nights in which an hour is missing or comes twice, month ends and the year's end."""
    first = dt.datetime(2026, 1, 1, tzinfo=zone)
    now_us, until_us = (int(first.replace(year=year).timestamp() * 1e6) for year in (2026, 2027))
    seen: list[int] = []
    while now_us < until_us:
        day = due_day(now_us, dt.time.fromisoformat(at), zone)
        if day is not None and day > (seen[-1] if seen else 0):
            seen.append(day)
        now_us += 10 * MINUTE_US - 7
    wanted = [dt.date(2026, 1, 1).toordinal() + n for n in range(365)]
    assert seen in (wanted, wanted[:-1] if at == "23:59" else wanted)


@given(st.integers(0, 4_000_000_000_000_000), st.times(), st.sampled_from(["Asia/Tokyo", "Europe/Berlin", "America/St_Johns"]))
def test_a_day_once_due_stays_due_until_midnight(now_us: int, at: dt.time, zone: str) -> None:
    where = ZoneInfo(zone)
    today = dt.datetime.fromtimestamp(now_us / 1e6, where).date().toordinal()
    day = due_day(now_us, at.replace(microsecond=0), where)
    assert day in (None, today)


# ---- what its absence says ------------------------------------------------------------------------------


def test_one_that_was_sent_and_answered_says_that_all_is_well(morning: Morning) -> None:
    morning.at(NINE_US)
    assert morning.said == [], "nothing is known yet"
    morning.mark(sent_us=NINE_US)
    morning.at(NINE_US + MINUTE_US)
    morning.mark(answered_us=NINE_US)
    morning.at(NINE_US + 10 * HOUR_US)
    assert morning.said == [("canary_lost", "ok", "1"), ("canary_lost", "ok", "1"), ("canary", "ok", "1")]


def test_one_that_reaches_no_phone_in_time_is_told(morning: Morning) -> None:
    morning.at(NINE_US)
    morning.at(NINE_US + 30 * MINUTE_US - 1)
    assert morning.said == []
    morning.at(NINE_US + 30 * MINUTE_US)
    assert morning.said == [("canary_lost", "firing", "1")]
    morning.mark(sent_us=NINE_US + HOUR_US)
    morning.at(NINE_US + HOUR_US)
    assert morning.said[-1] == ("canary_lost", "ok", "1")


def test_one_that_never_comes_back_from_the_broker_is_told_and_no_longer_said(morning: Morning) -> None:
    morning.broker_up = False
    morning.at(NINE_US)
    morning.at(NINE_US + 30 * MINUTE_US)
    assert (morning.said, len(morning.published)) == ([("canary_lost", "firing", "1")], 1)


def test_one_that_nobody_answers_is_told_also_after_a_restart(morning: Morning) -> None:
    morning.at(NINE_US)
    morning.mark(sent_us=NINE_US)
    morning.at(NINE_US + 90 * MINUTE_US - 1)
    morning.restart()
    morning.at(NINE_US + 90 * MINUTE_US)
    assert morning.said[-1] == ("canary", "firing", "1")


def test_the_next_day_begins_without_a_word_and_is_its_own(morning: Morning) -> None:
    morning.at(NINE_US)
    morning.at(NINE_US + HOUR_US)
    del morning.said[:]
    morning.at(NINE_US + DAY_US)
    assert morning.said == []
    morning.at(NINE_US + DAY_US + HOUR_US)
    assert morning.said == [("canary_lost", "firing", "2")]


# ---- an installer's test --------------------------------------------------------------------------------


def test_an_installers_test_alarm_goes_the_same_way_each_time(morning: Morning) -> None:
    for seq in (1, 2):
        trip = event(seq, type_="test_alarm", token="0" * 16)
        morning.town.process(batch(events=[trip]))
        morning.town.tick()
        morning.town.later(MINUTE_US)
    told = [Message.model_validate_json(row["body"]) for row in morning.town.rows(tables.notifications)]
    assert [[button.answer for button in said.buttons] for said in told] == [["seen"], ["seen"]], "and nobody is asked to go"
    assert [state for _, _, state in morning.alerts()] == ["resolved", "firing"]
    assert morning.alerts()[0][1] == NODE


def test_a_test_alarm_ends_by_itself(morning: Morning) -> None:
    morning.at(NINE_US)
    morning.town.now_us = NINE_US + CONFIG.rule.hold * 1_000_000
    morning.town.tick()
    assert [state for _, _, state in morning.alerts()] == ["resolved"]


def test_one_of_a_box_that_was_put_up_without_a_network_rings_when_it_comes_and_can_be_answered_as_long(morning: Morning) -> None:
    trip = event(1, dt=-3 * DAY_US, type_="test_alarm", token="0" * 16)
    morning.town.process(batch(events=[trip]))
    assert [state for _, _, state in morning.alerts()] == ["firing"]
    morning.town.later(CONFIG.rule.hold * 1_000_000 - 1)
    morning.town.tick()
    assert [state for _, _, state in morning.alerts()] == ["firing"]
    morning.town.later(1)
    morning.town.tick()
    assert [state for _, _, state in morning.alerts()] == ["resolved"]


def test_one_that_was_sent_long_ago_is_nobodys_test_any_more(morning: Morning) -> None:
    trip = event(1, dt=-14 * DAY_US, type_="test_alarm", token="0" * 16)
    morning.town.process(batch(events=[trip]))
    assert morning.alerts() == []


def test_what_is_published_is_a_record_like_any_nodes() -> None:
    topic, payload = message(7, NINE_US, NINE_US + MINUTE_US)
    assert (parse(topic).node, parse(topic).channel) == (CANARY, Channel.LIVE)
    said = Batch.model_validate_json(payload)
    assert [(type(one), one.seq) for one in said.events] == [(AlarmTest, 7)]


# ---- the configuration ----------------------------------------------------------------------------------

BASE: dict[str, Any] = {
    "broker": {"url": "mqtt://127.0.0.1:1883"},
    "state": {"url": "sqlite:////tmp/state.db"},
    "store": {"type": "sqlite", "path": "/tmp/series.db"},
    "api": {"tokens_file": "/tmp/tokens"},
    "media": {"folder": "/tmp/media"},
    "contact": {"office": {"type": "webhook", "url": "https://chat.example/"}},
}


def test_no_node_may_be_called_canary() -> None:
    assert CANARY in GatewayConfig.model_validate(BASE).taken_names


def test_a_canary_that_leads_nowhere_is_refused() -> None:
    assert GatewayConfig.model_validate({**BASE, "canary": {"to": "office"}}).canary == CanaryConfig(to="office")
    with pytest.raises(ValueError, match=r"canary\.to: neither contact\.nobody nor group\.nobody"):
        GatewayConfig.model_validate({**BASE, "canary": {"to": "nobody"}})


def test_its_rules_name_is_taken() -> None:
    own = OccurrenceConfig(type="occurrence", event="trap_sprung", until="trap_reset")
    with pytest.raises(ValueError, match=r"rule\.canary: the gateway has a rule of this name"):
        GatewayConfig.model_validate({**BASE, "rule": {"canary": own.model_dump()}, "route": [{"to": "office"}]})
