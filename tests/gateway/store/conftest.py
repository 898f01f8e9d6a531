"""The stores under test, and how to look into them from outside."""

import json
import urllib.parse
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import NamedTuple, Protocol

import pytest

from gateway.store import InfluxdbStoreConfig, Key, SeriesWriter, SqliteStoreConfig, open_store, readable
from simulators.ports import free_port
from tests.services import require_binary, running


class Shelf(NamedTuple):
    """One kind of store: how to open it (again), and what is in it by another way than the object that wrote."""

    open: Callable[[], SeriesWriter]
    holds: Callable[[Key], list[tuple[int, float]]]


class MakeInfluxdbConfig(Protocol):
    def __call__(self, url: str, timeout_s: float = 5) -> InfluxdbStoreConfig: ...


@pytest.fixture
def node(request: pytest.FixtureRequest) -> str:
    """A node of this test's own, so that tests can share one server."""
    return f"test-{zlib.crc32(request.node.nodeid.encode()):08x}"


@pytest.fixture
def sqlite_config(tmp_path: Path) -> SqliteStoreConfig:
    return SqliteStoreConfig(type="sqlite", path=tmp_path / "series.db")


@pytest.fixture
def influxdb_config(tmp_path: Path) -> MakeInfluxdbConfig:
    token_file = tmp_path / "token"
    token_file.write_text("invented-token\n")
    token_file.chmod(0o600)

    def make(url: str, timeout_s: float = 5) -> InfluxdbStoreConfig:
        return InfluxdbStoreConfig(
            type="influxdb", url=url, org="example-town", bucket="readings", token_file=token_file, timeout_s=timeout_s
        )

    return make


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The URL of a real server that speaks InfluxDB's write API and, unlike InfluxDB, is in Debian."""
    program, port = require_binary("victoria-metrics"), free_port()
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        try:
            with get(f"{url}/health"):
                return True
        except OSError:
            return False

    argv: list[str | Path] = [
        program,
        f"-httpListenAddr=127.0.0.1:{port}",
        f"-storageDataPath={tmp_path_factory.mktemp('victoria-metrics')}",
        "-retentionPeriod=100y",
        "-dedup.minScrapeInterval=1ms",  # points of the same ms are one point, as in InfluxDB
    ]
    with running(argv, ready):
        yield url


def get(url: str) -> HTTPResponse:
    answer = urllib.request.urlopen(url, timeout=10)  # noqa: S310 - a server that this test started
    assert isinstance(answer, HTTPResponse)
    return answer


def exported(url: str, key: Key) -> list[tuple[int, float]]:
    """What VictoriaMetrics holds of a series, oldest first."""
    node, device, metric = map(json.dumps, key)
    match = f'{{__name__={metric[:-1]}_value", node={node}, device={device}}}'
    with get(f"{url}/internal/force_flush"):
        pass
    query = urllib.parse.urlencode({"match[]": match})
    with get(f"{url}/api/v1/export?{query}") as answer:
        rows = [json.loads(line) for line in answer]
    return sorted((time_ms, value) for row in rows for time_ms, value in zip(row["timestamps"], row["values"], strict=True))


@pytest.fixture(params=["sqlite", pytest.param("influxdb", marks=pytest.mark.services)])
def shelf(request: pytest.FixtureRequest, sqlite_config: SqliteStoreConfig) -> Shelf:
    if request.param == "influxdb":
        url: str = request.getfixturevalue("victoria_metrics")
        config = request.getfixturevalue("influxdb_config")(url)
        return Shelf(lambda: open_store(config), lambda key: exported(url, key))

    def held(key: Key) -> list[tuple[int, float]]:
        store = open_store(sqlite_config)
        reader = readable(store)
        assert reader is not None
        try:
            node, device, metric = key
            return reader.read(node, device, metric, start_ms=0, end_ms=2**62, limit=100_000)
        finally:
            store.close()

    return Shelf(lambda: open_store(sqlite_config), held)
