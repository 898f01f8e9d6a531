"""What everybody may have tells of no fewer than ten people, says what is not known, and never changes."""

import itertools
import json
from collections.abc import Iterator, Sequence
from datetime import date
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.deployments import Deployment, Deployments
from gateway.flow.config import AreaConfig
from gateway.open_data import (
    FEWEST,
    OTHER,
    Hour,
    OpenDataConfig,
    bounds_of,
    cell,
    day_sum,
    hours_of,
    mesh_of,
    newest_day,
    open_day,
)  # fmt: skip
from gateway.open_days import CapturesOpened, OpenDays, published, published_captures
from gateway.state import State, open_state, tables
from gateway.store import SqliteStore, SqliteStoreConfig

JAPAN = ZoneInfo("Asia/Tokyo")
DAY = date(2026, 6, 3)
START_US, END_US = bounds_of(DAY, JAPAN)
HOUR_MS = 3_600_000
GATE = {"node": "eki-01", "device": "gate-1"}
AREA = AreaConfig.model_validate({"label": "朝市広場", "line": [GATE], "empty_at": "never"})
OUT = {"node": "eki-01", "device": "gate-2", "turned": True}
TWO = AreaConfig.model_validate({"label": "朝市広場", "line": [GATE, OUT], "empty_at": "never"})


# --- Few people -------------------------------------------------------------------------------------


def test_ten_are_a_number_nine_and_none_are_few_and_what_nobody_counted_is_unknown() -> None:
    assert [cell(count) for count in (10, 9, 0, None)] == [
        {"state": "number", "people": 10},
        {"state": "few", "people": None},
        {"state": "few", "people": None},
        {"state": "unknown", "people": None},
    ]


def possible(counts: Sequence[int]) -> list[set[int]]:
    """What somebody who has the published day can think of each hidden hour: by trying all there is."""
    told, hidden = day_sum(counts), [count for count in counts if count < FEWEST]
    shown = sum(count for count in counts if count >= FEWEST)
    assert told["at_least"] == shown
    if told["people"] is None:
        return [set(range(FEWEST)) for _ in hidden]
    left = told["people"] - shown
    found: list[set[int]] = [set() for _ in hidden]
    for guess in itertools.product(range(FEWEST), repeat=len(hidden)):
        if sum(guess) == left:
            for at, one in enumerate(guess):
                found[at].add(one)
    return found


hidden_hours = st.lists(st.integers(0, 9), max_size=4)
shown_hours = st.lists(st.integers(10, 500), max_size=6)


@given(hidden_hours, shown_hours)
def test_no_sum_narrows_what_an_hour_of_few_may_have_been(hidden: list[int], shown: list[int]) -> None:
    assert all(one == set(range(FEWEST)) for one in possible([*hidden, *shown]))


@given(st.lists(st.integers(0, 60) | st.none(), max_size=24))
def test_nothing_that_can_be_had_by_subtracting_is_a_number_from_1_to_9(counts: list[int | None]) -> None:
    told = day_sum(counts)
    shown = [count for count in counts if count is not None and count >= FEWEST]
    if told["people"] is not None:
        rest = told["people"] - sum(shown)
        few = [count for count in counts if count is not None and count < FEWEST]
        assert rest == sum(few)
        assert not few or (rest >= FEWEST and rest <= 9 * (len(few) - 1))


def test_a_usual_day_has_its_sum_and_one_with_a_single_quiet_hour_has_not() -> None:
    night, street = [0, 2, 1, 3, 5, 8], [40, 80, 120]
    assert day_sum([*night, *street]) == {"at_least": 240, "people": 259}
    assert day_sum([3, *street]) == {"at_least": 240, "people": None}
    assert day_sum([9, 9, 9, *street])["people"] is None, "27 in three hours can only be 9 each"
    assert day_sum(street) == {"at_least": 240, "people": 240}
    assert day_sum([None, None]) == {"at_least": 0, "people": None}


# --- What the counters said -------------------------------------------------------------------------


@pytest.fixture
def store(tmp_path: Path) -> Iterator[SqliteStore]:
    made = SqliteStore(SqliteStoreConfig(type="sqlite", path=tmp_path / "series.db"))
    yield made
    made.close()


@pytest.fixture
def state(tmp_path: Path) -> Iterator[State]:
    made = open_state(f"sqlite:///{tmp_path / 'captures.db'}")
    yield made
    made.close()


def says(store: SqliteStore, came: Sequence[int | None], device: str = "gate-1", left: int = 0, begin: int = 1000) -> None:
    """A counter that speaks each minute; of each hour how many came (None: it was silent). It spoke before midnight too."""
    points, total, out, at_ms = [], begin, 500, START_US // 1000
    for metric, value in (("count_in", total), ("count_out", out), ("heartbeat", 1.0)):
        points.append((("eki-01", device, metric), at_ms - 60_000, float(value)))
    for hour, count in enumerate(came):
        if count is None:
            continue
        total, out = total + count, out + left
        beats = range(at_ms + hour * HOUR_MS, at_ms + (hour + 1) * HOUR_MS, 60_000)
        points.extend((("eki-01", device, "heartbeat"), beat_ms, 1.0) for beat_ms in beats)
        points.append((("eki-01", device, "count_in"), at_ms + hour * HOUR_MS + 1_800_000, float(total)))
        points.append((("eki-01", device, "count_out"), at_ms + hour * HOUR_MS + 1_800_000, float(out)))
    for at in range(0, len(points), 5000):
        store.write(points[at : at + 5000])


