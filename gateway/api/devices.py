"""GET devices: every device as it is known now, and honestly unknown where it is not."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends
from sqlalchemy import Connection, select

from gateway.api.deps import Deps, sifted
from gateway.api.shapes import DeviceJson, DevicesJson, Row, latest_json
from gateway.installations import places
from gateway.policy import Actor, Thing, extent
from gateway.state import tables

Key = tuple[str, str]  # node, device
Unknown = Literal["never_heard", "silent", "node_offline", "device_down"]


def routes(deps: Deps) -> APIRouter:
    """GET /devices."""
    router = APIRouter()

    @router.get("/devices")
    def devices(actor: Annotated[Actor, Depends(sifted("device.read"))]) -> DevicesJson:
        """The caller's devices that were announced, deployed or heard, with their latest readings and ages."""
        now_us, theirs = deps.now_us(), extent(actor, "device.read", deps.world)
        with deps.state.read() as connection:
            found = _devices(deps, connection, now_us)
        shown = [one for one in found if theirs.covers(Thing(one["node"], one["device"]))]
        return {"now_us": now_us, "stale_after_s": deps.stale_after_s, "devices": shown}

    return router


def _devices(deps: Deps, connection: Connection, now_us: int) -> list[DeviceJson]:
    nodes = {row["node"]: row for row in _rows(connection, select(tables.nodes))}
    announced = {(row["node"], row["device"]): row for row in _rows(connection, _with_newest_event())}
    latest: dict[Key, list[Row]] = {}
    for row in _rows(connection, select(tables.latest).order_by(tables.latest.c.metric)):
        latest.setdefault((row["node"], row["device"]), []).append(row)
    ringing = {
        (row["node"], row["device"])
        for row in _rows(connection, select(tables.alerts).where(tables.alerts.c.state.in_(("firing", "acknowledged"))))
    }
    deployed = {(one.node, one.device) for one in deps.deployments}
    measured = places(connection)

    found: list[DeviceJson] = []
    for node, device in sorted(announced.keys() | latest.keys() | deployed):
        device_row = announced.get((node, device), {})
        readings = latest.get((node, device), [])
        node_row = nodes.get(node, {})
        heard_us = _heard_us(device_row, readings)
        unknown_why = _unknown_why(deps, node_row, device_row, heard_us, now_us)
        deployment = deps.deployments.of(node, device)
        found.append(
            {
                "node": node,
                "device": device,
                "kind": deployment.kind if (node, device) in deployed else device_row.get("kind"),
                "place": deployment.place,
                "label": deployment.label,
                "at": measured.get((node, device), deployment.at),
                # An open alert stays in sight even when the device has fallen silent since: `unknown_why` says so too.
                "status": "alert" if (node, device) in ringing else "unknown" if unknown_why else "ok",
                "unknown_why": unknown_why,
                "heard_us": heard_us,
                "age_s": None if heard_us is None else max(0.0, (now_us - heard_us) / 1e6),
                "node_online": node_row.get("online"),
                "node_offline_reason": node_row.get("offline_reason"),
                "latest": [latest_json(row, now_us) for row in readings],
            }
        )
    return found


def _with_newest_event() -> Any:
    """Devices with the type and times of their newest event: one index look-up each, however many events there are."""
    newest = (
        select(tables.events.c.id)
        .where(tables.events.c.node == tables.devices.c.node, tables.events.c.device == tables.devices.c.device)
        .order_by(tables.events.c.time_us.desc(), tables.events.c.id.desc())
        .limit(1)
        .correlate(tables.devices)
        .scalar_subquery()
    )
    events = tables.events
    return select(tables.devices, events.c.type.label("event"), events.c.time_us, events.c.received_us).select_from(
        tables.devices.outerjoin(events, events.c.id == newest)
    )


def _heard_us(device: Row, readings: list[Row]) -> int | None:
    """What the newest word of a device tells us about: old news that arrives now is still old."""
    words = [min(row["time_us"], row["received_us"]) for row in readings]
    if device.get("time_us") is not None:
        words.append(min(device["time_us"], device["received_us"]))
    return max(words, default=None)


def _unknown_why(deps: Deps, node: Row, device: Row, heard_us: int | None, now_us: int) -> Unknown | None:
    if heard_us is None:
        return "never_heard"
    if now_us - heard_us > deps.stale_after_s * 1e6:
        return "silent"
    if node.get("online") is False and node.get("offline_reason") != "sleeping":
        return "node_offline"
    # A device that is down says nothing else until `device_up`, so its newest event tells.
    return "device_down" if device.get("event") == "device_down" else None


def _rows(connection: Connection, query: Any) -> list[Mapping[str, Any]]:
    return [dict(row) for row in connection.execute(query).mappings()]
