"""Open data for everybody, tables for the office: who gets what, as which bytes."""

import csv
import io
import json
from dataclasses import replace

import pytest
from fastapi.testclient import TestClient

from gateway.deployments import Deployment, Deployments
from gateway.flow.config import AreaConfig
from gateway.open_data import OpenDataConfig
from gateway.open_days import CapturesOpened
from gateway.state import tables
from tests.gateway.api.conftest import NOW_US, Gateway

GATE = {"node": "eki-01", "device": "gate-1"}
AREA = AreaConfig.model_validate({"label": "朝市広場", "line": [GATE], "empty_at": "never"})
CONFIG = OpenDataConfig(publisher="見本町", areas=["asaichi"], captures=True)
SUM = {"at_least": 40, "people": None}
DAY = {
    "area": "asaichi", "label": "=朝市広場", "day": "2026-05-20", "coverage_percent": 50,
    "came": SUM, "left": {**SUM, "people": 61},
    "hours": [
        {"start": "2026-05-20T00:00+09:00", "coverage_percent": 100, "came": {"state": "few", "people": None},
         "left": {"state": "number", "people": 40}},
        {"start": "2026-05-20T01:00+09:00", "coverage_percent": 0, "came": {"state": "unknown", "people": None},
         "left": {"state": "unknown", "people": None}},
    ],
}  # fmt: skip
SECRETS = ("北尾根", "3番", "trap-11", "kitayama", "36.1", "140.0", "田中")


def opened(content: bytes) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline=""), strict=True))


@pytest.fixture
def town(gateway: Gateway) -> Gateway:
    traps = Deployments([Deployment(node="kitayama-03", device=f"trap-{number}", kind="trap", place="北尾根", label="3番",
                                    at=(36.1046, 140.0846)) for number in (11, 12, 13)])  # fmt: skip
    with gateway.state.write() as connection:
        connection.execute(tables.open_days.insert().values(
            area="asaichi", day=DAY["day"], body=json.dumps(DAY), published_us=NOW_US
        ))  # fmt: skip
        visit = {"id": "v-1", "node": "kitayama-03", "device": "trap-11", "at_us": NOW_US - 40 * 86_400_000_000, "who": "田中",
                 "via": "qr", "result": "capture", "note": "=HYPERLINK(\"https://example.jp\")",
                 "recorded_us": NOW_US}  # fmt: skip
        connection.execute(tables.visits.insert().values(visit))
        connection.execute(tables.captures.insert().values(
            id="c-1", node="kitayama-03", device="trap-11", visit="v-1", species="イノシシ", sprung_us=visit["at_us"],
            opened_us=visit["at_us"], completed_us=NOW_US, completed_by="田中", weight_kg=43.5,
        ))  # fmt: skip
    CapturesOpened(gateway.state, CONFIG, traps, gateway.deps.zone).run(NOW_US)
    gateway.insert(tables.alerts)
    gateway.insert(tables.alerts, id="a-2", node="watched", device="0" * 16, opening="0:2", kind="person")
    deps = replace(gateway.deps, open_data=CONFIG, areas={"asaichi": AREA}, deployments=traps)
    return Gateway(deps, gateway.state, gateway.store)


@pytest.fixture
def anybody(town: Gateway) -> TestClient:
    return town.client(None)


def test_the_sum_of_a_day_of_which_nothing_is_known_is_unknown_and_no_zero(town: Gateway, anybody: TestClient) -> None:
    none = {"at_least": 0, "people": None}
    unknown = {"state": "unknown", "people": None}
    hour = {"start": "2026-05-21T01:00+09:00", "coverage_percent": 0, "came": unknown, "left": unknown}
    day = {**DAY, "day": "2026-05-21", "coverage_percent": 0, "hours": [hour, hour], "came": none, "left": none}
    with town.state.write() as connection:
        connection.execute(tables.open_days.insert().values(
            area="asaichi", day=day["day"], body=json.dumps(day), published_us=NOW_US
        ))  # fmt: skip
    [row] = [row for row in opened(anybody.get("/open/flow.csv").content) if (row["kind"], row["start"]) == ("day", "2026-05-21")]
    assert (row["came"], row["came_state"], row["left"], row["left_state"]) == ("", "unknown", "", "unknown")


def test_everybody_gets_the_hours_and_nobody_a_small_number(anybody: TestClient) -> None:
    answer = anybody.get("/open/flow.csv")
    assert answer.status_code == 200
    first, second, day = opened(answer.content)
    assert (first["came"], first["came_state"], first["left"], first["coverage_percent"]) == ("", "few", "40", "100")
    assert (second["came"], second["came_state"], second["coverage_percent"]) == ("", "unknown", "0")
    assert (day["kind"], day["came"], day["came_state"], day["left"], day["left_state"]) == (
        "day",
        "40",
        "at_least",
        "61",
        "number",
    )
    assert first["label"] == "'=朝市広場"
    assert anybody.get("/open/flow.json").json()["days"] == [DAY]
    assert opened(anybody.get("/open/flow.csv?month=2026-04").content) == []
    assert anybody.get("/open/flow.csv?month=yesterday").status_code == 422


