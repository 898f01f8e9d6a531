"""What LINE may still send this month: foretold, kept for what is critical, and told before it runs out."""

from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import select

from gateway.notify.quota import AFTER_PUSHES, EVERY_US, Quota, forecast
from gateway.state import State, open_state
from gateway.state.tables import quotas
from gateway.words import words

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")


def at(text: str, zone: ZoneInfo = TOKYO) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone).astimezone(UTC).timestamp() * 1e6)


# ---- the forecast ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("when", "limit", "used", "day"),
    [
        ("2026-06-16 00:00", 300, 150, None),  # exactly enough
        ("2026-06-16 00:00", 300, 151, date(2026, 6, 30)),
        ("2026-06-16 00:00", 300, 180, date(2026, 6, 26)),
        ("2026-06-16 00:00", 300, 299, date(2026, 6, 16)),
        ("2026-06-16 00:00", 300, 300, date(2026, 6, 16)),  # nothing is left
        ("2026-06-16 00:00", 0, 0, date(2026, 6, 16)),
        ("2026-06-16 00:00", 300, 0, None),
        ("2026-06-01 00:05", 200, 5, None),  # five in the first minutes say nothing of the month
        ("2026-06-01 00:05", 200, 50, date(2026, 6, 4)),
        ("2026-06-30 23:59", 300, 299, None),
        ("2026-02-15 00:00", 300, 150, None),  # February is short
        ("2026-02-15 00:00", 300, 152, date(2026, 2, 28)),
        ("2024-02-15 12:00", 300, 152, date(2024, 2, 29)),
        ("2026-12-31 12:00", 310, 309, date(2026, 12, 31)),
        ("2026-12-31 23:00", 310, 309, None),
        ("2026-12-16 12:00", 310, 200, date(2026, 12, 25)),
    ],
)
def test_the_day_on_which_it_runs_out(when: str, limit: int, used: int, day: date | None) -> None:
    assert forecast(limit, used, at(when), TOKYO) == day


def test_days_are_those_of_the_town() -> None:
    # 31 May, 20:00 in UTC: June has begun in Japan, so nothing of May's rate counts.
    assert forecast(100, 1, at("2026-06-01 05:00"), TOKYO) is None
    assert forecast(100, 99, int(datetime(2026, 5, 31, 20, tzinfo=UTC).timestamp() * 1e6), ZoneInfo("UTC")) is None


def test_a_month_with_a_lost_hour_is_an_hour_shorter() -> None:
    assert forecast(743, 371, at("2026-03-16 11:00", BERLIN), BERLIN) is None
    assert forecast(743, 372, at("2026-03-16 11:00", BERLIN), BERLIN) == date(2026, 3, 31)


@given(st.integers(0, 10_000), st.integers(0, 10_000), st.integers(at("2020-01-01 00:00"), at("2035-01-01 00:00")))
def test_a_forecast_is_of_this_month_and_not_of_the_past(limit: int, used: int, now_us: int) -> None:
    day = forecast(limit, used, now_us, TOKYO)
    today = datetime.fromtimestamp(now_us / 1e6, UTC).astimezone(TOKYO).date()
    assert day is None or (day >= today and (day.year, day.month) == (today.year, today.month))


# ---- the budget -----------------------------------------------------------------------------------------


class Provider:
    """Says what the test says, and counts how often it was asked."""

    def __init__(self, limit: int | None, used: int) -> None:
        self.limit, self.used, self.asked, self.away = limit, used, 0, False

    def __call__(self) -> tuple[int | None, int]:
        self.asked += 1
        if self.away:
            raise OSError("LINE answered 500")
        return self.limit, self.used


class Desk:
    def __init__(self, state: State, provider: Provider, reserve: float = 0.2) -> None:
        self.state, self.provider = state, provider
        self.said: list[tuple[str, str, object]] = []
        self.quota = Quota(state, "line", TOKYO, reserve, self.warn)

    def warn(self, part: str, level: str, reason: str = "", facts: Mapping[str, Any] | None = None, opening: str = "") -> None:
        assert (level == "firing") == bool(reason)
        if level == "firing":
            self.said.append((part, opening, facts))

    def look(self, now_us: int) -> None:
        self.quota.run(self.provider, now_us)

    def allowed(self, now_us: int) -> tuple[bool, bool]:
        """(a warning, something critical)."""
        return self.quota.allows(now_us, critical=False), self.quota.allows(now_us, critical=True)


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    opened = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    yield opened
    opened.close()


