"""Quiet hours as somebody lives them, by the clock on their wall."""

import datetime as dt
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.contacts.config import QuietConfig
from gateway.contacts.quiet import DAYS, LONGEST_DAYS, quiet_until_us

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")
US = 1_000_000


def quiet(begin: str, end: str, *days: str, zone: str | None = None) -> QuietConfig:
    return QuietConfig.model_validate({"from": begin, "to": end, "days": list(days) or None, "zone": zone})


def at(text: str, zone: ZoneInfo = TOKYO, fold: int = 0) -> int:
    """The moment at which clocks of the zone show this, UTC µs."""
    return int(dt.datetime.fromisoformat(text).replace(tzinfo=zone, fold=fold).timestamp()) * US


def utc(text: str) -> int:
    return at(text, ZoneInfo("UTC"))


NIGHT = [quiet("21:00", "06:00")]


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-06-03 20:59:59", None),
        ("2026-06-03 21:00", "2026-06-04 06:00"),
        ("2026-06-04 02:10", "2026-06-04 06:00"),
        ("2026-06-04 05:59:59", "2026-06-04 06:00"),
        ("2026-06-04 06:00", None),
        ("2026-06-30 23:00", "2026-07-01 06:00"),  # over the end of a month
        ("2026-12-31 23:59", "2027-01-01 06:00"),  # of a year
        ("2028-02-28 22:00", "2028-02-29 06:00"),  # into a leap day
        ("2027-02-28 22:00", "2027-03-01 06:00"),
    ],
)
def test_hours_over_midnight_end_the_next_morning(now: str, until: str | None) -> None:
    assert quiet_until_us(NIGHT, at(now), TOKYO) == (at(until) if until else None)


def test_nobody_chose_quiet_hours() -> None:
    assert quiet_until_us([], at("2026-06-03 02:00"), TOKYO) is None


@pytest.mark.parametrize(
    ("now", "until"),
    [
        ("2026-06-05 22:00", None),  # Friday: Saturday's hours have not begun
        ("2026-06-06 22:00", "2026-06-07 09:00"),  # Saturday
        ("2026-06-07 08:00", "2026-06-07 09:00"),  # Sunday morning belongs to the hours that began on Saturday
        ("2026-06-07 22:00", None),
    ],
)
def test_days_are_those_on_which_the_hours_begin(now: str, until: str | None) -> None:
    assert quiet_until_us([quiet("21:00", "09:00", "sat")], at(now), TOKYO) == (at(until) if until else None)


def test_hours_that_meet_are_one() -> None:
    both = [quiet("12:00", "13:00"), quiet("13:00", "14:30"), quiet("14:00", "15:00")]
    assert quiet_until_us(both, at("2026-06-03 12:30"), TOKYO) == at("2026-06-03 15:00")


def test_hours_without_an_end_let_through_after_a_week_what_could_wait() -> None:
    always = [quiet("00:00", "12:00"), quiet("12:00", "00:00")]
    now = at("2026-06-03 12:30")
    assert quiet_until_us(always, now, TOKYO) == now + LONGEST_DAYS * 86_400 * US


def test_their_own_zone_counts() -> None:
    """21:00 in Berlin is 04:00 in Tokyo, in summer."""
    abroad = [quiet("21:00", "06:00", zone="Europe/Berlin")]
    assert quiet_until_us(abroad, at("2026-06-03 03:59"), TOKYO) is None
    assert quiet_until_us(abroad, at("2026-06-03 04:00"), TOKYO) == at("2026-06-03 13:00")


# In Berlin, 2026-03-29 02:00 CET becomes 03:00 CEST; 2026-10-25 03:00 CEST becomes 02:00 CET.


def test_the_night_the_clock_is_set_forward_is_an_hour_shorter() -> None:
    night = [quiet("22:00", "06:00")]
    begin, end = at("2026-03-28 22:00", BERLIN), at("2026-03-29 06:00", BERLIN)
    assert end - begin == 7 * 3600 * US
    assert quiet_until_us(night, begin, BERLIN) == end
    assert quiet_until_us(night, end, BERLIN) is None


def test_the_night_the_clock_is_set_back_is_an_hour_longer() -> None:
    night = [quiet("22:00", "06:00")]
    begin, end = at("2026-10-24 22:00", BERLIN), at("2026-10-25 06:00", BERLIN)
    assert end - begin == 9 * 3600 * US
    assert quiet_until_us(night, begin, BERLIN) == end


