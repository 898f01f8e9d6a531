"""The stores under test, each in its real engine."""

import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

import pytest

from gateway.store import (
    InfluxdbStore,
    InfluxdbStoreConfig,
    SeriesStore,
    SqliteStore,
    SqliteStoreConfig,
    VictoriaMetricsStore,
    VictoriaMetricsStoreConfig,
)
from tests.gateway.store import servers

Open = Callable[[], SeriesStore]
"""Opens the store under test, anew each time."""


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
    token_file.write_text(f"{servers.TOKEN}\n")
    token_file.chmod(0o600)

    def make(url: str, timeout_s: float = 5) -> InfluxdbStoreConfig:
        return InfluxdbStoreConfig(
            type="influxdb", url=url, org="example-town", bucket="readings", token_file=token_file, timeout_s=timeout_s
        )

    return make


@pytest.fixture(scope="session")
def victoria_metrics(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Its url."""
    with servers.victoria_metrics(tmp_path_factory.mktemp("victoria")) as server:
        yield server.url


@pytest.fixture(scope="session")
def influxdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The url of InfluxDB 1, which is written as if it were 2."""
    folder = tmp_path_factory.mktemp("influx")
    with servers.influxdb_1(folder) as server, servers.as_influxdb_2(server, folder) as url:
        servers.say_who_is_who(server)
        servers.influxql(server.url, 'CREATE DATABASE "readings"')
        yield url


@pytest.fixture(params=["sqlite", *(pytest.param(name, marks=pytest.mark.services) for name in ("influxdb", "victoriametrics"))])
def kind(request: pytest.FixtureRequest) -> str:
    """The kind of the store under test."""
    return str(request.param)


@pytest.fixture
def open_one(kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Open:
    if kind == "sqlite":
        at_home: SqliteStoreConfig = request.getfixturevalue("sqlite_config")
        return lambda: SqliteStore(at_home)
    if kind == "influxdb":
        config: InfluxdbStoreConfig = request.getfixturevalue("influxdb_config")(request.getfixturevalue("influxdb"))
        return lambda: InfluxdbStore(config)
    url = request.getfixturevalue("victoria_metrics")
    journal = tmp_path / "journal"
    return lambda: VictoriaMetricsStore(VictoriaMetricsStoreConfig(type="victoriametrics", url=url, journal=journal))
