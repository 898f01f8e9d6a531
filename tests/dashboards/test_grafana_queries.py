"""Every panel's query, as Grafana would send it, asked of the real stores that hold a day of the simulators' town.

Grafana itself is not here: what it puts in place of its variables and macros is done by `filled`, which knows those that the
dashboards use and no other.
"""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections import ChainMap
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml  # type: ignore[import-untyped]  # its stubs are not locked

from dashboards.grafana.__main__ import HERE
from gateway.store.server import line_head
from simulators.ports import free_port
from simulators.several import until
from simulators.world import World
from tests.dashboards.simulated_day import BEGAN_US, ENDED_US, NODES, gateways_own, readings
from tests.services import listening, require_binary, running

pytestmark = pytest.mark.services

HOUR_S = 3600
DAY_S = 24 * HOUR_S
SCRAPED_EVERY_S = 60
"""`timeInterval` of the data sources."""
SILENT = ("kitaone", BEGAN_US // 1_000_000 + 12 * HOUR_S, BEGAN_US // 1_000_000 + 15 * HOUR_S)
"""The link to this node is cut from noon to three, and what it would have said is lost."""

MACHINES = """satomori_broker_up 1\nsatomori_unjudged_oldest_seconds 0
satomori_disk_free_bytes{{of="state"}} 9e9\nsatomori_disk_free_bytes{{of="media"}} 9e9
satomori_certificate_ends_timestamp_seconds{{of="broker"}} {ends}
satomori_backup_timestamp_seconds {made}\nsatomori_restore_tested_timestamp_seconds {made}
"""
"""What a whole gateway tells of its machine and its broker: a story's has neither. `test_vitals_told.py` has both."""

Curve = list[tuple[float, float]]
Answer = dict[str, Curve]
"""By legend: UTC in s, value."""


class Span(NamedTuple):
    """What a reader has chosen at the top right: UTC in s."""

    since: int
    until: int


DAY = Span(BEGAN_US // 1_000_000, ENDED_US // 1_000_000)


class Stores(NamedTuple):
    """URLs of the servers, filled; and when the gateway's own metrics were read."""

    victoriametrics: str
    influxdb: str
    operated: Span


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stores]:
    home = tmp_path_factory.mktemp("grafana")
    with ExitStack() as opened:
        metrics, influx = opened.enter_context(victoria_metrics(home)), opened.enter_context(influxdb(home))
        (home / "day").mkdir()
        lines = [
            f"{line_head(key)}{value!r} {time_ms}"
            for key, time_ms, value in readings(home / "day")
            if not (key[0] == SILENT[0] and SILENT[1] <= time_ms / 1000 < SILENT[2])
        ]
        body = "\n".join(lines).encode()
        post(f"{influx}/query?q=CREATE+DATABASE+satomori", b"")
        post(f"{influx}/write?db=satomori&precision=ms", body)
        post(f"{metrics}/api/v2/write?precision=ms", body)
        (home / "gateway").mkdir()
        own = gateways_own(home / "gateway")
        for time_ms, text in own:
            machine = MACHINES.format(ends=time_ms // 1000 + 300 * DAY_S, made=time_ms // 1000 - HOUR_S)
            bring(metrics, f'{text}{machine}up{{instance="gateway"}} 1\n', time_ms)
        post(f"{metrics}/internal/force_flush", b"")  # what came within the last second is not seen yet
        yield Stores(metrics, influx, Span(own[0][0] // 1000 - 6 * HOUR_S, own[-1][0] // 1000 + 200))


def victoria_metrics(home: Path) -> AbstractContextManager[str]:
    port = free_port()
    folder = home / "victoria-metrics"
    program = require_binary("victoria-metrics")
    return serving(port, program, f"-httpListenAddr=127.0.0.1:{port}", f"-storageDataPath={folder}", "-retentionPeriod=100y")


def influxdb(home: Path) -> AbstractContextManager[str]:
    port, config = free_port(), home / "influxdb.conf"
    meta, data, wal = (json.dumps(str(home / "influxdb" / name)) for name in ("meta", "data", "wal"))
    config.write_text(
        f"""
        reporting-disabled = true
        bind-address = "127.0.0.1:{free_port()}"
        meta = {{ dir = {meta} }}
        data = {{ dir = {data}, wal-dir = {wal} }}
        http = {{ bind-address = "127.0.0.1:{port}", log-enabled = false }}
        """,
        encoding="utf-8",
    )
    return serving(port, require_binary("influxd"), "-config", config)


@contextmanager
def serving(port: int, *argv: str | Path) -> Iterator[str]:
    with running(argv, lambda: listening(port)):
        yield f"http://127.0.0.1:{port}"


def post(url: str, body: bytes) -> bytes:
    headers = {"Content-Type": "text/plain"}  # of a form, the body would be taken for more parameters
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=30) as answer:  # noqa: S310 - our own
        said: bytes = answer.read()
        return said


def ask(url: str, **form: str) -> Any:
    return json.loads(post(f"{url}?{urllib.parse.urlencode(form)}", b""))


def bring(metrics: str, text: str, time_ms: int, job: str = "satomori") -> None:
    """As if VictoriaMetrics had read this under /metrics at that time."""
    post(f"{metrics}/api/v1/import/prometheus?extra_label=job={job}&timestamp={time_ms}", text.encode())


# --- As Grafana would ask ---------------------------------------------------------------------------


def interval_s(panel: dict[str, Any], span: Span) -> int:
    """Of a panel: as many points as it wants, but never less apart than it or its data source says."""
    wanted: int = -(-(span.until - span.since) // panel.get("maxDataPoints", 1000))
    said: str = panel.get("interval", "1m")  # `timeInterval` of the data sources
    return max(wanted, int(said[:-1]) * {"m": 60, "h": HOUR_S}[said[-1]])


def filled(query: str, panel: dict[str, Any], span: Span, nodes: list[str]) -> str:
    """The query with Grafana's variables and macros put in. A mistake of the dashboards' fails: an unknown one stays as it is."""
    step = interval_s(panel, span)
    known = {
        "$node": f"({'|'.join(map(re.escape, nodes))})".replace(r"\-", "-"),
        "$timeFilter": f"time >= {span.since * 1000}ms and time <= {span.until * 1000}ms",
        "$__interval": f"{step}s",
        "$__rate_interval": f"{max(step + SCRAPED_EVERY_S, 4 * SCRAPED_EVERY_S)}s",
        "$__range": f"{span.until - span.since}s",
    }

    def one(found: re.Match[str]) -> str:
        if found[0] not in known:
            pytest.fail(f"{panel['title']}: Grafana is not known to fill in {found[0]}: {query}")
        return known[found[0]]

    return re.sub(r"\$\{?\w[\w:.]*\}?|\[\[\w+\]\]", one, query)


def answer(stores: Stores, panel: dict[str, Any], target: dict[str, Any], span: Span, nodes: list[str]) -> Answer:
    """What a panel gets to draw, by legend."""
    if target["datasource"]["type"] == "influxdb":
        query = filled(target["query"], panel, span, nodes)
        (result,) = ask(f"{stores.influxdb}/query", db="satomori", epoch="ms", q=query)["results"]
        assert "error" not in result, f"{query}: {result}"
        return {
            legend(target["alias"], r"\$tag_(\w+)", one["tags"]): [
                (row[0] / 1000, float(row[1])) for row in one["values"] if row[1] is not None
            ]
            for one in result.get("series", [])
        }
    query, url = filled(target["expr"], panel, span, nodes), f"{stores.victoriametrics}/api/v1"
    if target.get("instant"):
        said = ask(f"{url}/query", query=query, time=str(span.until))["data"]["result"]
        curves = [(one["metric"], [one["value"]]) for one in said]
    else:
        step = interval_s(panel, span)
        since = span.since - span.since % step  # as Grafana aligns it
        said = ask(f"{url}/query_range", query=query, start=str(since), end=str(span.until), step=str(step), nocache="1")
        curves = [(one["metric"], one["values"]) for one in said["data"]["result"]]
    return {
        legend(target["legendFormat"], r"\{\{(\w+)\}\}", tags): [
            (float(at), float(value)) for at, value in curve if value != "NaN"
        ]
        for tags, curve in curves
    }


def legend(text: str, names: str, tags: dict[str, str]) -> str:
    return re.sub(names, lambda found: tags[found[1]], text)


def offered(stores: Stores, variable: dict[str, Any]) -> list[str]:
    """What a reader may choose from."""
    if variable["datasource"]["type"] == "influxdb":
        (result,) = ask(f"{stores.influxdb}/query", db="satomori", q=variable["query"])["results"]
        return sorted({value for one in result["series"] for _, value in one["values"]})
    found = re.fullmatch(r"label_values\((.*), (\w+)\)", variable["query"]["query"])
    assert found, variable
    url = f"{stores.victoriametrics}/api/v1/label/{found[2]}/values"
    form = {"match[]": found[1], "start": str(DAY.since), "end": str(DAY.until)}
    return sorted(ask(url, **form)["data"])


def board(engine: str, name: str) -> dict[str, Any]:
    read: dict[str, Any] = json.loads((HERE / engine / "json" / f"{name}.json").read_text(encoding="utf-8"))
    return read


def drawn(stores: Stores, engine: str, name: str) -> dict[str, list[Answer]]:
    """Everything on a dashboard: by the panel's title, of each of its targets."""
    shown = board(engine, name)
    span = stores.operated if name == "operations" else DAY
    variables = shown.get("templating", {}).get("list", [])
    nodes = offered(stores, variables[0]) if variables else []
    return {
        panel["title"]: [answer(stores, panel, target, span, nodes) for target in panel["targets"]] for panel in shown["panels"]
    }


# --- What must hold ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("engine", "name"),
    [(engine, name) for engine in ("influxdb", "victoriametrics") for name in ("wildlife", "flow")]
    + [("victoriametrics", "operations")],
)
def test_no_panel_is_empty(stores: Stores, engine: str, name: str) -> None:
    empty = [
        f"{title}, target {number}"
        for title, answers in drawn(stores, engine, name).items()
        for number, one in enumerate(answers, 1)
        if not one or not all(one.values())
    ]
    assert empty == [], "\n".join(empty)


@pytest.mark.parametrize("name", ["wildlife", "flow"])
def test_both_stores_give_the_same_answer(stores: Stores, name: str) -> None:
    """The same series. Counts have the same sum, as a word on the hour may fall to either interval; all else reaches as high."""
    one, other = (drawn(stores, engine, name) for engine in ("influxdb", "victoriametrics"))
    for panel in board("influxdb", name)["panels"]:
        influx, victoria = (dict(ChainMap(*answers[panel["title"]])) for answers in (one, other))
        assert influx.keys() == victoria.keys(), panel["title"]
        counted = re.match(r"SELECT (count|non_negative_difference)\(", panel["targets"][0]["query"])
        for series in influx:
            its, others = ([value for _, value in answers[series]] for answers in (influx, victoria))
            of = sum if counted else max
            assert of(its) == pytest.approx(of(others), rel=0.01, abs=1 if counted else 0.01), (panel["title"], series)
            assert (len(its) == 1) == (len(others) == 1)


@pytest.mark.parametrize("engine", ["influxdb", "victoriametrics"])
def test_a_silent_node_has_no_value_and_no_zero(stores: Stores, engine: str) -> None:
    inside = Span(SILENT[1] + 1200, SILENT[2] - 1200)
    shown = drawn(stores, engine, "wildlife")
    for title, (curves,) in shown.items():
        for name, curve in curves.items():
            if len(curve) > 1:
                assert [at for at, _ in curve if inside.since <= at <= inside.until] == [], (title, name)
    (spoke,) = drawn(stores, engine, "flow")["計測器は数えているか / Do the counters count"]
    assert all(any(inside.since <= at <= inside.until for at, _ in curve) for curve in spoke.values()), "the others speak"


@pytest.mark.parametrize("engine", ["influxdb", "victoriametrics"])
def test_the_festival_is_as_full_as_it_was(stores: Stores, engine: str) -> None:
    came, went = drawn(stores, engine, "flow")["入った人と出た人 / Came and went"]
    world = World(seed=1)
    for node in ("hiroba", "kominkan"):
        counters = [
            device.name for one in world.nodes() if one.name == node for device in one.devices if "counter" in device.name
        ]
        true = [
            sum(came - went for came, went in (world.counter_totals(node, counter, at_us) for counter in counters))
            for at_us in range(BEGAN_US, ENDED_US, 600_000_000)
        ]
        out = dict(went[f"出 out {node}"])
        inside = [value - out[at] for at, value in came[f"入 in {node}"] if at in out]
        assert max(inside) == pytest.approx(max(true), rel=0.02)
        assert abs(inside[-1]) <= 2, "everybody has gone home"


@pytest.mark.parametrize("engine", ["influxdb", "victoriametrics"])
def test_a_reader_chooses_among_the_nodes_that_the_dashboard_is_about(stores: Stores, engine: str) -> None:
    choice = {name: offered(stores, board(engine, name)["templating"]["list"][0]) for name in ("wildlife", "flow")}
    assert choice == {"wildlife": ["kitaone"], "flow": ["hiroba", "kominkan"]}
    assert set(choice["wildlife"] + choice["flow"]) == set(NODES)


def test_a_macro_that_grafana_does_not_know_fails() -> None:
    with pytest.raises(pytest.fail.Exception, match=r"\$__nonsense"):
        filled("rate(x[$__nonsense])", {"title": "x"}, DAY, [])


# --- Alerts -----------------------------------------------------------------------------------------

ILL = {
    "GatewayDown": "up 0",
    "BrokerDown": "satomori_broker_up 0",
    "StoreDown": "satomori_store_down 1",
    "DeliveriesWaiting": "satomori_notifications_overdue_seconds 900",
    "StageStuck": 'satomori_turned_timestamp_seconds{stage="deliver"} 1',
    "DeadLetters": "satomori_notifications_dead {grows}",
    "RecordsRefused": 'satomori_quarantined_total{what="record"} {grows}',
    "RecordsLost": "satomori_lost_total {grows}",
    "EventsUnjudged": "satomori_unjudged_oldest_seconds 300",
    "CertificateEnding": 'satomori_certificate_ends_timestamp_seconds{of="broker"} {in20days}',
    "BackupMissing": "satomori_backup_timestamp_seconds 0",
    "RestoreUntested": "satomori_restore_tested_timestamp_seconds 0",
    "GatewayDiskNearlyFull": 'satomori_disk_free_bytes{of="state"} 1e9',
    "DiskNearlyFull": "vm_free_disk_space_bytes 1e9",
}
"""What VictoriaMetrics would read while each is to ring."""


def test_alerts_ring_when_something_is_wrong_and_only_then(stores: Stores) -> None:
    """vmalert itself plays them over an hour that is well, and one in which everything is wrong at once."""
    began = DAY.since + 30 * 24 * HOUR_S
    well, ill = Span(began, began + HOUR_S), Span(began + 24 * HOUR_S, began + 25 * HOUR_S)
    for at in range(well.since, well.until, 30):
        fine = f"""up 1\nsatomori_broker_up 1\nsatomori_store_down 0\nsatomori_notifications_overdue_seconds 20
            satomori_turned_timestamp_seconds{{stage="deliver"}} {at}\nsatomori_notifications_dead 3
            satomori_quarantined_total{{what="record"}} 7\nsatomori_lost_total 7\nsatomori_unjudged_oldest_seconds 1
            satomori_certificate_ends_timestamp_seconds{{of="broker"}} {at + 40 * DAY_S}
            satomori_backup_timestamp_seconds {at - DAY_S}\nsatomori_restore_tested_timestamp_seconds {at - 80 * DAY_S}
            satomori_disk_free_bytes{{of="state"}} 9e9\n"""
        bring(stores.victoriametrics, fine, at * 1000)
        bring(stores.victoriametrics, "vm_free_disk_space_bytes 9e9\n", at * 1000, "victoriametrics")
    for at in range(ill.since, ill.until, 30):
        for name, text in ILL.items():
            grown = text.replace("{grows}", str((at - ill.since) // 600)).replace("{in20days}", str(at + 20 * DAY_S))
            bring(stores.victoriametrics, f"{grown}\n", at * 1000, "victoriametrics" if name == "DiskNearlyFull" else "satomori")
    post(f"{stores.victoriametrics}/internal/force_flush", b"")
    assert rung(stores, well) == set()
    assert rung(stores, ill) == set(ILL)
    assert rung(stores, Span(ill.until + 7200, ill.until + 10800)) == {"GatewayUnread"}, "nobody reads the gateway then"


def rung(stores: Stores, span: Span) -> set[str]:
    began, ended = (datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z") for at in span)
    subprocess.run(
        [
            require_binary("vmalert"), f"-rule={HERE / 'platform' / 'alerts.yml'}", f"-datasource.url={stores.victoriametrics}",
            f"-remoteWrite.url={stores.victoriametrics}", "-datasource.queryStep=30s",
            f"-replay.timeFrom={began}", f"-replay.timeTo={ended}",
            "-replay.rulesDelay=0", "-replay.disableProgressBar", "-remoteWrite.flushInterval=100ms",
            f"-httpListenAddr=127.0.0.1:{free_port()}",
        ],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
    # A series that is new shows itself some time after it was written: one that was written last shows that all do.
    bring(stores.victoriametrics, f"played_{span.since} 1\n", span.until * 1000 - 1)
    post(f"{stores.victoriametrics}/internal/force_flush", b"")

    def found(query: str) -> list[dict[str, dict[str, str]]]:
        said = ask(f"{stores.victoriametrics}/api/v1/query", query=query, time=str(span.until), nocache="1")
        return list(said["data"]["result"])

    until(lambda: bool(found(f"played_{span.since}")), "what was played shows itself")
    firing = f'count by (alertname) (last_over_time(ALERTS{{alertstate="firing"}}[{span.until - span.since}s]))'
    return {one["metric"]["alertname"] for one in found(firing)}


@pytest.mark.parametrize("several", [False, True], ids=["one process", "several processes"])
def test_victoriametrics_takes_the_file_that_says_what_it_reads(several: bool, tmp_path: Path) -> None:
    text, file = (HERE / "platform" / "scrape.yml").read_text(encoding="utf-8"), tmp_path / "scrape.yml"
    file.write_text(text.replace("#: ", "") if several else text, encoding="utf-8")
    jobs = [one["job_name"] for one in yaml.safe_load(file.read_text(encoding="utf-8"))["scrape_configs"]]
    assert ("satomori-processes" in jobs) == several
    subprocess.run(
        [require_binary("victoria-metrics"), f"-promscrape.config={file}", "-promscrape.config.dryRun"],
        check=True, capture_output=True, timeout=30,
    )  # fmt: skip