@pytest.mark.parametrize(
    ("begin", "end", "from_utc", "to_utc"),
    [
        ("02:30", "05:00", "2026-03-29 01:00", "2026-03-29 03:00"),  # 02:30 never comes: from the leap on
        ("00:00", "02:30", "2026-03-28 23:00", "2026-03-29 01:00"),  # until the leap
        ("02:10", "02:50", None, None),  # hours that never come
    ],
)
def test_a_time_that_the_clock_leaps_over_is_the_moment_of_the_leap(
    begin: str, end: str, from_utc: str | None, to_utc: str | None
) -> None:
    hours = [quiet(begin, end, "sun")]
    if from_utc is None or to_utc is None:
        assert all(quiet_until_us(hours, utc("2026-03-28 23:00") + m * 60 * US, BERLIN) is None for m in range(300))
        return
    assert quiet_until_us(hours, utc(from_utc) - 1, BERLIN) is None
    assert quiet_until_us(hours, utc(from_utc), BERLIN) == utc(to_utc)
    assert quiet_until_us(hours, utc(to_utc), BERLIN) is None


@pytest.mark.parametrize(
    ("begin", "end", "from_utc", "to_utc"),
    [
        ("23:00", "02:30", "2026-10-24 21:00", "2026-10-25 01:30"),  # until the second 02:30
        ("02:30", "05:00", "2026-10-25 00:30", "2026-10-25 04:00"),  # from the first one
    ],
)
def test_a_time_that_comes_twice_begins_with_its_first_and_ends_with_its_last(
    begin: str, end: str, from_utc: str, to_utc: str
) -> None:
    hours = [quiet(begin, end, "sat" if begin == "23:00" else "sun")]
    assert quiet_until_us(hours, utc(from_utc) - 1, BERLIN) is None
    for minute in range(0, (utc(to_utc) - utc(from_utc)) // US // 60, 7):
        assert quiet_until_us(hours, utc(from_utc) + minute * 60 * US, BERLIN) == utc(to_utc), "no hole between"
    assert quiet_until_us(hours, utc(to_utc), BERLIN) is None


@pytest.mark.parametrize(
    ("hours", "wrong"),
    [
        ({"from": "25:00", "to": "06:00"}, "from"),
        ({"from": "21:00", "to": "21:00"}, "both 21:00"),
        ({"from": "21:00", "to": "06:00", "zone": "Asia/Atlantis"}, "no IANA time zone"),
        ({"from": "21:00", "to": "06:00", "zone": "../../etc/passwd"}, "no IANA time zone"),
        ({"from": "21:00", "to": "06:00", "days": ["mo"]}, "days"),
    ],
)
def test_hours_that_cannot_be_are_refused(hours: dict[str, object], wrong: str) -> None:
    with pytest.raises(ValidationError, match=wrong):
        QuietConfig.model_validate(hours)


times = st.times().map(lambda time: time.strftime("%H:%M"))
some_hours = st.builds(lambda begin, end, days: (begin, end, days), times, times, st.sets(st.sampled_from(DAYS))).filter(
    lambda one: one[0] != one[1]
)
moments = st.integers(utc("2024-01-01"), utc("2030-01-01"))


@given(hours=some_hours, now_us=moments)
@settings(max_examples=200, deadline=None)
def test_where_clocks_are_never_set_they_are_quiet_exactly_when_the_wall_clock_says_so(
    hours: tuple[str, str, set[str]], now_us: int
) -> None:
    begin, end, days = hours
    wall = dt.datetime.fromtimestamp(now_us // US, TOKYO)
    clock = wall.strftime("%H:%M")

    def on(day: dt.date) -> bool:
        return not days or DAYS[day.weekday()] in days

    if begin < end:
        is_quiet = begin <= clock < end and on(wall)
    else:
        is_quiet = (clock >= begin and on(wall)) or (clock < end and on(wall - dt.timedelta(days=1)))
    until = quiet_until_us([quiet(begin, end, *sorted(days))], now_us, TOKYO)
    assert (until is not None) == is_quiet
    if until is not None:
        assert dt.datetime.fromtimestamp(until / US, TOKYO).strftime("%H:%M:%S") == f"{end}:00"


@given(
    several=st.lists(some_hours, max_size=3),
    now_us=moments,
    zone=st.sampled_from(["Europe/Berlin", "America/New_York", "Australia/Lord_Howe", "Asia/Tokyo", "America/Sao_Paulo"]),
)
@settings(max_examples=150, deadline=None)
def test_they_end_once_and_in_every_zone(several: list[tuple[str, str, set[str]]], now_us: int, zone: str) -> None:
    hours = [quiet(begin, end, *sorted(days)) for begin, end, days in several]
    until = quiet_until_us(hours, now_us, ZoneInfo(zone))
    if until is None:
        return
    assert now_us < until <= now_us + LONGEST_DAYS * 86_400 * US
    if until < now_us + (LONGEST_DAYS - 1) * 86_400 * US:
        assert quiet_until_us(hours, until, ZoneInfo(zone)) is None, "nobody is told to wait twice"
        assert quiet_until_us(hours, (now_us + until) // 2, ZoneInfo(zone)) == until, "and all the time between is quiet"
