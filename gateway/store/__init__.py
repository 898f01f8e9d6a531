"""The series stores of this gateway: one module each, listed here and nowhere else."""

from typing import Annotated, assert_never

from pydantic import Field

from gateway.store.influxdb import InfluxdbStore, InfluxdbStoreConfig
from gateway.store.series import Bucket, Key, Point, SeriesKey, SeriesReader, SeriesWriter
from gateway.store.sqlite import SqliteStore, SqliteStoreConfig

__all__ = [
    "AnyStoreConfig",
    "Bucket",
    "InfluxdbStore",
    "InfluxdbStoreConfig",
    "Key",
    "Point",
    "SeriesKey",
    "SeriesReader",
    "SeriesWriter",
    "SqliteStore",
    "SqliteStoreConfig",
    "StoreConfig",
    "open_store",
    "readable",
]

AnyStoreConfig = SqliteStoreConfig | InfluxdbStoreConfig
StoreConfig = Annotated[AnyStoreConfig, Field(discriminator="type")]
"""The `store` table of gateway.toml."""


def open_store(config: AnyStoreConfig) -> SeriesWriter:
    """The store of a config, open. ConfigError, StoreDown or StoreRefused, each with what to do about it."""
    match config:
        case SqliteStoreConfig():
            return SqliteStore(config)
        case InfluxdbStoreConfig():
            return InfluxdbStore(config)
        case _:
            assert_never(config)


def readable(store: SeriesWriter) -> SeriesReader | None:
    """The same store for reading, or None when its kind only writes (influxdb, in this release): then draw no chart."""
    return store if isinstance(store, SeriesReader) else None
