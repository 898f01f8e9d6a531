"""`satomori-gateway node list` and `node show`: how nodes do, by the state database, which they only read."""

import argparse
from typing import Any
from zoneinfo import ZoneInfo

from sqlalchemy import Connection, select

from gateway.canary import CANARY
from gateway.config import GatewayConfig
from gateway.nodes import desired
from gateway.state import tables
from gateway.terminal import Told, all_wrapped, clock_us, day, media_path, minute, opened

LAST_COMMANDS = 10


def list_nodes(config: GatewayConfig, _arguments: argparse.Namespace) -> Told:
    """Every node that spoke, was asked for something, has a certificate or is to be claimed; one line each."""
    now_us, zone = clock_us(), ZoneInfo(config.time_zone)
    with opened(config) as state, state.read() as connection:
        found = _found(connection, now_us)
    lines = all_wrapped(f"{name}  {'; '.join(_said(found[name], now_us, zone).values())}" for name in sorted(found))
    return Told(0, {"nodes": [found[name] for name in sorted(found)]}, lines or ["no nodes yet"])


def show_node(config: GatewayConfig, arguments: argparse.Namespace) -> Told:
    """One node, its devices and its last commands with what became of them. 1 where there is none of that name."""
    now_us, zone = clock_us(), ZoneInfo(config.time_zone)
    commands, devices = tables.commands.c, tables.devices.c
    columns = (commands.id, commands.name, commands.device, commands.issued_us, commands.issued_by, commands.state)
    with opened(config) as state, state.read() as connection:
        one = _found(connection, now_us).get(arguments.name)
        if one is None:
            return Told(1, {"node": arguments.name, "error": f"there is no node {arguments.name[:40]!r}; see node list"}, [])
        has = select(devices.device, devices.kind).where(devices.node == arguments.name).order_by(devices.device)
        one["devices"] = {row.device: row.kind for row in connection.execute(has)}
        given = (
            select(*columns, commands.reason, commands.media, commands.answered_us, commands.rssi_dbm)
            .where(commands.node == arguments.name)
            .order_by(commands.issued_us.desc(), commands.id)
            .limit(LAST_COMMANDS)
        )
        one["commands"] = [row._asdict() for row in connection.execute(given)]
    said = {**_said(one, now_us, zone), "agent": one["agent"] or "not known"}
    said["devices"] = ", ".join(f"{device} ({kind})" for device, kind in one["devices"].items()) or "none announced"
    lines = [f"  {name:11} {text}" for name, text in said.items()]
    lines += [f"  {minute(row['issued_us'], zone)}  {_command(row)}" for row in one["commands"]]
    return Told(0, one, [arguments.name, *all_wrapped(lines)])


def _command(row: dict[str, Any]) -> str:
    """One command and its answer: `restart_device trap-11: failed: no such device`."""
    what = " ".join(filter(None, (row["name"], row["device"])))
    answer = ": ".join(filter(None, (row["state"], row["reason"])))
    heard = "" if row["rssi_dbm"] is None else f"; it hears its network with {row['rssi_dbm']} dBm"
    return f"{what}: {answer}{heard}" + (f"; file {media_path(row['media'])}" if row["media"] else "")


def _found(connection: Connection, now_us: int) -> dict[str, dict[str, Any]]:
    found: dict[str, dict[str, Any]] = {}

    def node(name: str) -> dict[str, Any]:
        heard = dict.fromkeys(("online", "offline_reason", "seen_us", "agent", "running", "desired"))
        return found.setdefault(name, {"node": name, **heard, "certificates": [], "claim": None})

    for row in connection.execute(select(tables.nodes).where(tables.nodes.c.node != CANARY)):  # no box of the town's
        heard = {key: getattr(row, key) for key in ("online", "offline_reason", "seen_us", "agent")}
        node(row.node).update(heard, running=row.config_revision)
    for row in desired.highest(connection):
        node(row.node)["desired"] = {"revision": row.revision, "outcome": row.outcome, "reason": row.reason}
    certificates = tables.certificates
    for row in connection.execute(select(certificates).order_by(certificates.c.issued_us)):
        node(row.node)["certificates"].append(row._asdict())
    codes = tables.claims.c
    columns = (codes.node, codes.created_us, codes.created_by, codes.expires_us, codes.failures)
    open_ = (codes.code.is_not(None), codes.used_us.is_(None), codes.expires_us > now_us)
    for row in connection.execute(select(*columns).where(*open_)):
        node(row.node)["claim"] = {key: value for key, value in row._asdict().items() if key != "node"}
    return found


def _said(one: dict[str, Any], now_us: int, zone: ZoneInfo) -> dict[str, str]:
    """What is known of a node, in words, by what it is about. What is not known is said to be so."""
    if one["online"] is None:
        state = "never heard"
    elif one["online"]:
        state = "online"
    else:
        state = f"offline ({one['offline_reason'] or 'no reason given'})"
    said = {"state": state + (f", last heard {minute(one['seen_us'], zone)}" if one["seen_us"] else "")}
    said["revision"] = _revision(one["running"], one["desired"])
    live = [each["not_after_us"] for each in one["certificates"] if each["revoked_us"] is None]
    if live and max(live) > now_us:
        said["certificate"] = f"certificate good until {day(max(live), zone)}"
    elif live:
        said["certificate"] = f"certificate ran out {day(max(live), zone)}; it may renew itself"
    else:
        said["certificate"] = "revoked" if one["certificates"] else "no certificate"
    if one["claim"]:
        said["code"] = f"a code waits until {minute(one['claim']['expires_us'], zone)}"
    return said


def _revision(running: int | None, asked: dict[str, Any] | None) -> str:
    runs = f"runs revision {running}" if running else "runs its own file" if running == 0 else "has not said what it runs"
    if asked is None or (asked["outcome"] == "applied" and asked["revision"] == running):
        return runs
    outcome = ": ".join(filter(None, (asked["outcome"] or "not answered yet", asked["reason"])))
    return f"{runs}, asked for {asked['revision']}: {outcome}"
