"""What InfluxDB must have before readings can go there: a bucket and its mapping (2), or a database (1). Made once, by hand."""

import re
from pathlib import Path

from gateway.store.influxdb import InfluxdbStoreConfig, answered, quoted
from gateway.store.server import Login, Place, Server

POLICY = "autogen"
"""What a mapping's retention policy is called where the configuration names none: as InfluxDB itself calls its first."""


def prepare(config: InfluxdbStoreConfig, secret: str, file: Path) -> list[str]:
    """Makes what is lacking, and changes nothing that is there. A line for each: found, or made. StoreDown, StoreRefused.

    `secret` is an all-access token, or user:password of an administrator; `file` is where it stands, for who must correct it.
    """
    login = Login("Basic" if ":" in secret else "Token", secret, f"Put one that may make buckets or databases into {file}.")
    lacking = f"knows no organization {config.org!r} {{said}}. Make it there, or correct store.org or store.url."
    server = Server("InfluxDB", config.url, login, Place(config.org, config.bucket, lacking))
    try:
        version = server.ask("GET", "/ping", {}).headers.get("X-Influxdb-Version", "")
        return _database(server, config) if re.match(r"v?1\.", version) else _bucket_and_mapping(server, config)
    finally:
        server.close()


def _database(server: Server, config: InfluxdbStoreConfig) -> list[str]:
    name, policy = config.queried, config.retention_policy
    done = [_found("database", name)]
    if name not in _names(answered(server, "SHOW DATABASES")):
        answered(server, f"CREATE DATABASE {quoted(name)}")
        done = [_made("database", name)]
    if policy is not None:
        if policy in _names(answered(server, f"SHOW RETENTION POLICIES ON {quoted(name)}")):
            return [*done, _found("retention policy", policy)]
        answered(server, f"CREATE RETENTION POLICY {quoted(policy)} ON {quoted(name)} DURATION INF REPLICATION 1 DEFAULT")
        done.append(_made("retention policy", policy))
    return done


def _names(found: list[dict[str, list[list[str]]]]) -> list[str]:
    return [row[0] for one in found for row in one.get("values", [])]


def _bucket_and_mapping(server: Server, config: InfluxdbStoreConfig) -> list[str]:
    from influxdb_client.domain.dbrp_create import DBRPCreate
    from influxdb_client.service.dbr_ps_service import DBRPsService

    with server.explained():
        buckets = server.client.buckets_api()
        named = buckets.find_buckets(name=config.bucket, org=config.org)  # type: ignore[no-untyped-call]  # generated code
        bucket = next(iter(named.buckets or ()), None)
        done = [_found("bucket", config.bucket)]
        if bucket is None:
            bucket = buckets.create_bucket(bucket_name=config.bucket, org=config.org)
            done = [_made("bucket", config.bucket)]
        mappings = DBRPsService(server.client.api_client)  # type: ignore[no-untyped-call]
        database, policy = config.queried, config.retention_policy
        for one in mappings.get_dbr_ps(org=config.org, db=database).content or ():  # type: ignore[no-untyped-call]
            if one.default if policy is None else one.retention_policy == policy:
                if one.bucket_id != bucket.id:
                    raise server.refused(
                        f"maps {database}/{one.retention_policy} to another bucket than {config.bucket!r}: "
                        "correct store.database or store.retention_policy, or remove that mapping there."
                    )
                return [*done, _found("mapping", f"{database}/{one.retention_policy}")]
        mappings.post_dbrp(  # type: ignore[no-untyped-call]
            DBRPCreate(  # type: ignore[no-untyped-call]
                org=config.org, bucket_id=bucket.id, database=database, retention_policy=policy or POLICY, default=policy is None
            )
        )
        return [*done, _made("mapping", f"{database}/{policy or POLICY}")]


def _found(what: str, name: str) -> str:
    return f"{what} {name}: found"


def _made(what: str, name: str) -> str:
    return f"{what} {name}: made"