MID = at("2026-06-16 00:00")


def test_before_the_first_reading_all_may_be_sent(state: State) -> None:
    assert Desk(state, Provider(100, 100)).allowed(MID) == (True, True)


@pytest.mark.parametrize(
    ("used", "allowed"),
    [(79, (True, True)), (80, (False, True)), (99, (False, True)), (100, (False, False)), (120, (False, False))],
)
def test_the_last_fifth_is_for_what_is_critical(state: State, used: int, allowed: tuple[bool, bool]) -> None:
    desk = Desk(state, Provider(100, used))
    desk.look(MID)
    assert desk.allowed(MID) == allowed


def test_what_we_sent_since_the_reading_counts(state: State) -> None:
    desk = Desk(state, Provider(100, 79))
    desk.look(MID)
    desk.quota.spent(MID)
    assert desk.allowed(MID) == (False, True)


def test_no_limit_is_no_limit(state: State) -> None:
    desk = Desk(state, Provider(None, 10**6))
    desk.look(MID)
    assert desk.allowed(MID) == (True, True)


def test_a_new_month_begins_with_nothing_used(state: State) -> None:
    desk = Desk(state, Provider(100, 100))
    last = at("2026-06-30 23:59")
    desk.look(last)
    assert desk.allowed(last) == (False, False)
    assert desk.allowed(at("2026-07-01 00:00")) == (True, True)


def test_it_is_read_hourly_and_after_many_messages(state: State) -> None:
    desk = Desk(state, Provider(1000, 0))
    for second in range(0, 3600, 60):
        desk.look(MID + second * 1_000_000)
    assert desk.provider.asked == 1
    desk.look(MID + EVERY_US)
    assert desk.provider.asked == 2
    for _ in range(AFTER_PUSHES):
        desk.quota.spent(MID + EVERY_US)
    desk.look(MID + EVERY_US + 60_000_000)
    assert desk.provider.asked == 3


def test_what_was_read_survives_a_restart(state: State) -> None:
    Desk(state, Provider(100, 90)).look(MID)
    assert Desk(state, Provider(100, 90)).allowed(MID + 1) == (False, True)
    with state.read() as connection:
        assert connection.execute(select(quotas)).one() == ("line", 100, 90, MID)


def test_a_provider_that_can_not_be_asked_is_told_of_once_and_asked_again(state: State, caplog: pytest.LogCaptureFixture) -> None:
    desk = Desk(state, Provider(100, 90))
    desk.look(MID)
    desk.provider.away = True
    for minute in range(60, 64):
        desk.look(MID + minute * 60_000_000)
    assert desk.provider.asked == 5
    assert [record.levelname for record in caplog.records] == ["ERROR"]
    assert desk.allowed(MID) == (False, True)
    desk.provider.away = False
    desk.look(MID + 64 * 60_000_000)
    assert [record.levelname for record in caplog.records] == ["ERROR", "WARNING"]


def test_the_office_is_warned_before_it_runs_out_and_when_it_has(state: State) -> None:
    desk = Desk(state, Provider(1000, 600))
    desk.look(MID)
    (part, opening, facts) = desk.said.pop()
    assert (part, opening) == ("line_quota", "2026-06")
    assert facts == {"left": 400, "limit": 1000, "runs_out_us": at("2026-06-26 12:00")}
    desk.provider.used = 1000
    desk.look(MID + EVERY_US)
    assert desk.said == [("line_quota_out", "2026-06", {"left": 0, "limit": 1000})]


def test_nobody_is_warned_of_what_will_last(state: State) -> None:
    for provider in (Provider(1000, 400), Provider(None, 4000)):
        desk = Desk(state, provider)
        desk.look(MID)
        assert desk.said == []


def test_the_warning_is_what_the_words_need(state: State) -> None:
    desk = Desk(state, Provider(5000, 4788))
    desk.look(at("2026-06-24 00:00"))
    ((_, _, facts),) = desk.said
    assert isinstance(facts, dict)
    said = words("ja", "alert.line_quota", zone=TOKYO, when=facts["runs_out_us"], **facts)
    assert said.body.startswith("LINE残り通数 212/5,000。6月25日ごろ上限に達します。")
