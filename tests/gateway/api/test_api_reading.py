"""What the API tells: devices with honest states, readings, events, losses, quarantine, health, metrics."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import event as engine_event

from gateway.api.query import parse_duration_ms, parse_instant_ms
from gateway.errors import StoreDown
from gateway.own_facts import EPOCH, OWN_TYPES
from gateway.state import tables
from tests.gateway.api.conftest import MINUTE_US, NOW_US, Gateway

# ---- devices ---------------------------------------------------------------------------------------


def devices(gateway: Gateway, **changed: Any) -> dict[str, dict[str, Any]]:
    answer = gateway.client(**changed).get("/api/v1/devices")
    assert answer.status_code == 200, answer.text
    return {one["device"]: one for one in answer.json()["devices"]}


def test_a_device_that_never_spoke_is_unknown(gateway: Gateway) -> None:
    trap = devices(gateway)["trap-11"]  # deployed, and nothing else
    assert (trap["status"], trap["unknown_why"], trap["age_s"]) == ("unknown", "never_heard", None)
    assert (trap["place"], trap["label"], trap["kind"]) == ("北尾根", "3番", "trap")

    gateway.insert(tables.nodes)
    gateway.insert(tables.devices)
    assert devices(gateway)["trap-11"]["unknown_why"] == "never_heard"


def test_a_device_heard_lately_is_ok_and_its_values_have_ages(gateway: Gateway) -> None:
    gateway.insert(tables.nodes)
    gateway.insert(tables.devices)
    gateway.insert(tables.latest, time_us=NOW_US - 3 * MINUTE_US, received_us=NOW_US - 3 * MINUTE_US)

    trap = devices(gateway)["trap-11"]

    assert (trap["status"], trap["unknown_why"], trap["age_s"]) == ("ok", None, 180)
    assert trap["latest"] == [
        {
            "metric": "trap_closed",
            "unit": "1",
            "value": 0,
            "time_us": NOW_US - 3 * MINUTE_US,
            "received_us": NOW_US - 3 * MINUTE_US,
            "age_s": 180,
        }
    ]


def test_silence_turns_unknown_by_the_clock_alone(gateway: Gateway) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.latest)
    gateway.now_us = NOW_US + 600_000_000
    assert devices(gateway)["trap-11"]["status"] == "ok"
    gateway.now_us += 1
    assert devices(gateway)["trap-11"]["unknown_why"] == "silent"
    assert devices(gateway, stale_after_s=601)["trap-11"]["status"] == "ok"


def test_old_news_that_arrives_now_is_still_old(gateway: Gateway) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.latest, time_us=NOW_US - 60 * MINUTE_US, received_us=NOW_US)
    gateway.insert(tables.events, time_us=NOW_US - 50 * MINUTE_US, received_us=NOW_US)
    trap = devices(gateway)["trap-11"]
    assert (trap["unknown_why"], trap["heard_us"]) == ("silent", NOW_US - 50 * MINUTE_US)


def test_a_clock_that_runs_ahead_does_not_keep_a_silent_device_known(gateway: Gateway) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.latest, time_us=NOW_US + 60 * MINUTE_US, received_us=NOW_US - 20 * MINUTE_US)
    assert devices(gateway)["trap-11"]["unknown_why"] == "silent"


def test_an_event_counts_as_heard(gateway: Gateway) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.events)
    assert devices(gateway)["trap-11"]["status"] == "ok"


@pytest.mark.parametrize(
    ("online", "reason", "status"),
    [
        (True, None, "ok"),
        (None, None, "ok"),
        (False, "sleeping", "ok"),
        (False, "lost", "unknown"),
        (False, "clean", "unknown"),
        (False, None, "unknown"),
    ],
)
def test_the_devices_of_a_node_that_went_away_are_unknown(
    gateway: Gateway, online: bool | None, reason: str | None, status: str
) -> None:
    gateway.insert(tables.nodes, online=online, offline_reason=reason)
    gateway.insert(tables.devices)
    gateway.insert(tables.latest)
    trap = devices(gateway)["trap-11"]
    assert (trap["status"], trap["node_online"], trap["node_offline_reason"]) == (status, online, reason)


def test_a_device_that_is_down_is_unknown_until_it_is_up(gateway: Gateway) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.latest)
    gateway.insert(tables.events, seq=1, type="device_down", time_us=NOW_US - 2)
    assert devices(gateway)["trap-11"]["unknown_why"] == "device_down"
    gateway.insert(tables.events, seq=2, type="device_up", time_us=NOW_US - 1)
    assert devices(gateway)["trap-11"]["status"] == "ok"


@pytest.mark.parametrize(
    ("state", "status"), [("pending", "ok"), ("firing", "alert"), ("acknowledged", "alert"), ("resolved", "ok")]
)
def test_an_open_alert_shows_on_its_device(gateway: Gateway, state: str, status: str) -> None:
    gateway.insert(tables.devices)
    gateway.insert(tables.latest)
    gateway.insert(tables.alerts, state=state)
    assert devices(gateway)["trap-11"]["status"] == status


def test_an_alert_does_not_hide_that_the_device_fell_silent(gateway: Gateway) -> None:
    gateway.insert(tables.alerts)
    trap = devices(gateway)["trap-11"]
    assert (trap["status"], trap["unknown_why"]) == ("alert", "never_heard")


def test_a_device_without_deployment_goes_by_its_own_names(gateway: Gateway) -> None:
    gateway.insert(tables.devices, node="n", device="d", kind="node_health")
    found = devices(gateway)["d"]
    assert (found["place"], found["label"], found["kind"]) == ("n", "d", "node_health")


def test_the_list_costs_the_same_few_queries_however_many_devices(gateway: Gateway) -> None:
    for number in range(50):
        gateway.insert(tables.devices, device=f"d-{number}")
        gateway.insert(tables.events, device=f"d-{number}", seq=number + 1)
    queries: list[str] = []
    engine_event.listen(gateway.state._engine, "before_cursor_execute", lambda *seen: queries.append(seen[2]))

    assert len(devices(gateway)) == 51
    assert len([query for query in queries if query.startswith("SELECT")]) == 5


# ---- readings --------------------------------------------------------------------------------------

SERIES = {"node": "kitayama-03", "device": "trap-11", "metric": "battery_voltage"}
KEY = ("kitayama-03", "trap-11", "battery_voltage")
START_MS = NOW_US // 1000 - 3_600_000


def test_readings_between_two_times(gateway: Gateway) -> None:
    gateway.store.write([(KEY, START_MS + minute * 60_000, 12 + minute / 10) for minute in range(5)])
    client = gateway.client()

    answer = client.get("/api/v1/readings", params={**SERIES, "start": START_MS + 60_000, "end": START_MS + 180_000})

    assert answer.json() == {
        **SERIES,
        "unit": "V",
        "readings": [[START_MS + 60_000, 12.1], [START_MS + 120_000, 12.2]],
        "buckets": None,
        "next_start_ms": None,
    }
    same = client.get("/api/v1/readings", params={**SERIES, "start": "2026-06-03T05:13:00+09:00", "end": "2026-06-02T20:15:00Z"})
    assert same.json() == answer.json()


def test_readings_come_in_pages(gateway: Gateway) -> None:
    gateway.store.write([(KEY, START_MS + n, n) for n in range(7)])
    got: list[float] = []
    start: int | None = START_MS
    while start is not None:
        page = gateway.client().get("/api/v1/readings", params={**SERIES, "start": start, "limit": 3}).json()
        got += [value for _, value in page["readings"]]
        start = page["next_start_ms"]
    assert got == [0, 1, 2, 3, 4, 5, 6]


def test_buckets_leave_gaps_as_gaps(gateway: Gateway) -> None:
    gateway.store.write([(KEY, START_MS + at, value) for at, value in ((0, 12), (30_000, 14), (130_000, 13))])
    answer = gateway.client().get("/api/v1/readings", params={**SERIES, "start": START_MS, "bucket": "60s"})
    assert answer.json()["buckets"] == [
        {"time_ms": START_MS, "points": 2, "low": 12, "mean": 13, "high": 14, "last": 14},
        {"time_ms": START_MS + 120_000, "points": 1, "low": 13, "mean": 13, "high": 13, "last": 13},
    ]


@pytest.mark.parametrize(
    ("asked", "status", "says"),
    [
        ({"start": "yesterday"}, 400, "start: 'yesterday' is no time"),
        ({"start": "2026-06-03T06:12:00"}, 400, "has no zone"),
        ({"start": "2026-06-03", "end": "1"}, 400, "has no zone"),
        ({"end": "9" * 15}, 400, "outside of 1970"),
        ({"start": "200", "end": "100"}, 400, "not before end"),
        ({"bucket": "5 minutes"}, 400, "bucket: '5 minutes' is no duration"),
        ({"bucket": "0s"}, 400, "no duration"),
        ({"start": "0", "bucket": "1s"}, 400, "at most 5000"),
        ({"metric": "happiness"}, 400, "metric: 'happiness' is not in the table"),
        ({"node": "../etc"}, 422, "query.node"),
        ({"limit": "0"}, 422, "query.limit"),
        ({"limit": "10001"}, 422, "query.limit"),
    ],
)
def test_a_wrong_question_is_answered_with_a_problem_that_says_what(
    gateway: Gateway, asked: dict[str, str], status: int, says: str
) -> None:
    answer = gateway.client().get("/api/v1/readings", params={**SERIES, **asked})
    assert answer.status_code == status
    assert answer.headers["Content-Type"] == "application/problem+json"
    problem = answer.json()
    assert (problem["type"], problem["status"]) == ("about:blank", status)
    assert says in problem["detail"]


def test_a_store_that_is_down_is_a_503(gateway: Gateway) -> None:
    class Down:
        def read(self, *_: object) -> None:
            raise StoreDown("http://secret-host: connection refused")

    answer = gateway.client(store=Down()).get("/api/v1/readings", params=SERIES)
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "secret-host" not in answer.text


@given(st.text(max_size=50))
def test_any_text_is_a_time_or_a_value_error(text: str) -> None:
    for parse in (parse_instant_ms, parse_duration_ms):
        try:
            assert parse(text) >= 0
        except ValueError:
            pass


@given(st.datetimes(timezones=st.timezones()))
def test_iso_times_mean_what_they_say(moment: Any) -> None:
    try:
        found = parse_instant_ms(moment.isoformat())
    except ValueError:
        assert moment.year <= 1970 or moment.year == 9999 or (moment.utcoffset().seconds % 60)
    else:
        assert found == int(moment.timestamp() * 1000 // 1) or abs(found - moment.timestamp() * 1000) < 2


# ---- events, losses, quarantine ----------------------------------------------------------------------


def test_events_newest_first_and_page_by_page(gateway: Gateway) -> None:
    for seq in range(1, 6):
        gateway.insert(tables.events, seq=seq)
    client = gateway.client()
    seen: list[int] = []
    before: int | None = None
    while True:
        params = {"limit": "2"} | ({"before": str(before)} if before else {})
        page = client.get("/api/v1/events", params=params).json()
        seen += [one["id"] for one in page["events"]]
        before = page["next_before"]
        if before is None:
            break
    assert seen == [5, 4, 3, 2, 1]
    assert [one["id"] for one in client.get("/api/v1/events?after=3").json()["events"]] == [5, 4]


def test_an_event_as_it_is_shown(gateway: Gateway) -> None:
    gateway.insert(tables.events, received_us=NOW_US + 5, body='{"folded": 2}')
    assert gateway.client().get("/api/v1/events").json()["events"] == [
        {
            "id": 1,
            "node": "kitayama-03",
            "device": "trap-11",
            "place": "北尾根",
            "label": "3番",
            "type": "trap_sprung",
            "class": "alarm",
            "time_us": NOW_US,
            "received_us": NOW_US + 5,
            "late": False,
            "clock_trusted": True,
            "body": {"folded": 2},
        }
    ]


@pytest.mark.parametrize(
    ("query", "devices_found"),
    [
        ("", ["b", "a"]),
        ("?node=kitayama-03", ["b", "a"]),
        ("?device=a", ["a"]),
        ("?type=trap_reset", ["b"]),
        ("?class=sighting", []),  # of nobody who is searched for
        ("?node=nowhere", []),
    ],
)
def test_events_are_filtered(gateway: Gateway, query: str, devices_found: list[str]) -> None:
    gateway.insert(tables.events, device="a")
    gateway.insert(tables.events, device="b", type="trap_reset", seq=2)
    gateway.insert(tables.events, device="c", type="tag_seen", class_="sighting", node="koen-01")
    assert [one["device"] for one in gateway.client().get(f"/api/v1/events{query}").json()["events"]] == devices_found


@pytest.mark.parametrize("type_", OWN_TYPES)
def test_what_the_gateway_noted_itself_can_be_asked_for_as_well(gateway: Gateway, type_: str) -> None:
    gateway.insert(tables.events, device="a")
    gateway.insert(tables.events, device="b", type=type_, epoch=EPOCH, seq=2, class_="evidence")
    shown = gateway.client().get(f"/api/v1/events?type={type_}").json()["events"]
    assert [(one["device"], one["type"]) for one in shown] == [("b", type_)]


@pytest.mark.parametrize(
    "query", ["type=nothing", "class=nothing", "before=0", "limit=x", "node=A", "after=-1", f"after={2**63}"]
)
def test_a_wrong_filter_is_a_problem(gateway: Gateway, query: str) -> None:
    answer = gateway.client().get(f"/api/v1/events?{query}")
    assert answer.status_code in (400, 422)
    assert answer.json()["detail"]


def test_sightings_are_kept_from_everybody_while_nobody_is_searched_for(gateway: Gateway) -> None:
    gateway.insert(tables.events, type="tag_seen", class_="sighting")
    gateway.insert(tables.events, seq=2)
    gateway.insert(tables.events, seq=3, type="button_pressed", body='{"tag": "bthome:tag-1"}')  # an alarm, and of a person
    for query in ("", "?class=sighting", "?type=tag_seen", "?type=button_pressed"):
        for role in ("viewer", "operator"):
            shown = gateway.client(role).get(f"/api/v1/events{query}").json()["events"]
            assert [one["type"] for one in shown] == ([] if query else ["trap_sprung"])


def test_losses_and_quarantine(gateway: Gateway) -> None:
    gateway.insert(tables.losses)
    gateway.insert(tables.quarantine)
    client = gateway.client()
    loss = client.get("/api/v1/losses").json()["losses"][0]
    assert (loss["low"], loss["high"], loss["reason"]) == (5, 9, "outbox full")
    refused = client.get("/api/v1/quarantine").json()["quarantine"][0]
    assert (refused["reason"], refused["payload"]) == ("no JSON", "�<b>")
    assert client.get("/api/v1/losses?node=other").json() == {"losses": [], "next_before": None}


# ---- the gateway itself ------------------------------------------------------------------------------


def test_health_needs_no_token_and_tells_no_secret(gateway: Gateway) -> None:
    answer = gateway.client(None).get("/api/v1/health")
    assert answer.status_code == 200
    assert answer.json().keys() == {"status", "version", "parts"}
    assert answer.json()["status"] == "ok"
    assert answer.json()["parts"] == {"broker": "up", "store": "up", "state": "up"}


def test_health_is_degraded_when_a_part_is_down(gateway: Gateway) -> None:
    answer = gateway.client(None, health=lambda: {"broker": False, "store": True}).get("/api/v1/health").json()
    assert (answer["status"], answer["parts"]["broker"]) == ("degraded", "down")


def test_metrics_for_prometheus(gateway: Gateway) -> None:
    gateway.deps.telemetry.records.labels("event").inc(3)
    answer = gateway.client().get("/metrics")
    assert answer.headers["Content-Type"].startswith("text/plain")
    assert 'satomori_records_total{kind="event"} 3.0' in answer.text


def test_the_api_describes_itself(gateway: Gateway) -> None:
    document = gateway.client().get("/api/v1/openapi.json").json()
    assert "EventJson" in json.dumps(document)
