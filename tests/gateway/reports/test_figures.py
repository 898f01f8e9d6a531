"""What an invented September comes to, in a town of two places."""

from datetime import date
from zoneinfo import ZoneInfo

from gateway.reports.figures import (
    HOUR_US,
    MOST_PLACES,
    Check,
    Counted,
    Device,
    Notice,
    Recount,
    Silence,
    checks_of,
    month_of,
    reckon,
    silences_of,
)

ZONE = ZoneInfo("Asia/Tokyo")
MINUTE_US, DAY_US = 60_000_000, 86_400_000_000
BEGINS_US = 1_788_188_400_000_000  # 1 September 2026, 00:00 in Japan: 31 August, 15:00 in UTC
ENDS_US = BEGINS_US + 30 * DAY_US
SEPTEMBER = month_of(date(2026, 9, 1), ZONE, ENDS_US + DAY_US)


def notice(at_us: int, minutes: float | None = None, place: str = "北尾根") -> Notice:
    return Notice(place, at_us, None if minutes is None else at_us + round(minutes * MINUTE_US))


def test_a_month_begins_and_ends_at_midnight_in_the_town() -> None:
    assert (SEPTEMBER.from_us, SEPTEMBER.until_us) == (BEGINS_US, ENDS_US)
    inside, outside = (BEGINS_US, ENDS_US - 1), (BEGINS_US - 1, ENDS_US)
    figures = reckon("traps", SEPTEMBER, ZONE, [notice(at_us) for at_us in (*inside, *outside)])
    assert figures.total.told == 2
    told = {line.name: line.told for line in figures.days}
    assert len(told) == 30
    assert (told["2026-09-01"], told["2026-09-30"]) == (1, 1)


def test_december_is_followed_by_the_next_year() -> None:
    december = month_of(date(2026, 12, 1), ZONE, ENDS_US * 2)
    assert december.until_us - december.from_us == 31 * DAY_US


def test_of_a_month_that_goes_on_only_what_was_is_said() -> None:
    running = month_of(date(2026, 9, 1), ZONE, BEGINS_US + 2 * DAY_US + HOUR_US)
    figures = reckon("traps", running, ZONE, [notice(BEGINS_US), notice(BEGINS_US + 5 * DAY_US)])
    assert not running.is_over
    assert [line.name for line in figures.days] == ["2026-09-01", "2026-09-02", "2026-09-03"]
    assert figures.total.told == 1


def test_the_middle_of_the_waits_and_nearly_the_longest() -> None:
    waits = [1, 2, 3, 14, 15, 20, 200]
    figures = reckon(
        "traps", SEPTEMBER, ZONE, [*(notice(BEGINS_US + n, wait) for n, wait in enumerate(waits)), notice(BEGINS_US)]
    )
    assert (figures.total.median_min, figures.total.p95_min, figures.total.unanswered) == (14, 200, 1)
    even = reckon("traps", SEPTEMBER, ZONE, [notice(BEGINS_US, 4), notice(BEGINS_US, 5.5), notice(BEGINS_US, -3)])
    assert even.total.median_min == 4, "who answers before they were told waited for nothing"


def test_of_nothing_there_is_no_median_and_no_zero() -> None:
    figures = reckon("flow", SEPTEMBER, ZONE, [], [Counted("came", "朝市広場", BEGINS_US, 40)])
    first, second = figures.days[:2]
    assert (first.counted, second.counted) == ((40, None), (None, None)), "a day without a counter is unknown"
    assert (first.median_min, first.p95_min) == (None, None)
    caught = reckon("traps", SEPTEMBER, ZONE, [], [Counted("visits", "北尾根", BEGINS_US)])
    assert [line.counted for line in caught.days[:2]] == [(1, 0), (0, 0)], "what people enter is none where there is none"


def test_places_stand_by_what_was_told_there_and_the_smallest_share_a_line() -> None:
    notices = [notice(BEGINS_US, place=f"沢{number:02}") for number in range(MOST_PLACES + 5) for _ in range(1 + number)]
    figures = reckon("traps", SEPTEMBER, ZONE, notices)
    assert len(figures.places) == MOST_PLACES
    assert figures.places[0].name == f"沢{MOST_PLACES + 4:02}"
    assert figures.places[-1].name == ""
    assert sum(line.told for line in figures.places) == figures.total.told == len(notices)


def test_watch_tags_have_no_places_and_no_receivers() -> None:
    silent = Device("田中さん宅", [(BEGINS_US, BEGINS_US + 36 * HOUR_US)])
    figures = reckon("tags", SEPTEMBER, ZONE, [notice(BEGINS_US, 5, "田中さん宅")], devices=[silent])
    assert (figures.places, figures.devices) == ((), ())
    assert "田中" not in repr(figures)
    assert figures.heard == Silence("", 36.0, 95.0)


def test_a_device_that_says_nothing_is_silent_and_one_that_never_speaks_is_unknown() -> None:
    devices = [
        Device("1番", [(BEGINS_US - DAY_US, BEGINS_US + HOUR_US), (ENDS_US - HOUR_US, ENDS_US + DAY_US)]),
        Device("2番", []),
        Device("3番", None),
    ]
    figures = reckon("traps", SEPTEMBER, ZONE, [], devices=devices)
    assert figures.devices == (Silence("1番", 2.0, 99.7), Silence("2番", 0.0, 100.0), Silence("3番", None, None))
    assert figures.heard == Silence("", 2.0, 99.8)
    assert figures.device_count == 3


def test_silence_is_a_stretch_longer_than_a_device_may_be_quiet() -> None:
    slot, allowed = MINUTE_US, 10 * MINUTE_US
    heard = [BEGINS_US, BEGINS_US + 5 * MINUTE_US, BEGINS_US + 60 * MINUTE_US]
    found = silences_of(heard, slot, allowed, BEGINS_US - MINUTE_US, BEGINS_US + 65 * MINUTE_US)
    assert found == [(BEGINS_US + 6 * MINUTE_US, BEGINS_US + 60 * MINUTE_US)]
    assert silences_of([], slot, allowed, BEGINS_US, ENDS_US) == [(BEGINS_US, ENDS_US)]


def test_counters_stand_beside_what_people_counted_and_who_was_not_recounted_is_named() -> None:
    def recount(place: str, counted: int, reckoned: int | None, at_us: int = BEGINS_US) -> Recount:
        return Recount(place, at_us, counted, reckoned)

    found = checks_of(SEPTEMBER, ["朝市広場", "東小学校", "西小学校"], [
        recount("朝市広場", 100, 120), recount("朝市広場", 100, 95), recount("朝市広場", 100, 90),
        recount("朝市広場", 100, 300, ENDS_US),  # October's
        recount("西小学校", 0, 4), recount("西小学校", 40, None),
        recount("もうない広場", 50, 50),
    ])  # fmt: skip
    assert found == (
        Check("もうない広場", 1, 0.0, 0.0),
        Check("朝市広場", 3, 10.0, 20.0),
        Check("東小学校", 0, None, None),
        Check("西小学校", 2, None, None),
    )