def beats(store: SqliteStore, at_us: int) -> None:
    store.write([(("eki-01", "gate-1", "heartbeat"), at_us // 1000, 1.0)])


def test_each_hour_is_what_the_counter_s_total_grew_by(store: SqliteStore) -> None:
    says(store, [5, 0, 20, 130], left=3)
    assert hours_of(store, AREA, START_US, START_US + 4 * HOUR_MS * 1000) == [
        Hour(START_US + hour * HOUR_MS * 1000, came, 3, 100, ((came, 3),)) for hour, came in enumerate([5, 0, 20, 130])
    ]


def test_an_hour_in_which_the_counter_was_silent_is_unknown_and_no_zero(store: SqliteStore) -> None:
    says(store, [50, None, None, 60, 70])
    hours = hours_of(store, AREA, START_US, START_US + 5 * HOUR_MS * 1000)
    assert [hour.came for hour in hours] == [50, None, None, None, 70], "when the hour began nobody knows where it stood"
    assert [hour.coverage for hour in hours] == [100, 0, 0, 0, 100]


def test_a_counter_that_began_anew_counts_nothing_for_that_hour(store: SqliteStore) -> None:
    says(store, [50, 60, 70])
    store.write([(("eki-01", "gate-1", "count_in"), START_US // 1000 + HOUR_MS + 2_400_000, 4.0)])
    hours = hours_of(store, AREA, START_US, START_US + 2 * HOUR_MS * 1000)
    assert [hour.came for hour in hours] == [50, None]


def test_a_sum_over_some_of_the_counters_says_so(store: SqliteStore) -> None:
    says(store, [50, 60])
    says(store, [7, None], "gate-2", left=30)
    hours = hours_of(store, TWO, START_US, START_US + 2 * HOUR_MS * 1000)
    assert [(hour.came, hour.left, hour.coverage) for hour in hours] == [(80, 7, 100), (60, 0, 50)], "gate-2 leads out"
    assert [hour.lines for hour in hours] == [((50, 0), (30, 7)), ((60, 0), None)], "of each what it counted"


def test_a_published_day_stays_as_it_is_whatever_comes_later(store: SqliteStore, tmp_path: Path) -> None:
    state: State = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    config = OpenDataConfig(publisher="見本町", areas=["asaichi"], delay_days=1)
    days = OpenDays(state, store, config, {"asaichi": AREA}, JAPAN)
    says(store, [20] * 12)
    beats(store, END_US)

    def told() -> list[object]:
        with state.read() as connection:
            return [*published(connection, ["asaichi"], None)]

    assert newest_day(END_US + 86_400_000_000, 1, JAPAN) == DAY
    assert days.run(END_US + 86_400_000_000) == 1
    first = told()
    assert days.run(END_US + 86_400_000_000) == 0
    says(store, [90] * 24)
    beats(store, END_US + 86_400_000_000)
    assert days.run(END_US + 2 * 86_400_000_000) == 1, "the next day, and only that"
    assert told()[:1] == first
    with state.read() as connection:
        assert published(connection, ["asaichi"], "2026-05") == []
        assert published(connection, ["another"], None) == []
    state.close()


def test_a_clock_that_jumps_ahead_publishes_no_day_that_has_not_been(store: SqliteStore, tmp_path: Path) -> None:
    state = open_state(f"sqlite:///{tmp_path / 'state.db'}")
    days = OpenDays(state, store, OpenDataConfig(publisher="見本町", areas=["asaichi"], delay_days=1), {"asaichi": AREA}, JAPAN)
    says(store, [20] * 24)
    beats(store, END_US)
    assert days.run(END_US + 86_400_000_000) == 1
    assert days.run(END_US + 400 * 86_400_000_000) == 0
    state.close()


def test_without_a_month_one_gets_a_year_and_not_all_that_there_ever_was(state: State) -> None:
    with state.write() as connection:
        for day in ("2024-02-29", "2025-06-02", "2025-06-03", "2026-06-03"):
            body = json.dumps({"day": day})
            connection.execute(tables.open_days.insert().values(area="asaichi", day=day, body=body, published_us=0))
    with state.read() as connection:
        assert [one["day"] for one in published(connection, ["asaichi"], None)] == ["2025-06-03", "2026-06-03"]
        assert [one["day"] for one in published(connection, ["asaichi"], "2024-02")] == ["2024-02-29"]


def test_a_day_is_shown_hour_by_hour_in_local_time() -> None:
    shown = open_day("asaichi", AREA, DAY, [Hour(START_US, 12, None, 50)], JAPAN)
    assert shown["hours"] == [
        {"start": "2026-06-03T00:00+09:00", "came": {"state": "number", "people": 12},
         "left": {"state": "unknown", "people": None}, "coverage_percent": 50}
    ]  # fmt: skip


# --- Where ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("latitude", "longitude", "mesh"),
    [
        # Third order 5339-46-11, and so on: of its last two digits, 5 and more are the northern and the eastern half.
        (35.6812, 139.7671, "5339461"),  # the station of Tokyo
        (35.70078, 139.71475, "5339452"),  # the Statistics Bureau, in Wakamatsu-cho
        (35 + 40 / 60, 139.75, "5339461"),  # a corner belongs to the square north-east of it
        (34 + 40 / 60, 136.0, "5236001"),
        (43.0686, 141.3508, "6441424"),  # the station of Sapporo
        (26.2124, 127.6792, "3927253"),  # the prefecture's office in Naha
    ],
)
def test_the_square_of_a_place_is_that_of_jis_x_0410(latitude: float, longitude: float, mesh: str) -> None:
    assert mesh_of(latitude, longitude) == mesh


@given(st.floats(20, 46), st.floats(122, 154))
def test_a_place_lies_in_its_square(latitude: float, longitude: float) -> None:
    code = mesh_of(latitude, longitude)
    assert code is not None
    a, b, c, d, quarter = int(code[:2]), int(code[2:4]), *map(int, code[4:])
    south, west = a / 1.5 + c / 12 + (quarter > 2) / 24, b + 100 + d / 8 + (quarter % 2 == 0) / 16
    assert south - 1e-6 <= latitude < south + 1 / 24 + 1e-6
    assert west - 1e-6 <= longitude < west + 1 / 16 + 1e-6


def test_outside_of_the_grid_there_is_no_square() -> None:
    assert mesh_of(-1, 140) is mesh_of(36, 99) is mesh_of(70, 140) is None


def traps_at(*places: tuple[float, float]) -> Deployments:
    return Deployments(
        Deployment(node="n", device=f"trap-{number}", kind="trap", place="北尾根", at=at) for number, at in enumerate(places, 1)
    )


def catch(state: State, id_: str, trap: str, species: str, completed_us: int | None = END_US) -> None:
    with state.write() as connection:
        visit = {"id": f"v-{id_}", "node": "n", "device": trap, "at_us": START_US, "who": "田中", "via": "qr",
                 "result": "capture", "recorded_us": START_US}  # fmt: skip
        connection.execute(tables.visits.insert().values(visit))
        connection.execute(
            tables.captures.insert().values(
                id=id_, node="n", device=trap, visit=f"v-{id_}", species=species, opened_us=START_US, completed_us=completed_us
            )
        )


NEAR = (36.1046, 140.0846)
MONTH_OVER_US = START_US + 32 * 86_400_000_000


def publish(state: State, traps: Deployments, now_us: int) -> list[tuple[str, str | None, str, int]]:
    CapturesOpened(state, OpenDataConfig(publisher="見本町", captures=True), traps, JAPAN).run(now_us)
    with state.read() as connection:
        return [tuple(one.values()) for one in published_captures(connection)]  # type: ignore[misc]


def test_captures_are_told_by_month_square_and_kind_and_by_no_word_that_somebody_typed(state: State) -> None:
    traps = traps_at(NEAR, NEAR, (36.09, 140.07))
    for id_, trap, species in (("a", "trap-1", "イノシシ"), ("b", "trap-2", "boar"), ("c", "trap-9", "田中さんの犬")):
        catch(state, id_, trap, species)
    catch(state, "d", "trap-1", "イノシシ", completed_us=None)
    assert publish(state, traps, END_US + 10 * 86_400_000_000) == [], "the month is not over"
    assert publish(state, traps, START_US + 27 * 86_400_000_000 + 3 * 86_400_000_000) == [], "nor its delay"
    assert publish(state, traps, MONTH_OVER_US) == [
        ("2026-06", None, OTHER, 1),
        ("2026-06", "5440102", "イノシシ", 2),
    ]


def test_a_square_in_which_few_traps_stand_is_not_said(state: State) -> None:
    catch(state, "a", "trap-1", "イノシシ")
    assert publish(state, traps_at(NEAR, NEAR, (35.0, 139.0)), MONTH_OVER_US) == [("2026-06", None, "イノシシ", 1)]


def test_a_capture_stays_where_it_was_published_when_its_trap_moves(state: State) -> None:
    catch(state, "a", "trap-1", "イノシシ")
    first = publish(state, traps_at(NEAR, NEAR, NEAR), MONTH_OVER_US)
    catch(state, "b", "trap-1", "boar")
    moved = (35.0, 139.0)
    assert publish(state, traps_at(moved, moved, moved), MONTH_OVER_US) == [
        ("2026-06", "5239401", "イノシシ", 1),
        *first,
    ], "what was completed late is added"
