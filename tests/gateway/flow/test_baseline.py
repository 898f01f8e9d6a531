"""What is usual: by hour and kind of day, holidays apart, an hour that is there twice counted twice."""

from datetime import date, datetime
from zoneinfo import ZoneInfo

import pytest

from gateway.flow.baseline import KEPT, day_kind, expected, hour_of, remember

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")


def us(text: str, zone: ZoneInfo, fold: int = 0) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()) * 1_000_000


@pytest.mark.parametrize(
    ("day", "kind"),
    [
        (date(2026, 6, 3), "wed"),
        (date(2026, 6, 7), "sun"),
        (date(2026, 11, 23), "holiday"),  # 勤労感謝の日, a Monday
        (date(2026, 9, 22), "holiday"),  # a day between two holidays
        (date(2026, 11, 24), "tue"),
    ],
)
def test_a_holiday_is_a_day_of_its_own_kind(day: date, kind: str) -> None:
    assert day_kind(day) == kind


def test_the_hour_that_is_there_twice_is_two_hours_of_one_kind() -> None:
    first, second = (hour_of(us("2026-10-25T02:30", BERLIN, fold), BERLIN) for fold in (0, 1))
    assert first[0] == second[0] == "sun-02"
    assert second[1] - first[1] == 3600


def test_one_festival_does_not_change_what_is_usual() -> None:
    usual: dict[str, list[float]] = {}
    for value in (100, 120, 110, 3_000, 105):
        remember(usual, "sat-18", value)
    assert expected(usual, "sat-18") == 110


def test_two_weeks_are_no_custom() -> None:
    usual: dict[str, list[float]] = {}
    remember(usual, "sat-18", 100)
    remember(usual, "sat-18", 100)
    assert expected(usual, "sat-18") is None
    assert expected(usual, "sun-18") is None


def test_what_is_old_is_forgotten() -> None:
    usual: dict[str, list[float]] = {}
    for value in range(KEPT + 5):
        remember(usual, "mon-08", value)
    assert usual["mon-08"] == list(range(5, KEPT + 5))
    assert hour_of(us("2026-06-08T08:59", TOKYO), TOKYO)[0] == "mon-08"
