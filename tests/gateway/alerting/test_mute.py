"""What keeps an alert from being told: silences, inhibition, maintenance windows over DST and month ends, flapping."""

from dataclasses import replace
from datetime import datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gateway.alerting.lifecycle import Alert
from gateway.alerting.mute import (
    FlappingConfig,
    InhibitConfig,
    MaintenanceConfig,
    Muting,
    Openings,
    Silence,
    in_force,
    is_open,
    muted,
    muting_of,
)
from gateway.alerting.route import Match

TOKYO, BERLIN = ZoneInfo("Asia/Tokyo"), ZoneInfo("Europe/Berlin")
NOW_US, S_US = 1_780_434_720_000_000, 1_000_000
OF_SILENCE = frozenset({"silent", "node-silent"})


def alert(rule: str = "sprung", kind: str = "trap", node: str = "kitayama-03", device: str = "trap-11", **more: Any) -> Alert:
    values: dict[str, Any] = {"state": "firing", "fired_us": NOW_US, "severity": "warning", **more}
    return Alert(f"{rule}/{node}/{device}", rule, kind, node=node, device=device, opening="o", since_us=NOW_US, late=False,
                 summary="", **values)  # fmt: skip


def why(one: Alert, *sources: Alert, muting: Muting | None = None, silences: tuple[Silence, ...] = (), now: int = NOW_US) -> Any:
    return muted(one, in_force(muting or Muting(), silences, sources, OF_SILENCE, now))


# ---- silences ---------------------------------------------------------------------------------------------


def test_a_silence_holds_from_its_beginning_until_before_its_end_for_what_it_fits() -> None:
    silence = Silence(3, Match(kind="trap"), NOW_US, NOW_US + S_US)
    assert [why(alert(), silences=(silence,), now=at) for at in (NOW_US - 1, NOW_US, NOW_US + S_US - 1, NOW_US + S_US)] == [
        None, "silence:3", "silence:3", None,
    ]  # fmt: skip
    assert why(alert(kind="camera"), silences=(silence,)) is None


# ---- inhibition -------------------------------------------------------------------------------------------

BROKER = alert("gateway", "gateway", "gateway", "broker")
NODE = alert("node-silent", "node", device="node")


@pytest.mark.parametrize("state", ["firing", "acknowledged"])
def test_while_the_broker_is_known_to_be_down_silence_is_not_told_but_a_sprung_trap_is(state: Any) -> None:
    broker = replace(BROKER, state=state)
    assert why(alert("silent"), broker) == "inhibit:broker-down"
    assert why(alert("silent", node="other-01"), broker) == "inhibit:broker-down"
    assert why(NODE, broker) == "inhibit:broker-down"
    assert why(alert("sprung"), broker) is None
    assert why(broker, broker) is None


@pytest.mark.parametrize("state", ["pending", "shelved", "suppressed"])
def test_what_is_not_known_itself_mutes_nothing(state: Any) -> None:
    assert why(alert("silent"), replace(BROKER, state=state)) is None


def test_a_node_that_is_silent_mutes_the_silence_of_its_own_devices_only() -> None:
    assert why(alert("silent"), NODE) == "inhibit:node-offline"
    assert why(alert("silent", node="other-01"), NODE) is None
    assert why(alert("sprung"), NODE) is None


def test_two_alerts_that_could_mute_each_other_are_both_told() -> None:
    other = alert("silent", "node", device="node-2")
    assert why(NODE, other) is None
    assert why(other, NODE) is None


def test_an_inhibition_goes_on_for_its_hold_so_that_all_can_come_back() -> None:
    over = replace(NODE, state="resolved", resolved_us=NOW_US)
    assert [why(alert("silent"), over, now=NOW_US + s * S_US) for s in (0, 299, 300)] == ["inhibit:node-offline"] * 2 + [None]
    never_told = replace(over, fired_us=None)
    assert why(alert("silent"), never_told) is None


def test_an_inhibition_of_the_configuration() -> None:
    config = InhibitConfig(name="storm", source=Match(rule="storm"), target=Match(kind="camera"), equal=["node"], hold=0)
    muting = muting_of([config], [], FlappingConfig(), TOKYO)
    storm = alert("storm", "weather")
    assert why(alert("animal", "camera"), storm, muting=muting) == "inhibit:storm"
    assert why(alert("animal", "camera", node="other-01"), storm, muting=muting) is None
    assert why(alert("sprung", "trap"), storm, muting=muting) is None
    with pytest.raises(ValidationError, match="an empty match fits every alert"):
        InhibitConfig(name="all", source=Match(rule="storm"), target=Match())


# ---- maintenance ------------------------------------------------------------------------------------------