def test_captures_say_a_month_a_square_and_a_kind_and_nothing_of_trap_or_hunter(anybody: TestClient) -> None:
    answer = anybody.get("/open/captures.csv")
    assert opened(answer.content) == [{"month": "2026-04", "mesh": "5440102", "species": "イノシシ", "captures": "1"}]
    for path in ("captures.csv", "flow.csv", "flow.json", "catalog.json", ""):
        said = anybody.get(f"/open/{path}").text
        assert not [secret for secret in SECRETS if secret in said]


@pytest.mark.parametrize("path", ["flow.csv", "flow.json", "captures.csv", "catalog.json", ""])
def test_the_same_facts_are_the_same_bytes_and_may_be_kept(anybody: TestClient, path: str) -> None:
    answer, again = (anybody.get(f"/open/{path}") for _ in range(2))
    assert answer.status_code == 200
    assert answer.content == again.content
    assert answer.headers["cache-control"].startswith("public")
    kept = anybody.get(f"/open/{path}", headers={"If-None-Match": answer.headers["etag"]})
    assert (kept.status_code, kept.content) == (304, b"")


@pytest.mark.parametrize(("language", "word"), [("ja", "オープンデータ"), ("en-GB", "Open data")])
def test_the_page_says_what_there_is_in_the_reader_s_language(anybody: TestClient, language: str, word: str) -> None:
    answer = anybody.get("/open/", headers={"Accept-Language": language})
    assert word in answer.text
    assert "見本町" in answer.text
    assert "https://creativecommons.org/licenses/by/4.0/" in answer.text
    assert 'href="?lang=ja-easy"' in answer.text
    assert "Open data" in anybody.get("/open/?lang=en", headers={"Accept-Language": language}).text
    assert "script" not in answer.text
    assert len(answer.content) < 30_000


def test_the_catalogue_leads_to_every_table(anybody: TestClient) -> None:
    catalogue = anybody.get("/open/catalog.json").json()
    files = [one["dcat:downloadURL"]["@id"] for data in catalogue["dcat:dataset"] for one in data["dcat:distribution"]]
    assert files == ["/open/flow.csv", "/open/flow.json", "/open/captures.csv"]
    assert {anybody.get(file).status_code for file in files} == {200}


def test_there_is_nothing_unless_the_town_says_so(gateway: Gateway) -> None:
    assert {gateway.client(None).get(f"/open/{path}").status_code for path in ("", "flow.csv", "captures.csv")} == {404}


def test_who_asks_all_the_time_is_told_to_wait(anybody: TestClient) -> None:
    answers = [anybody.get("/open/catalog.json").status_code for _ in range(125)]
    assert (answers[0], answers[-1]) == (200, 429)


# --- For the office ---------------------------------------------------------------------------------


def test_the_office_s_tables_hold_what_was_entered_and_no_formula(town: Gateway) -> None:
    client = town.client()
    [visit] = opened(client.get("/api/v1/export/visits.csv").content)
    assert (visit["place"], visit["who"], visit["note"]) == ("北尾根", "田中", '\'=HYPERLINK("https://example.jp")')
    [capture] = opened(client.get("/api/v1/export/captures.csv").content)
    assert (capture["species"], capture["weight_kg"], capture["sex"]) == ("イノシシ", "43.5", "")
    [alert] = opened(client.get("/api/v1/export/alerts.csv").content)
    assert (alert["id"], alert["since"]) == ("a-1", "2026-06-02T21:11:00Z"), "and none of a person"
    assert opened(client.get(f"/api/v1/export/visits.csv?from_us={NOW_US}").content) == []
    hours = opened(client.get(f"/api/v1/export/flow.csv?from_us={NOW_US - 7_200_000_000}").content)
    assert [(hour["area"], hour["came"], hour["coverage_percent"]) for hour in hours] == [("asaichi", "", "0")] * 2
    assert client.get("/api/v1/export/flow.csv?from_us=0").status_code == 422


def test_who_may_not_read_it_gets_no_table_of_it(town: Gateway) -> None:
    viewer = town.client("viewer")
    assert {viewer.get(f"/api/v1/export/{name}.csv").status_code for name in ("visits", "captures")} == {403}
    assert viewer.get("/api/v1/export/alerts.csv").status_code == 200
    assert town.client(None).get("/api/v1/export/visits.csv").status_code == 401
