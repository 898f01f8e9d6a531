"""The series stores of this gateway: one module each, listed here and nowhere else."""

import logging
from typing import Annotated, assert_never

from pydantic import Field

from gateway.errors import StoreDown
from gateway.store.influxdb import InfluxdbStore, InfluxdbStoreConfig
from gateway.store.series import Bucket, Key, Point, SeriesKey, SeriesReader, SeriesStore, SeriesWriter
from gateway.store.sqlite import SqliteStore, SqliteStoreConfig
from gateway.store.victoriametrics import VictoriaMetricsStore, VictoriaMetricsStoreConfig

__all__ = [
    "AnyStoreConfig",
    "Bucket",
    "InfluxdbStore",
    "InfluxdbStoreConfig",
    "Key",
    "Point",
    "SeriesKey",
    "SeriesReader",
    "SeriesStore",
    "SeriesWriter",
    "SqliteStore",
    "SqliteStoreConfig",
    "StoreConfig",
    "VictoriaMetricsStore",
    "VictoriaMetricsStoreConfig",
    "open_store",
    "try_store",
]

log = logging.getLogger(__name__)

AnyStoreConfig = SqliteStoreConfig | InfluxdbStoreConfig | VictoriaMetricsStoreConfig
StoreConfig = Annotated[AnyStoreConfig, Field(discriminator="type")]
"""The `store` table of gateway.toml."""


def open_store(config: AnyStoreConfig) -> SeriesStore:
    """The store of a config, open. ConfigError, StoreDown or StoreRefused, each with what to do about it.

    A server that refuses us, or was started as it must not be, is a StoreRefused; for one that gives no answer nobody waits, as
    events and alerts go on without it.
    """
    store = _made(config)
    if not isinstance(store, SqliteStore):
        try:
            store.check()
        except StoreDown as error:
            log.warning("the series store can't be used yet: %s", error)
        except BaseException:
            store.close()
            raise
    return store


def try_store(config: AnyStoreConfig) -> None:
    """Finds out whether it takes and gives points now. ConfigError, StoreDown, StoreRefused."""
    store = _made(config)
    try:
        if not isinstance(store, SqliteStore):  # whose opening says it
            store.check()
    finally:
        store.close()


def _made(config: AnyStoreConfig) -> SqliteStore | InfluxdbStore | VictoriaMetricsStore:
    match config:
        case SqliteStoreConfig():
            return SqliteStore(config)
        case InfluxdbStoreConfig():
            return InfluxdbStore(config)
        case VictoriaMetricsStoreConfig():
            return VictoriaMetricsStore(config)
        case _:
            assert_never(config)