def window(from_: str, to: str, **more: Any) -> MaintenanceConfig:
    return MaintenanceConfig.model_validate({"from": from_, "to": to, "why": "inspection", **more})


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).timestamp()) * S_US


def open_at(one: MaintenanceConfig, text: str, zone: ZoneInfo = BERLIN) -> bool:
    return is_open(one, at(text), zone)


def test_an_alert_in_a_maintenance_window_says_why_it_is_muted() -> None:
    muting = muting_of([], [window("06:00", "07:00", match={"kind": "trap"})], FlappingConfig(), TOKYO)
    assert why(alert(), muting=muting) == "maintenance:inspection"  # 06:12 in Japan
    assert why(alert(kind="camera"), muting=muting) is None
    assert why(alert(), muting=muting, now=NOW_US + 3600 * S_US) is None


def test_a_window_over_midnight_belongs_to_the_day_it_begins_on_also_at_month_ends() -> None:
    night = window("22:00", "02:00", days=["sat"])  # 28 February 2026 is a Saturday
    assert open_at(night, "2026-02-28T22:00:00+01:00")
    assert open_at(night, "2026-03-01T01:59:59+01:00")
    assert not open_at(night, "2026-03-01T02:00:00+01:00")
    assert not open_at(night, "2026-03-01T22:00:00+01:00")
    assert not open_at(night, "2026-02-28T01:00:00+01:00")
    whole_day = window("00:00", "00:00", days=["sun"])
    assert [open_at(whole_day, f"2026-03-0{day}T12:00:00+01:00") for day in (1, 2)] == [True, False]


def test_the_night_clocks_are_set_forward() -> None:
    """29 March 2026, 02:00 CET becomes 03:00 CEST: what begins or ends in the hour that never comes does so at the leap."""
    ends_in_it, begins_in_it = window("01:00", "02:30"), window("02:30", "04:00")
    assert open_at(ends_in_it, "2026-03-29T01:59:59+01:00")
    assert not open_at(ends_in_it, "2026-03-29T03:00:00+02:00")
    assert not open_at(begins_in_it, "2026-03-29T01:59:59+01:00")
    assert open_at(begins_in_it, "2026-03-29T03:00:00+02:00")
    assert not open_at(begins_in_it, "2026-03-29T04:00:00+02:00")


def test_the_night_clocks_are_set_back() -> None:
    """25 October 2026, 03:00 CEST becomes 02:00 CET: hours that are shown twice are one stretch, the longer one."""
    both = window("02:15", "02:45")
    assert not open_at(both, "2026-10-25T02:14:59+02:00")
    for moment in ("02:15:00+02:00", "02:50:00+02:00", "02:00:00+01:00", "02:44:59+01:00"):
        assert open_at(both, f"2026-10-25T{moment}"), moment
    assert not open_at(both, "2026-10-25T02:45:00+01:00")


def test_a_window_has_its_own_zone_where_it_names_one() -> None:
    assert open_at(window("06:00", "07:00", zone="Asia/Tokyo"), "2026-06-03T06:12:00+09:00")
    with pytest.raises(ValidationError, match="no IANA time zone"):
        window("06:00", "07:00", zone="Atlantis/Harbour")


# ---- flapping ---------------------------------------------------------------------------------------------

FLAPPING = FlappingConfig(count=3, within=600)


def opened(times_s: list[int]) -> tuple[Openings, list[bool]]:
    """What of these openings would be told, each named by its place."""
    openings, told = Openings([]), []
    for place, at_s in enumerate(times_s):
        if openings.is_quiet(at_s * S_US, FLAPPING):
            openings = Openings([])
        openings.opened(str(place), at_s * S_US, FLAPPING)
        told.append(not openings.mutes(replace(alert(), opening=str(place))))
    return openings, told


def test_the_first_are_told_then_once_that_it_flaps_then_nothing_until_it_was_quiet() -> None:
    openings, told = opened([0, 60, 120, 180, 240, 300, 700, 1299, 1899])
    assert told == [True, True, True, True, False, False, False, False, True]
    assert openings.told is None


def test_what_comes_seldom_is_told_each_time() -> None:
    assert all(opened([place * 250 for place in range(50)])[1])


def test_what_is_critical_is_told_however_often_it_comes() -> None:
    openings = Openings([], told="0")
    assert not openings.mutes(replace(alert(severity="critical"), opening="9"))


@given(st.lists(st.integers(0, 400), max_size=60))
def test_at_most_the_count_and_one_more_are_told_in_any_window(gaps_s: list[int]) -> None:
    times, now = [], 0
    for gap in gaps_s:
        now += gap
        times.append(now)
    told = [at_s for at_s, is_told in zip(times, opened(times)[1], strict=True) if is_told]
    for at_s in told:
        assert sum(at_s <= other < at_s + FLAPPING.within for other in told) <= FLAPPING.count + 1
