"""Grafana's dashboards as they are committed: made by the code, whole, and about things that exist."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are not locked
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.__main__ import HERE, files
from edge.contract.metrics import METRICS
from gateway.telemetry import Telemetry

BOARDS = sorted(HERE.glob("*/json/*.json"))
ENGINES = ("influxdb", "victoriametrics")


def read(path: Path) -> dict[str, Any]:
    board: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return board


def provisioned(path: str) -> Any:
    return yaml.safe_load((HERE / path).read_text(encoding="utf-8"))


def named(path: Path) -> str:
    return f"{path.parent.parent.name}-{path.stem}"


def asked_by(board: dict[str, Any]) -> list[str]:
    return [target.get("expr") or target["query"] for panel in board["panels"] for target in panel["targets"]]


def of_the_gateway(text: str) -> set[str]:
    return set(re.findall(r"\bsatomori_\w+", text))


def exported() -> set[str]:
    """The names in `/metrics`, of those that are there from the start and those that come with their first label."""
    names = set()
    for family in Telemetry().registry.collect():
        total = family.name + "_total"
        names |= {family.name} if family.type in ("gauge", "summary") else {total} if family.type == "counter" else set()
        names |= {f"{family.name}_{part}" for part in ("bucket", "count", "sum")} if family.type == "histogram" else set()
    return names


def test_what_is_committed_is_what_the_code_says() -> None:
    made = files()
    assert set(BOARDS) == set(made)
    stale = [str(path) for path, text in made.items() if path.read_text(encoding="utf-8") != text]
    assert stale == [], "run `make grafana` and commit what it writes"


@pytest.mark.parametrize("path", BOARDS, ids=named)
def test_a_dashboard_is_one_to_the_sdk_and_nothing_gets_lost_in_its_model(path: Path) -> None:
    register_default_plugins()
    modelled = json.loads(json.dumps(Dashboard.from_json(read(path)), cls=JSONEncoder))
    assert modelled == read(path)


def test_links_to_a_dashboard_stay_good_whatever_the_store() -> None:
    assert {(path.parent.parent.name, read(path)["uid"]) for path in BOARDS} == {
        (engine, f"satomori-{name}") for engine in ENGINES for name in ("operations", "wildlife", "flow")
    }


@pytest.mark.parametrize("path", BOARDS, ids=named)
def test_a_dashboard_asks_one_question_and_each_panel_says_what_it_shows(path: Path) -> None:
    board = read(path)
    assert board["description"].endswith("?")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for panel in board["panels"]:
        assert re.fullmatch(r"\S.* / \S.*", panel["title"]), "Japanese first, then English"
        assert re.fullmatch(r"[^\n]*[ぁ-ん][^\n]*\n\n[^\nぁ-ん]{20,}", panel["description"]), panel["title"]
        drawn = panel["fieldConfig"]["defaults"]
        assert drawn["unit"], panel["title"]
        below, *_ = drawn["thresholds"]["steps"]
        assert below["value"] is None, panel["title"]
        assert below["color"] != "green", f"{panel['title']}: Grafana draws what nobody knows in this colour"
        assert drawn["noValue"].startswith("不明"), panel["title"]
        assert panel["targets"], panel["title"]


@pytest.mark.parametrize("path", BOARDS, ids=named)
def test_no_panel_lies_on_another(path: Path) -> None:
    taken: dict[tuple[int, int], str] = {}
    for panel in read(path)["panels"]:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        for cell in ((x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])):
            assert cell not in taken, f"{panel['title']} lies on {taken[cell]}"
            taken[cell] = panel["title"]


@pytest.mark.parametrize("name", ["wildlife", "flow", "operations"])
def test_panels_are_the_same_whatever_the_store(name: str) -> None:
    influxdb, victoriametrics = (read(HERE / engine / "json" / f"{name}.json") for engine in ENGINES)
    for board in (influxdb, victoriametrics):
        for panel in board["panels"]:
            panel.pop("targets")
        board.pop("templating", None)
    assert influxdb == victoriametrics


def test_every_metric_that_a_panel_or_an_alert_names_is_there() -> None:
    rules = [rule for group in provisioned("platform/alerts.yml")["groups"] for rule in group["rules"]]
    for path in BOARDS:
        for query in asked_by(read(path)):
            assert of_the_gateway(query) <= exported(), query
            said = set(re.findall(r"\b(\w+)_value\{", query)) | set(re.findall(r'FROM "(\w+)"', query))
            assert said <= set(METRICS), query
            assert said or of_the_gateway(query) or "up{" in query
    for rule in rules:
        assert of_the_gateway(rule["expr"]) <= exported(), rule
    assert len(rules) > 5


def test_alerts_are_about_the_platform_only() -> None:
    """What happens in the town is the gateway's to tell, to those who may know and by their own ways."""
    for group in provisioned("platform/alerts.yml")["groups"]:
        for rule in group["rules"]:
            assert re.search(r'job="(satomori|victoriametrics)"', rule["expr"])
            assert not re.search(r"_value\b|node=|device=|satomori_alerts", rule["expr"]), rule
            assert set(rule["annotations"]) == {"summary", "summary_en", "action"}


@pytest.mark.parametrize("engine", ENGINES)
def test_a_provisioned_grafana_finds_its_data(engine: str) -> None:
    sources = {(one["uid"], one["type"]) for one in provisioned(f"{engine}/datasources/satomori.yml")["datasources"]}
    text = "".join(path.read_text(encoding="utf-8") for path in (HERE / engine / "json").iterdir())
    refs = {(one["uid"], one["type"]) for one in (json.loads(found) for found in re.findall(r'"datasource": (\{[^}]*\})', text))}
    assert refs == sources
    (provider,) = provisioned(f"{engine}/dashboards/satomori.yml")["providers"]
    assert provider["options"]["path"] == "/etc/grafana/provisioning/json"


def test_the_gateway_is_read_under_the_job_that_panels_and_alerts_ask_for() -> None:
    jobs = {one["job_name"] for one in provisioned("platform/scrape.yml")["scrape_configs"]}
    asked = "".join((HERE / "platform/alerts.yml").read_text(encoding="utf-8")) + "".join(
        query for path in BOARDS for query in asked_by(read(path))
    )
    assert set(re.findall(r'job="(\w+)"', asked)) == jobs
